"""The nemesis: a house under load in which everything breaks, as its seed says; then it may heal.

Safety mode: whatever happens, nothing that was acknowledged is lost, nothing takes effect twice.
Liveness mode: once nothing breaks any more, every session comes to its end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from chaos.clients import TROUBLE, Clients
from chaos.faults import Faults, Slot
from chaos.house import House, Site, free_port
from chaos.judge import MUST_BE_NONE, judge
from chaos.nursery import Nursery
from chaos.observer import Observer
from chaos.proxy import Proxy
from chaos.schedule import KINDS, LEASE, Fault, Length, counted, plan
from chaos.witness import Witness

Say = Callable[[str], None]

ENVIRONMENT = {
    "EKIDEN_LEASE": str(LEASE),
    "WORKER_BATCH_SIZE": "6",
    "RETRY_DELAY": "20",
    "MAX_RETRIES": "20",
    "WORKER_TIMEOUT": "10000",
}
ANSWERS_TAKE = 0.12  # seconds: so that a kill finds something running


@dataclass
class Outcome:
    """What a run did and found."""

    faults: dict[str, int]  # by what was done, in words
    hit: dict[str, int]
    sessions: dict[str, int] = field(default_factory=dict)  # by how they ended
    figures: dict[str, Any] = field(default_factory=dict)
    violations: dict[str, int] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)  # the first few of each violation


class Nemesis:
    """One run.

    Args:
        site: PostgreSQL and the provider.
        length: how long, and what it must have seen.
        seed: of the schedule.
        kills: kills of workers, if not as many as the length has.
        say: is told how it goes.
    """

    def __init__(self, site: Site, length: Length, seed: int, kills: int | None, say: Say) -> None:
        self._site = site
        self._length = length
        self._seed = seed
        self._plan = plan(seed, length, kills)
        self._say = say

    async def run(self) -> Outcome:
        """Break, heal, judge."""
        async with AsyncExitStack() as stack:
            house = self._house = await stack.enter_async_context(
                House(self._site, environment=ENVIRONMENT)
            )
            nursery = await stack.enter_async_context(Nursery(house, environment=ENVIRONMENT))
            self._witness = Witness()
            self._observer = await stack.enter_async_context(Observer(house.dsn))
            ports = [free_port(), free_port()]
            self._clients = Clients(house, ports, self._witness, self._seed)
            stack.push_async_callback(self._clients.close)
            self._slots = [await self._slot(stack, nursery, n) for n in range(self._length.workers)]
            self._faults = Faults(house, self._slots, self._clients, ports)
            await self._calm()
            tasks = [
                asyncio.create_task(work, name=name)
                for name, work in {
                    "apis": self._faults.keep_apis(),
                    "attend": self._clients.attend(),
                    "load": self._clients.load(self._length.width),
                    **{f"slot {n}": slot.keep() for n, slot in enumerate(self._slots)},
                }.items()
            ]
            try:
                await self._break(tasks)
                healed = await self._heal()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return await self._judge(healed)

    async def _slot(self, stack: AsyncExitStack, nursery: Nursery, n: int) -> Slot:
        """Every second worker reaches PostgreSQL through a proxy of its own."""
        if n % 2:
            return Slot(nursery, None, "")
        proxy = Proxy(self._site.socket_folder, self._site.postgres_port)
        await proxy.start()
        stack.push_async_callback(proxy.stop)
        name = self._house.dsn.partition("@/")[2].partition("?")[0]
        return Slot(nursery, proxy, f"postgresql://ekiden@127.0.0.1:{proxy.port}/{name}")

    async def _calm(self) -> None:
        await asyncio.to_thread(
            self._site.provider.control, heal=True, delay=1.0, delay_s=ANSWERS_TAKE
        )

    async def _break(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Do every fault of the plan at its time."""
        begun = time.monotonic()
        doing: set[asyncio.Task[None]] = set()
        said = begun
        for fault in self._plan:
            while (wait := begun + fault.at - time.monotonic()) > 0:
                await asyncio.sleep(min(wait, 0.5))
            for task in tasks:
                if task.done():
                    task.result()  # one of ours fell over: the run means nothing
                    raise AssertionError(f"{task.get_name()} ended")
            doing.add(asyncio.create_task(self._faults.do(fault)))
            doing -= {task for task in doing if task.done() and task.exception() is None}
            if time.monotonic() > said + 30:
                said = time.monotonic()
                self._say(await self._how_it_goes(fault))
        await asyncio.gather(*doing)

    async def _how_it_goes(self, fault: Fault) -> str:
        statuses = Counter[str]()
        with suppress(*TROUBLE):
            statuses = Counter((await self._house.statuses()).values())
        kills = self._faults.done["worker-kill"]
        return f"{fault.at:.0f} s: {kills} workers killed, sessions {dict(statuses)}"

    async def _heal(self) -> float | None:
        """Mend everything; return how many seconds it took until all sessions had ended."""
        self._clients.creating = False
        self._clients.paused.clear()
        self._site.start_postgres()
        await asyncio.to_thread(self._site.provider.control, heal=True)
        for slot in self._slots:
            if slot.proxy is not None:
                slot.proxy.set("pass")
            if slot.worker is not None:
                slot.worker.thaw()
        begun = time.monotonic()
        while time.monotonic() < begun + self._length.heal:
            with suppress(*TROUBLE):
                statuses = set((await self._house.statuses()).values())
                if statuses <= {"COMPLETED", "CANCELLED"}:  # what FAILED is resumed
                    return time.monotonic() - begun
            await asyncio.sleep(0.05)
        self._say(await self._house.standing())
        return None

    async def _judge(self, healed: float | None) -> Outcome:
        house, faults, length = self._house, self._faults, self._length
        statuses = Counter((await house.statuses()).values())
        counts = (await house.pool.fetch(_COUNTS))[0]
        verdict = await judge(house, self._observer)
        found = {name: [str(what) for what in verdict[name]] for name in MUST_BE_NONE}
        over = verdict["violations"]["paid_twice_per_crash"]
        found["paid_twice_per_crash"] = [f"{verdict['paid_twice_per_crash']} in one"] * bool(over)
        found |= await self._witness.broken(house.pool)
        found |= {
            "effects applied twice": [
                f"{row['what']} {row['id']}" for row in await house.pool.fetch(_TWICE)
            ],
            "workers that died by themselves": [d for slot in self._slots for d in slot.deaths],
            "API processes that died by themselves": faults.api_deaths,
            "answers 500 of the API": self._clients.surprises,
            "sessions created twice": [
                row["title"]
                for row in await house.pool.fetch(
                    "SELECT title FROM ekiden.sessions GROUP BY title HAVING count(*) > 1"
                )
            ],
            "sessions not drained after healing": [
                session
                for session, status in (await house.statuses()).items()
                if status not in {"COMPLETED", "CANCELLED"}
            ],
        }
        found["too little happened to mean anything"] = [
            f"{what}: {seen}, wanted {wanted}"
            for what, seen, wanted in [
                ("sessions completed", statuses["COMPLETED"], length.sessions),
                (
                    "worker kills with a task running",
                    faults.hit["worker kills with a task running"],
                    min(length.busy_kills, faults.done["worker-kill"] // 3),
                ),
                *((f"{k}", faults.done[k], n * 2 // 3) for k, n in counted(self._plan).items()),
            ]
            if seen < wanted
        ]
        found["paid_twice_without_crash"] = [
            f"{what}: {await self._story(what)}" for what in found["paid_twice_without_crash"]
        ]
        return Outcome(
            faults=words(faults.done),
            hit=dict(sorted(faults.hit.items())),
            sessions=dict(statuses),
            figures={
                **{k: v for k, v in verdict.items() if isinstance(v, int)},
                "steps": counts["steps"],
                "attempts lost with their worker": counts["lost"],
                "late results refused by the fence": self._refused(),
                "sessions resumed after FAILED": dict(self._clients.resumed),
                "gates passed": counts["gates"],
                "clicks told passed, per 64": faults.told,
                "drained after healing, s": healed and round(healed, 2),
                "answers of the API": dict(sorted(self._clients.answers.items())),
            },
            violations={name: len(ids) for name, ids in found.items()},
            ids={name: ids[:5] for name, ids in found.items() if ids},
        )

    async def _story(self, named: str) -> str:
        """Return how each attempt of a task ended. It is named as the bill names it."""
        key, place, *_ = named.split()
        phase, step, item = place.split("/")
        rows = await self._house.pool.fetch(
            "SELECT a.number, a.outcome, a.error ->> 'message' AS error, a.started_at,"
            " a.finished_at, a.worker_id, w.pid, w.state FROM ekiden.attempts a"
            " JOIN ekiden.workers w ON w.id = a.worker_id"
            " JOIN ekiden.api_tasks t ON t.id = a.task_id"
            " JOIN ekiden.sessions s ON s.id = t.session_id WHERE s.title = $1 AND t.phase = $2"
            " AND t.step = $3 AND t.item = $4 ORDER BY a.number",
            key,
            int(phase),
            step,
            int(item),
        )
        return "; ".join(str(dict(row)) for row in rows)

    def _refused(self) -> int:
        logs = self._house.folder.glob("worker-*.log")
        return sum(log.read_text(errors="replace").count('"attempt_refused"') for log in logs)


_COUNTS = """
SELECT (SELECT count(*) FROM ekiden.api_tasks WHERE status = 'COMPLETED') AS steps,
       (SELECT count(*) FROM ekiden.attempts WHERE outcome = 'LOST') AS lost,
       (SELECT count(*) FROM ekiden.reviews WHERE verb = 'approve') AS gates
"""
# Whatever must happen once and did not: by the rows that each effect leaves behind.
_TWICE = """
SELECT 'task completed twice' AS what, task_id::text AS id FROM ekiden.attempts
WHERE outcome = 'COMPLETED' GROUP BY task_id HAVING count(*) > 1
UNION ALL
SELECT 'completion told twice', task_id::text FROM ekiden.events
WHERE type = 'task_completed' GROUP BY task_id HAVING count(*) > 1
UNION ALL
SELECT 'gate passed twice', session_id::text || '/' || phase FROM ekiden.reviews
WHERE verb = 'approve' GROUP BY session_id, phase HAVING count(*) > 1
UNION ALL
SELECT 'session ended twice', session_id::text FROM ekiden.events
WHERE type = 'session_completed' GROUP BY session_id HAVING count(*) > 1
UNION ALL
SELECT 'session ended without its one draft', s.id::text FROM ekiden.sessions s
WHERE s.status = 'COMPLETED'
  AND (SELECT count(*) FROM ekiden.drafts d WHERE d.session_id = s.id) <> 1
UNION ALL
SELECT 'phase begun twice', session_id::text || '/' || phase FROM ekiden.phase_runs
GROUP BY session_id, phase HAVING count(*) > 1
"""


def words(done: Counter[str]) -> dict[str, int]:
    """Return the counts by what they count, in words, all kinds named."""
    return {kind.what: done[name] for name, kind in KINDS.items()}
