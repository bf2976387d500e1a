"""A worker's hand-off reaches PostgreSQL after its lease, when a peer has done the work.

The worker is stopped with its hand-off already on the wire, and the backend that is to execute it
is stopped before it reads it. The lease ends; a peer rescues the task and completes it. Then the
backend wakes and executes the late hand-off, and then the worker wakes: both must be refused. A
hand-off that slipped through before it could be stopped was in time: it is counted as such, and
another one is staged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Any

from chaos.house import House, Site, wait_until
from chaos.judge import complaints, judge
from chaos.nursery import Nursery, Nursling
from chaos.observer import Observer

LEASE = 2  # seconds
_HANDS_OFF = "%WITH done AS%"  # in complete_tasks alone
_ENVIRONMENT = {"EKIDEN_LEASE": str(LEASE)}
AT_ONCE = 4
_TRIES = 3  # at stopping one hand-off on its way


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return how many late writes were executed, and how many of them were accepted."""
    n = 3 if short else 25
    await asyncio.to_thread(site.provider.control, delay=1.0, delay_s=0.2)
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(_: int) -> list[_Late | None]:
        async with limit:
            tries: list[_Late | None] = []
            while len(tries) < _TRIES and not any(tries):
                tries.append(await _one(site))
            return tries

    tries = [one for some in await asyncio.gather(*map(one, range(n))) for one in some]
    found = [late for late in tries if late is not None]
    return {
        "n": n,
        "in_time": len(tries) - len(found),
        "late_writes": sum(late.executed for late in found),
        "accepted": sum(late.accepted + len(late.complaints) for late in found),
        "complaints": [line for late in found for line in late.complaints],
    }


@dataclass(frozen=True, slots=True)
class _Late:
    """What became of one late hand-off."""

    executed: bool  # PostgreSQL was seen to execute it
    accepted: int  # completions of the task by another than its last holder
    complaints: list[str]  # the judge's


async def _one(site: Site) -> _Late | None:
    """Stage one late hand-off; None when it could not be stopped in time."""
    async with (
        House(site) as house,
        Observer(house.dsn) as observer,
        Nursery(house, environment=_ENVIRONMENT) as nursery,
    ):
        name = house.folder.name  # one provider serves all tries: a key is its try's own
        zombie = await (await nursery.worker()).is_ready()
        for n in range(4):
            await house.create(f"warm-{name}-{n}")
        await house.drain(60)  # every connection that commits has committed
        backends = await _committing(house)
        session = await house.create(f"late-{name}")
        task = await _asking(house, session, zombie)
        await _stop_as_it_hands_off(house, zombie, backends, task)
        if not await _held(house, task):
            for pid in backends:
                _signal(pid, signal.SIGCONT)
            return None
        peer = await (await nursery.worker()).is_ready()
        await house.drain(60)
        before = await _executed(house, backends)
        for pid in backends:
            _signal(pid, signal.SIGCONT)
        late = False
        with contextlib.suppress(AssertionError):

            async def executed() -> bool:
                return await _executed(house, backends) != before

            late = bool(await wait_until(executed, 5))
        zombie.thaw()
        await house.create(f"after-{name}")
        await house.drain(60)
        accepted = await house.pool.fetchval(
            "SELECT count(*) FROM ekiden.attempts a JOIN ekiden.workers w ON w.id = a.worker_id"
            " WHERE a.task_id = $1 AND a.outcome = 'COMPLETED' AND w.pid <> $2",
            task,
            peer.pid,
        )
        found = await judge(house, observer)
        return _Late(late, accepted, complaints(found))


async def _committing(house: House) -> list[int]:
    """Return the backends that execute hand-offs."""
    rows = await house.pool.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1"
        " AND pid <> pg_backend_pid()",
        _HANDS_OFF,
    )
    if not rows:
        raise AssertionError("no backend has executed a hand-off")
    return [row["pid"] for row in rows]


async def _executed(house: House, backends: list[int]) -> dict[int, Any]:
    """Return when each of these backends began its last statement."""
    rows = await house.pool.fetch(
        "SELECT pid, query_start FROM pg_stat_activity WHERE pid = ANY ($1::int[])", backends
    )
    return {row["pid"]: row["query_start"] for row in rows}


async def _asking(house: House, session: str, zombie: Nursling) -> int:
    """Wait until the zombie asks the model for this session's first task; return the task."""

    async def running() -> Any:
        return await house.pool.fetchval(
            "SELECT t.id FROM ekiden.api_tasks t JOIN ekiden.workers w ON w.id = t.worker_id"
            " WHERE t.session_id = $1 AND t.status = 'RUNNING' AND w.pid = $2",
            session,
            zombie.pid,
        )

    return int(await wait_until(running, 20))


async def _stop_as_it_hands_off(
    house: House, zombie: Nursling, backends: list[int], task: int
) -> None:
    """Stop the backends, then, once the answer is in the ledger, the worker."""
    for pid in backends:
        _signal(pid, signal.SIGSTOP)

    async def answered() -> bool:
        return bool(
            await house.pool.fetchval(
                "SELECT EXISTS"
                " (SELECT FROM ekiden.calls WHERE task_id = $1 AND answer IS NOT NULL)",
                task,
            )
        )

    await wait_until(answered, 20)
    await asyncio.sleep(0.3)  # reads its answer, returns, sends the hand-off: milliseconds
    zombie.freeze()


async def _held(house: House, task: int) -> bool:
    return bool(
        await house.pool.fetchval(
            "SELECT status = 'RUNNING' AND attempt = 1 FROM ekiden.api_tasks WHERE id = $1", task
        )
    )


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
