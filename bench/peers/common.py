"""What every engine is asked for: sessions of fifteen no-op steps, each result kept, timed alike.

Standard library and psycopg or asyncpg only: this runs in the virtual environment of each peer.

An engine is a module with

    PACKAGES             what to install and whose versions to print
    KEEPS                what it has stored of a step once the next one starts, in words
    PACED                true where a step may take its time (``step``); for the paced measure
    async def set_up(dsn)            create its tables
    def client(dsn)                  async context manager: gives ``begin(ids)``
    def worker(dsn, at_once)         async context manager: works meanwhile

and calls ``mark`` in every step. A worker and the one who gives it work share a process, and the
clock. A hop is from the moment step k returns to the moment step k+1 is called.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
from importlib import metadata
from time import perf_counter

PHASES = 5
STEPS = 15
starts: dict[str, list[float]] = {}
ends: dict[str, list[float]] = {}
RESULT = {"ok": True}
pause = 0.0  # seconds that ``step`` takes, on average


async def step(session: str) -> dict[str, bool]:
    """Be a step that may take its time."""
    if not pause:
        return mark(session)
    starts.setdefault(session, []).append(perf_counter())
    await asyncio.sleep(pause * random.uniform(0.5, 1.5))
    ends.setdefault(session, []).append(perf_counter())
    return RESULT


def mark(session: str) -> dict[str, bool]:
    """Be a step: note when it began and ended, and answer."""
    starts.setdefault(session, []).append(perf_counter())
    ends.setdefault(session, []).append(perf_counter())
    return RESULT


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds, and N."""
    ordered = sorted(seconds)
    return {
        "p50": round(ordered[len(ordered) // 2] * 1000, 3),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 3),
        "n": len(ordered),
    }


def hops(ids: list[str], after: int = 0) -> list[float]:
    """Return the hops of these sessions in seconds, but the first ``after`` of each."""
    return [
        start - end
        for id_ in ids
        for end, start in zip(ends[id_][after:], starts[id_][after + 1 :], strict=False)
    ]


async def until_done(ids: list[str], patience: float) -> None:
    """Wait for the last step of each."""
    give_up = perf_counter() + patience
    missing = set(ids)
    while missing := {id_ for id_ in missing if len(ends.get(id_, ())) < STEPS}:
        if perf_counter() > give_up:
            raise SystemExit(f"{len(missing)} of {len(ids)} sessions not done in {patience:.0f} s")
        await asyncio.sleep(0.005 if len(ids) == 1 else 0.05)


class Counter:
    """Counts the transactions of a database, on a connection of its own; none elsewhere."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.counts = dsn.startswith("postgresql")

    async def __aenter__(self) -> Counter:
        if not self.counts:
            return self
        try:
            import asyncpg

            connection = await asyncpg.connect(self._dsn)
            self._fetch, self._close = connection.fetchval, connection.close
        except ImportError:
            import psycopg

            connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)

            async def fetch(query: str) -> int:
                return (await (await connection.execute(query)).fetchone())[0]

            self._fetch, self._close = fetch, connection.close
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.counts:
            await self._close()

    async def read(self) -> int:
        if not self.counts:
            return 0
        await asyncio.sleep(1.1)  # backends report about once a second
        await self._fetch("SELECT 1 FROM (SELECT pg_stat_force_next_flush()) AS flushed")
        return int(
            await self._fetch(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database"
                " WHERE datname = current_database()"
            )
        )


async def measure(engine, dsn: str, what: str, given: argparse.Namespace) -> dict:
    """Measure one thing with a fresh worker."""
    run = f"{what}-{os.getpid()}"
    async with Counter(dsn) as counter:
        if what == "rate":
            ids = [f"{run}-{n}" for n in range(given.sessions)]
            async with engine.client(dsn) as begin:
                await begin(ids)
            # Its connections are closed: an open one may report what it did ten seconds later.
            before = await counter.read()
            async with engine.worker(dsn, 256):
                await until_done(ids, 600)
            count = await counter.read() - before
            moments = [m for id_ in ids for m in (starts[id_][0], ends[id_][-1])]
            took = max(moments) - min(moments)
            found = {
                "steps_per_s": round(len(ids) * STEPS / took),
                "hop_256": quantiles(hops(ids)),
                "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            }
            if counter.counts:
                found["tx_per_step"] = round(count / (len(ids) * STEPS), 4)
            return found
        if what == "paced":
            return await paced(engine, dsn, run) if getattr(engine, "PACED", False) else {}
        if what == "idle" and not counter.counts:
            return {}
        if what == "idle":

            async def rate() -> float:
                before, began = await counter.read(), perf_counter()
                await asyncio.sleep(given.idle_seconds)
                return (await counter.read() - before) / (perf_counter() - began)

            without = await rate()
            async with engine.worker(dsn, 16):
                # The start is not idleness, and a backend that has nothing more to do reports its
                # last transactions up to ten seconds later (PGSTAT_IDLE_INTERVAL).
                await asyncio.sleep(12)
                return {"idle_tx_per_s": round(max(0.0, await rate() - without), 3)}
        async with engine.client(dsn) as begin, engine.worker(dsn, 16):
            # The start is not what is measured, nor is what a connection does for the first time.
            await asyncio.sleep(1.5)
            await begin([f"{run}-first"])
            await until_done([f"{run}-first"], 60)
            await asyncio.sleep(0.05)
            ids, picked = [f"{run}-{n}" for n in range(given.lone)], []
            for id_ in ids:
                stored_at = await begin([id_])
                await until_done([id_], 60)
                picked.append(max(0.0, starts[id_][0] - stored_at))
                await asyncio.sleep(0.05)  # idle again
            found = {"hop_1": quantiles(hops(ids))}
            if getattr(engine, "QUEUES", True):
                found["pick_up"] = quantiles(picked)
            return found


async def paced(engine, dsn: str, run: str) -> dict:
    """Measure the hop at 1,000 steps a second: 1,000 sessions whose steps take about a second."""
    global pause  # noqa: PLW0603 - one measure a process
    pause = 1.0
    ids = [f"{run}-{n}" for n in range(1000)]
    async with engine.client(dsn) as begin:
        await begin(ids)
        async with engine.worker(dsn, len(ids)):
            await until_done(ids, 120)
    # They began all at once; a few steps later they are spread.
    return {"hop_paced": quantiles(hops(ids, after=4))}


def versions(packages: list[str]) -> dict[str, str]:
    """Return the versions of these packages, as installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def main(engine) -> None:
    """Be ``python -m peers.NAME WHAT --dsn DSN``; print one JSON object."""
    parser = argparse.ArgumentParser(description=engine.__doc__)
    parser.add_argument("what", choices=["set-up", "rate", "lone", "paced", "idle"])
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--sessions", type=int, default=512)
    parser.add_argument("--lone", type=int, default=60)
    parser.add_argument("--idle-seconds", type=float, default=30)
    given = parser.parse_args()
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    if given.what == "set-up":
        run(engine.set_up(given.dsn))
        found = {"versions": versions(engine.PACKAGES), "keeps": engine.KEEPS}
    else:
        found = run(measure(engine, given.dsn, given.what, given))
    print(json.dumps(found))
