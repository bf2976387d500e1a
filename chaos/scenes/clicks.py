"""64 simultaneous clicks on one gate, over two API processes and the store: one passes.

No worker runs, so no session can reach its next gate while the last clicks are on their way: the
clicks need not say which revision they saw, and every second round they do not.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from chaos.clients import Clients
from chaos.house import RUNS_ON, House, Site, free_port, wait_until
from chaos.witness import Witness

_GATED = replace(RUNS_ON, auto_phases=False)


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return in how many rounds more than one click passed, and in how many none did."""
    rounds = 5 if short else 1000
    async with House(site) as house:
        ports = [free_port(), free_port()]
        clients = Clients(house, ports, Witness(), site.seed)
        worker = house.worker()
        sessions = [await house.create(f"click-{n}", _GATED) for n in range(rounds)]
        apis = [house.api(port) for port in ports]

        async def all_wait() -> bool:
            return set((await house.statuses()).values()) == {"AWAITING_REVIEW"}

        await wait_until(all_wait, 300)
        worker.kill()
        await asyncio.gather(*(api.is_ready() for api in apis))
        told = []
        for n, session in enumerate(sessions):
            revision = await house.pool.fetchval(
                "SELECT id FROM ekiden.revisions WHERE session_id = $1", session
            )
            told.append(await clients.click(session, 1, revision if n % 2 else None))
        reviews = await house.pool.fetch(
            "SELECT s.id, count(r.id) AS n FROM ekiden.sessions s LEFT JOIN ekiden.reviews r"
            " ON r.session_id = s.id GROUP BY s.id"
        )
        await clients.close()
        return {
            "rounds": rounds,
            "clicks": rounds * 64,
            "told_passed": sum(told),
            "more_than_once": max(sum(n > 1 for n in told), sum(row["n"] > 1 for row in reviews)),
            "never": max(sum(n == 0 for n in told), sum(row["n"] == 0 for row in reviews)),
        }
