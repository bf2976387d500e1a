"""A worker's listening sockets go half-open: they exist and nothing comes.

Then a session is created, and its doorbell rings unheard. When its first step starts, the worker
has heard again; nothing else can wake it that soon.
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
    return {
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

        async def started() -> bool:
            return bool(
                await house.pool.fetchval(
                    "SELECT EXISTS (SELECT FROM ekiden.api_tasks WHERE session_id = $1"
                    " AND attempt > 0)",
                    session,
                )
            )

        after = None
        with contextlib.suppress(NotReached):
            await wait_until(started, _PATIENCE)
            after = time.monotonic() - began
        with contextlib.suppress(NotReached):
            await house.drain(_PATIENCE)
        lost = total(await judge(house, observer))
    await proxy.stop()
    return after, lost
