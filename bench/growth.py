"""What years, crowds and neglect cost: the same worker beside much that is there.

    python bench/growth.py [--only gates --only prune ...] [--repeats 3] [--json]

gates     100,000 sessions that wait for a person, against empty tables, in turn
flight    10,000 steps in flight in one worker: its memory
arrival   1,000 queued sessions that arrive in one commit: until the first step of each is called
snapshot  1,000,000 steps while somebody holds a snapshot open, against none
prune     `ekiden prune` of a million finished tasks beside a worker at a paced 1,000 steps/s
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import asyncpg
import uvloop

import noop
import past
from ekiden.store import prune as pruning
from ekiden.store.connection import connect
from ekiden.store.migrate import migrate
from handoff import create_held, hops, let_go, many_sessions, until_done, worker
from measuring import as_text, command, database, percentiles, say

GATES = 100_000
SLICE = 65_536  # steps


async def fresh(server: str, name: str, flows=None) -> str:
    """Return the DSN of a new database that knows the flow."""
    connection = await asyncpg.connect(server)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    dsn = server.replace("/ekiden?", f"/{name}?")
    await migrate(dsn)
    async with worker(dsn, 1, flows):
        pass
    return dsn


async def rate(dsn: str, sessions: int = 2048) -> float:
    """Return steps a second of a saturated worker."""
    connection = await connect(dsn)
    found, _ = await many_sessions(dsn, connection, 256, sessions)
    await connection.close()
    return found


async def gates(server: str, given: argparse.Namespace) -> dict[str, float]:
    """Compare a worker beside 100,000 waiting sessions with one on empty tables."""
    empty, waiting = await fresh(server, "empty"), await fresh(server, "waiting")
    await past.at_gates(waiting, GATES)
    rates: dict[str, list[float]] = {empty: [], waiting: []}
    for _ in range(given.repeats):
        for dsn, seen in rates.items():
            seen.append(await rate(dsn))
    alone, beside = (statistics.median(seen) for seen in rates.values())
    return {
        "steps/s, empty tables": round(alone),
        f"steps/s, {GATES:,} sessions at gates": round(beside),
        "of the rate when empty": round(beside / alone, 3),
    }


async def flight(server: str, given: argparse.Namespace) -> dict[str, float]:
    """Return the memory of a worker that holds many steps."""
    found = {}
    for count in (1, 2_000, 10_000):
        dsn = await fresh(server, f"flight{count}", [noop.waiting_flow()])
        held = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "handoff.py", "--hold", str(count), "--dsn", dsn],
            check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
        )  # fmt: skip
        found[f"MB with {count:,} steps in flight"] = float(held.stdout)
    few, many = found["MB with 1 steps in flight"], found["MB with 10,000 steps in flight"]
    found["KB a step in flight"] = round((many - few) * 1000 / 10_000, 1)
    return found


async def arrival(server: str, given: argparse.Namespace) -> dict[str, float]:
    """Return how long 1,000 sessions wait that come in one commit to an idle worker."""
    flows = [noop.waiting_flow()]
    dsn = await fresh(server, "arrival", flows)
    connection = await connect(dsn)
    took: list[float] = []
    for _ in range(given.repeats):
        noop.waiting.clear()
        noop.called.clear()
        ids = await create_held(dsn, 1000, "waits")
        async with worker(dsn, 1000, flows):
            await asyncio.sleep(1)  # idle
            await let_go(connection, ids)
            committed = perf_counter()
            while len(noop.called) < len(ids):
                await asyncio.sleep(0.02)
            took += [max(0.0, moment - committed) * 1000 for moment in noop.called]
            noop.waiting.set()
            await until_done(connection, ids)
    await connection.close()
    p50, p99 = percentiles(took)
    return {"pick-up p50, ms": round(p50, 1), "pick-up p99, ms": round(p99, 1), "N": len(took)}


@asynccontextmanager
async def snapshot_held(dsn: str):
    """Be the one who went to lunch in the middle of a transaction."""
    connection = await asyncpg.connect(dsn)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetchval("SELECT count(*) FROM ekiden.sessions")
        yield
    await connection.close()


@asynccontextmanager
async def nobody(_: str):
    """Hold nothing."""
    yield


async def snapshot(server: str, given: argparse.Namespace) -> dict[str, float]:
    """Compare the last steps of a million under a held snapshot with those under none."""
    found = {}
    for name, holding in (("no snapshot", nobody), ("a snapshot held", snapshot_held)):
        dsn = await fresh(server, name.replace(" ", "_"))
        rates = []
        async with holding(dsn):
            for _ in range(given.steps // SLICE):
                rates.append(await rate(dsn, SLICE // 15))
                say(f"  {name}, after {len(rates) * SLICE:,} steps: {rates[-1]:,.0f} steps/s")
                noop.starts.clear()
                noop.ends.clear()
        found[f"steps/s, {name}, first {SLICE:,} steps"] = round(rates[0])
        found[f"steps/s, {name}, last {SLICE:,} of {given.steps:,}"] = round(rates[-1])
        found[f"steps/s, {name}, median"] = round(statistics.median(rates))
    return found


async def prune(server: str, given: argparse.Namespace) -> dict[str, float]:
    """Return how long pruning takes, and what the hand-off feels of it."""
    dsn = await fresh(server, "prune")
    sessions = -(-1_000_000 // 15)
    await past.finished(dsn, sessions)
    connection = await connect(dsn)
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1)
    noop.pause = 1.0
    ids = await create_held(dsn, 1000)
    found: dict[str, float] = {}
    async with worker(dsn, 1000):
        await let_go(connection, ids)
        await asyncio.sleep(4)  # they began all at once; now they are spread
        quiet_from, quiet_to = await _for(3)
        began = perf_counter()
        pruned = await pruning.prune(pool, dsn, before=datetime.now(UTC) - timedelta(0))
        ended = perf_counter()
        await until_done(connection, ids)
    noop.pause = 0.0
    found["sessions pruned"] = pruned.sessions
    found["tasks pruned"] = pruned.tasks
    found["seconds"] = round(ended - began, 1)
    found["tasks pruned a second"] = round(pruned.tasks / (ended - began))
    for name, since, until in (("before", quiet_from, quiet_to), ("meanwhile", began, ended)):
        some = hops(ids, since, until)
        p50, p99 = percentiles(some)
        found |= {f"hop p50 {name}, ms": round(p50, 2), f"hop p99 {name}, ms": round(p99, 2)}
        found[f"N {name}"] = len(some)
    await pool.close()
    await connection.close()
    return found


async def _for(seconds: float) -> tuple[float, float]:
    began = perf_counter()
    await asyncio.sleep(seconds)
    return began, perf_counter()


PARTS = {one.__name__: one for one in (gates, flight, arrival, snapshot, prune)}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="may be repeated")
    parser.add_argument("--repeats", type=int, default=3, help="turns (median)")
    parser.add_argument("--steps", type=int, default=1_000_000, help="under the snapshot")
    given = parser.parse_args()
    found = {}
    with database() as (dsn, _):
        say("Measuring growth; about ten minutes.")
        for name in given.only or PARTS:
            say(name)
            found[name] = uvloop.run(PARTS[name](dsn, given))
    print(json.dumps(found) if given.json else as_text(found))


if __name__ == "__main__":
    main()
