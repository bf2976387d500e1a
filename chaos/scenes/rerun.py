"""From kill -9 of a worker until what it ran runs again, on a second worker.

Both times are of this machine's clock: when the kill was sent, and when the next attempt was
claimed. First one task and an idle queue, then 200 sessions in flight. The model answers after 3 s,
and both workers have found each other before one is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any

from chaos.house import House, NotReached, Site, wait_until
from chaos.nursery import Nursery, Nursling

BUSY = 200  # sessions in flight
_PATIENCE = 20.0  # seconds until a task counts as never run again
# Seconds; a quick model. Long enough to be killed in, and that the worker that is left is not so
# busy with the answers of two that its own queue is what is measured.
_ANSWER = 3.0


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return p50, p99 and N, idle and busy."""
    kills = 5 if short else 50
    idle = await _measured(site, kills, width=1)
    return {"idle": idle} if short else {"idle": idle, "200 sessions": await _busy(site, kills)}


async def _busy(site: Site, kills: int) -> dict[str, Any]:
    return await _measured(site, kills, width=BUSY)


async def _measured(site: Site, kills: int, width: int) -> dict[str, Any]:
    times: list[float] = []
    never = hit = 0
    await asyncio.to_thread(site.provider.control, heal=True, delay=1.0, delay_s=_ANSWER)
    # Room for all of both and more: no wait for a slot or for a turn at the model is measured.
    room = str(8 * width + 8)
    environment = {"WORKER_BATCH_SIZE": room, "EKIDEN_CALLS_AT_ONCE": room}
    async with House(site) as house, Nursery(house, environment=environment) as nursery:
        pair = [await (await nursery.worker()).is_ready() for _ in range(2)]
        load = asyncio.create_task(_keep(house, width))
        for _ in range(kills):
            await wait_until(lambda: _watch_each_other(house), 30, "the two do not see each other")
            worker_id, running = await _victim(house, pair, width)
            victim = pair[0] if pair[0].pid == await _pid(house, worker_id) else pair[1]
            killed_at = time.time()
            victim.kill()
            again = await _again(house, running)
            # A task whose result came just before the kill has no next attempt: not counted.
            lost = [at for at in again.values() if at is not None]
            never += sum(at is None for at in again.values())
            times += [max(0.0, at - killed_at) for at in lost]
            hit += bool(again)
            if width == 1:
                await _end_all(house)
            pair[pair.index(victim)] = await (await nursery.worker()).is_ready()
            if width > 1:
                await asyncio.sleep(_ANSWER)  # until what was rescued is answered
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    return {
        "n": hit,
        "tasks": len(times),
        "never": never,
        "p50_s": round(quantile(times, 0.5), 3),
        "p99_s": round(quantile(times, 0.99), 3),
        "max_s": round(max(times, default=math.inf), 3),
    }


async def _keep(house: House, width: int) -> None:
    """Keep this many sessions in flight."""
    made = 0
    while True:
        statuses = (await house.statuses()).values()
        for _ in range(width - sum(status == "RUNNING" for status in statuses)):
            made += 1
            await house.create(f"load-{made}")
        # Poisoned by two more kills than a task survives: not what is measured here.
        for session, status in (await house.statuses()).items():
            if status == "FAILED":
                await house.sessions.cancel(session, actor="chaos")
        await asyncio.sleep(0.1)


async def _victim(
    house: House, pair: Sequence[Nursling], width: int
) -> tuple[int, list[tuple[int, int]]]:
    """Wait until a worker is busy enough; return its id and the (task, attempt) pairs it runs.

    With tasks that no worker died of yet, that is: else all kills would hit the same few again.
    """
    pids = [worker.pid for worker in pair]

    async def busiest() -> Any:
        rows = await house.pool.fetch(
            "SELECT t.worker_id, array_agg(t.id) AS ids, array_agg(t.attempt) AS attempts"
            " FROM ekiden.api_tasks t JOIN ekiden.workers w ON w.id = t.worker_id"
            " WHERE t.status = 'RUNNING' AND t.attempt = t.budget_from + 1 AND w.pid = ANY ($1)"
            " GROUP BY 1",
            pids,
        )
        enough = [row for row in rows if sum(len(r["ids"]) for r in rows) >= width * 0.8]
        return max(enough, key=lambda row: len(row["ids"]), default=None)

    row = await wait_until(busiest, 60, "no worker is busy enough")
    return row["worker_id"], list(zip(row["ids"], row["attempts"], strict=True))


async def _watch_each_other(house: House) -> bool:
    """Whether each of the two workers waits on the other's life sign, as peers do all the time."""
    waiting = await house.pool.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return bool(waiting >= 2)


async def _pid(house: House, worker_id: int) -> int:
    return int(await house.pool.fetchval("SELECT pid FROM ekiden.workers WHERE id=$1", worker_id))


async def _again(house: House, running: list[tuple[int, int]]) -> dict[int, float | None]:
    """Return when each task's next attempt began (epoch); None if it never did."""
    ids, attempts = [task for task, _ in running], [n for _, n in running]
    begun: dict[int, float] = {}
    lost: set[int] = set()

    async def all_are() -> bool:
        rows = await house.pool.fetch(
            "SELECT asked.id, a.outcome, extract(epoch FROM coalesce(b.started_at, CASE WHEN"
            " t.attempt = asked.n + 1 AND t.status = 'RUNNING' THEN t.started_at END)) AS at"
            " FROM unnest($1::bigint[], $2::int[]) AS asked(id, n)"
            " JOIN ekiden.api_tasks t ON t.id = asked.id"
            " LEFT JOIN ekiden.attempts a ON a.task_id = asked.id AND a.number = asked.n"
            " LEFT JOIN ekiden.attempts b ON b.task_id = asked.id AND b.number = asked.n + 1",
            ids,
            attempts,
        )
        lost.update(row["id"] for row in rows if row["outcome"] in {None, "LOST"})
        lost.difference_update(row["id"] for row in rows if row["outcome"] == "COMPLETED")
        begun.update({row["id"]: float(row["at"]) for row in rows if row["at"] is not None})
        return lost <= begun.keys()

    with contextlib.suppress(NotReached):
        await wait_until(all_are, _PATIENCE)
    return {task: begun.get(task) for task in lost}


async def _end_all(house: House) -> None:
    for session, status in (await house.statuses()).items():
        if status in {"RUNNING", "FAILED"}:
            await house.sessions.cancel(session, actor="chaos")


def quantile(values: Sequence[float], q: float) -> float:
    """Return the smallest value that is not under a share ``q`` of all; infinite of none."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)] if values else math.inf
