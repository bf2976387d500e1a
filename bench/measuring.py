"""What every measurement needs: a database of its own, a voice, and percentiles."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from ekiden.store.embedded import EmbeddedServer


def say(text: str) -> None:
    """Tell the one who waits; figures go to stdout."""
    print(text, file=sys.stderr, flush=True)


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process, in MB of 1,024 KB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def as_text(found: dict[str, dict[str, float]]) -> str:
    """Return the figures of each part, a line each."""
    lines = []
    for name, figures in found.items():
        lines += [name, *(f"  {what:48}{value:>12,}" for what, value in figures.items()), ""]
    return "\n".join(lines).rstrip()


def command(about: str) -> argparse.ArgumentParser:
    """Return a parser that has ``--json``; the first line of ``about`` is its help."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def quiet() -> None:
    """Keep the worker's log to what went wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))


@contextmanager
def database() -> Iterator[tuple[str, Path]]:
    """Run a PostgreSQL of its own (the wheel's, default durability); give its DSN and its home."""
    quiet()
    with tempfile.TemporaryDirectory() as home, EmbeddedServer(Path(home)) as server:
        yield server.start(), Path(home)


@contextmanager
def served(dsn: str, home: Path) -> Iterator[tuple[int, int]]:
    """Run the API as ``ekiden serve`` does, in a process of its own; give its port and its pid."""
    port = 18_000 + os.getpid() % 10_000
    api = subprocess.Popen(
        [sys.executable, "-m", "ekiden.cli", "serve", "--port", str(port)],
        env={**os.environ, "DATABASE_URL": dsn, "EKIDEN_HOME": str(home)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
            except OSError:
                time.sleep(0.1)
            else:
                break
        else:
            raise SystemExit("the API did not come up in 20 s")
        yield port, api.pid
    finally:
        api.terminate()
        api.wait(20)
