"""A worker does not hear its doorbell, and a session is created meanwhile.

First its listening sockets go half-open: they exist and nothing comes. Then, in another house, its
doorbell's connection is cut, and the session is created before the worker can have another: who
does not look at everything once it listens again has missed it for long. When the first step
starts, the worker has heard again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

from chaos.house import House, NotReached, Site, wait_until
from chaos.judge import judge, total
from chaos.nursery import Nursery
from chaos.observer import Observer
from chaos.proxy import Proxy

_PATIENCE = 40.0  # seconds
AT_ONCE = 5  # houses side by side; they wait most of the time


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return after how many seconds each worker had heard again, and what was lost meanwhile."""
    n = 4 if short else 25
    dice = random.Random(f"{site.seed} deaf")
    waits = [dice.uniform(0.0, 8.0) for _ in range(n)]
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[float | None, int]:
        async with limit:
            return await _one(site, number, waits[number])

    found = await asyncio.gather(*(one(number) for number in range(n)))
    cuts = await _cut(site, 5 if short else 50)
    return {
        "cuts": len(cuts),
        "heard_after_a_cut_s": cuts,
        "n": n,
        "heard_after_s": sorted(round(after, 2) for after, _ in found if after is not None),
        "lost": sum(lost for _, lost in found),
    }


async def _one(site: Site, number: int, wait: float) -> tuple[float | None, int]:
    proxy = Proxy(site.socket_folder, site.postgres_port)
    await proxy.start()
    async with House(site) as house, Observer(house.dsn) as observer, Nursery(house) as nursery:
        name = house.dsn.partition("@/")[2].partition("?")[0]
        through = f"postgresql://ekiden@127.0.0.1:{proxy.port}/{name}"
        worker = await nursery.worker(EKIDEN_LISTEN_URL=through)
        await worker.is_ready()
        await house.create(f"before-{number}")
        await house.drain(30)
        await asyncio.sleep(wait)  # wherever its own timers stand
        if proxy.deafen() == 0:
            raise AssertionError("no socket was open: nothing could go deaf")
        began = time.monotonic()
        session = await house.create(f"unheard-{number}")
        after = await _started(house, session, began)
        with contextlib.suppress(NotReached):
            await house.drain(_PATIENCE)
        lost = total(await judge(house, observer))
    await proxy.stop()
    return after, lost


async def _cut(site: Site, rounds: int) -> list[float]:
    """Cut the doorbell's connection and ring at once; return when each ring was heard."""
    heard = []
    async with House(site) as house, Nursery(house) as nursery:
        await (await nursery.worker()).is_ready()
        for number in range(rounds):
            await wait_until(lambda: _listeners(house), 30, "the worker does not listen")
            for pid in await _listeners(house):
                await house.pool.fetchval("SELECT pg_terminate_backend($1)", pid)
            began = time.monotonic()
            session = await house.create(f"cut-{number}")
            after = await _started(house, session, began)
            heard.append(round(_PATIENCE if after is None else after, 3))
            await house.drain(_PATIENCE)
    return sorted(heard)


async def _listeners(house: House) -> list[int]:
    """Return the backends whose last statement was LISTEN."""
    rows = await house.pool.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND query ILIKE 'LISTEN%'"
    )
    return [row["pid"] for row in rows]


async def _started(house: House, session: str, began: float) -> float | None:
    """Return how many seconds after ``began`` the session's first step started."""

    async def started() -> bool:
        return bool(
            await house.pool.fetchval(
                "SELECT EXISTS"
                " (SELECT FROM ekiden.api_tasks WHERE session_id = $1 AND attempt > 0)",
                session,
            )
        )

    with contextlib.suppress(NotReached):
        await wait_until(started, _PATIENCE)
        return time.monotonic() - began
    return None
