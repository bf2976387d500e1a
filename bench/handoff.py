"""The hand-off, measured: rate and hop of no-op steps beside the bare durable commit.

    python bench/handoff.py [--json] [--idle-seconds 60] [--repeats 3]

One PostgreSQL (the wheel's, default durability, fsync on), one worker, everything on: ledger,
attempts, events, triggers. A hop is from the moment step k returns to the moment step k+1 is
called, its predecessor durable in between. All figures are of one run on one database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import asyncpg
import uvloop

import noop
from bare import Bare
from ekiden.core.model import Options
from ekiden.store.connection import connect
from ekiden.store.migrate import migrate
from ekiden.store.sessions import Sessions
from ekiden.worker.worker import Worker, WorkerOptions
from measuring import command, database, percentiles, quiet, say

STEPS = 15
RUNS_ON = Options(auto_phases=True)


@asynccontextmanager
async def worker(dsn: str, capacity: int, flows=None):
    one = Worker(lambda: dsn, flows or [noop.noop_flow()], options=WorkerOptions(capacity=capacity))
    running = asyncio.create_task(one.run())
    ready = asyncio.create_task(one.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield one
    finally:
        one.stop()
        await running


async def create_held(dsn: str, count: int, flow: str = "noop") -> list[str]:
    """Create sessions that wait to be let go all at once."""
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=8)
    sessions = Sessions(pool, dsn)
    made = []
    for _ in range(0, count, 64):
        made += await asyncio.gather(
            *(
                sessions.create(flow, title="bench", input={}, options=RUNS_ON)
                for _ in range(min(64, count - len(made)))
            )
        )
    await pool.close()
    return [session for session, _ in made]


async def let_go(connection: asyncpg.Connection, ids: list[str]) -> None:
    await connection.execute(
        "UPDATE ekiden.api_tasks SET queued = true, awaiting = false "
        "WHERE awaiting AND session_id = ANY ($1::uuid[])",
        ids,
    )


async def until_done(connection: asyncpg.Connection, ids: list[str]) -> None:
    while await connection.fetchval(
        "SELECT count(*) FROM ekiden.sessions "
        "WHERE id = ANY ($1::uuid[]) AND status <> 'COMPLETED'",
        ids,
    ):
        await asyncio.sleep(0.02)


def hops(ids: list[str], since: float = 0, until: float = inf) -> list[float]:
    """Return the hops of these sessions that began between two moments, in milliseconds."""
    return [
        (start - end) * 1000
        for session in ids
        for end, start in zip(noop.ends[session], noop.starts[session][1:], strict=False)
        if since <= end < until
    ]


async def one_session_at_a_time(dsn: str, connection, bare: Bare, count: int = 100) -> list[float]:
    """Return the hops of lone sessions, with bare commits in between.

    A disk's fsync can take 0.05 ms in one second and 4 ms in the next, so both must see the same.
    """
    ids = await create_held(dsn, count)
    await bare.prepare(dsn)
    async with worker(dsn, 16):
        for session in ids:
            await bare.run(STEPS)
            await let_go(connection, [session])
            while len(noop.ends.get(session, ())) < STEPS:
                await asyncio.sleep(0.002)
        await until_done(connection, ids)
    return hops(ids)


async def many_sessions(
    dsn: str, connection, at_once: int, count: int
) -> tuple[float, list[float]]:
    """Return steps per second and hops of ``count`` sessions, ``at_once`` at a time."""
    ids = await create_held(dsn, count)
    await connection.execute("ANALYZE")
    async with worker(dsn, at_once):
        await let_go(connection, ids)
        await until_done(connection, ids)
    moments = [m for session in ids for m in (*noop.starts[session], *noop.ends[session])]
    return count * STEPS / (max(moments) - min(moments)), hops(ids)


async def idle_transactions(dsn: str, connection, seconds: float) -> float:
    """Return transactions per second that an idle worker adds to an idle database."""

    async def commits() -> int:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await asyncio.sleep(0.5)
        return await connection.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database "
            "WHERE datname = current_database()"
        )

    async def rate() -> float:
        before, began = await commits(), time.monotonic()
        await asyncio.sleep(seconds)
        return (await commits() - before) / (time.monotonic() - began)

    say(f"  idle: {seconds:.0f} s without and {seconds:.0f} s with a worker")
    without = await rate()
    async with worker(dsn, 16):
        await asyncio.sleep(3)  # the start is not idleness
        return max(0.0, await rate() - without)


async def hold(dsn: str, count: int) -> None:
    """Child process: hold ``count`` waiting steps and print the resident memory, in MB."""
    connection = await connect(dsn)
    async with worker(dsn, count, [noop.waiting_flow()]):
        ids = await create_held(dsn, count, "waits")
        await let_go(connection, ids)
        while len(noop.called) < count:
            await asyncio.sleep(0.05)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1))
        noop.waiting.set()
        await until_done(connection, ids)
    await connection.close()


async def measure(dsn: str, arguments: argparse.Namespace) -> dict[str, float]:
    await migrate(dsn)
    connection = await connect(dsn)
    rates, hops_1, hops_256, bare = [], [], [], Bare()
    async with worker(dsn, 1):
        pass  # registers the flow
    for repeat in range(arguments.repeats):
        hops_1 += await one_session_at_a_time(dsn, connection, bare)
        rate, some = await many_sessions(dsn, connection, 256, arguments.sessions)
        rates.append(rate)
        hops_256 += some
        say(f"  run {repeat + 1} of {arguments.repeats}: {rate:,.0f} steps/s")
    noop.starts.clear()
    noop.ends.clear()
    held = subprocess.run(
        [sys.executable, __file__, "--hold", "2000", "--dsn", dsn],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    idle = await idle_transactions(dsn, connection, arguments.idle_seconds)
    await connection.close()
    p50_1, p99_1 = percentiles(hops_1)
    p50_256, p99_256 = percentiles(hops_256)
    bare_p50, bare_p99 = percentiles(bare.commits)
    handoff_p50, handoff_p99 = percentiles(bare.handoffs)
    return {
        "steps_per_s_256": round(statistics.median(rates)),
        "hop_p50_ms_1": round(p50_1, 3),
        "hop_p99_ms_1": round(p99_1, 3),
        "hop_p50_ms_256": round(p50_256, 3),
        "hop_p99_ms_256": round(p99_256, 3),
        "bare_commit_p50_ms": round(bare_p50, 3),
        "bare_commit_p99_ms": round(bare_p99, 3),
        "bare_handoff_p50_ms": round(handoff_p50, 3),
        "bare_handoff_p99_ms": round(handoff_p99, 3),
        "idle_tx_per_s": round(idle, 4),
        "rss_mb_2000": float(held.stdout),
        "n_hops_1": len(hops_1),
        "n_hops_256": len(hops_256),
        "n_bare": len(bare.commits),
    }


def report(found: dict[str, float]) -> str:
    ratio = found["hop_p50_ms_1"] / found["bare_commit_p50_ms"]
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "PostgreSQL 18 of the wheel, default durability (fsync on)",
        "",
        f"{'':32}{'p50':>10}{'p99':>10}{'N':>9}",
    ]
    for title, key, n, note in (
        ("bare durable commit, ms", "bare_commit_{}_ms", "n_bare", ""),
        ("bare hand-off, ms", "bare_handoff_{}_ms", "n_bare", ""),
        ("hop, 1 session, ms", "hop_{}_ms_1", "n_hops_1", f"  {ratio:.2f} x the bare commit"),
        ("hop, 256 sessions, ms", "hop_{}_ms_256", "n_hops_256", ""),
    ):
        p50, p99 = found[key.format("p50")], found[key.format("p99")]
        lines.append(f"{title:32}{p50:10.3f}{p99:10.3f}{found[n]:9,}{note}")
    lines += [
        "",
        f"{'steps/s, 256 sessions':32}{found['steps_per_s_256']:10,}",
        f"{'idle worker, transactions/s':32}{found['idle_tx_per_s']:10.3f}",
        f"{'worker holding 2,000 steps, MB':32}{found['rss_mb_2000']:10.1f}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each figure (median)")
    parser.add_argument("--sessions", type=int, default=2048, help="sessions in a rate run")
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dsn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        quiet()
        uvloop.run(hold(arguments.dsn, arguments.hold))
        return
    with database() as (dsn, _):
        say("Measuring the hand-off; a few minutes.")
        found = uvloop.run(measure(dsn, arguments))
    print(json.dumps(found) if arguments.json else report(found))


if __name__ == "__main__":
    main()
