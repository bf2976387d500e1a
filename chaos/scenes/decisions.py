"""People approve, edit, reject and rerun at once, while workers are killed all the time.

At the end every gate is passed, each acknowledged decision is on the record, every invariant holds,
and what came out is the sum of the outputs that stand approved: no edit was lost, and nothing stale
was read.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any

import asyncpg
import httpx2

from chaos.deciding import deciding
from chaos.house import House, Site, free_port
from ekiden.cli.verifying import read_text
from ekiden.core.model import Options, Review, StepKind, Verb
from ekiden.errors import Conflict, DatabaseError, EkidenError
from ekiden.store.connection import UNREACHABLE
from ekiden.store.verify import verify

_FLOW = "chaos.deciding:deciding"
_TROUBLE = (DatabaseError, asyncpg.PostgresError, httpx2.HTTPError, *UNREACHABLE)
_PEOPLE = 4
_PATIENCE = 120.0  # seconds until everything must have ended once people only approve


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return how many decisions were taken, and what of them does not hold."""
    sessions, seconds = (12, 12.0) if short else (120, 90.0)
    async with House(site, flow=_FLOW) as house:
        table = Table(house, site.seed)
        workers = [house.worker() for _ in range(2)]
        table.apis = [house.api(port) for port in table.ports]
        await asyncio.gather(*(p.is_ready() for p in (*workers, *table.apis)))
        for n in range(sessions):
            id_, _ = await house.sessions.create(
                deciding.name, title=f"d{n}", input={"key": f"d{n}"}, options=Options(), start=True
            )
            table.sessions.append(id_)
        people = [asyncio.create_task(table.person(n)) for n in range(_PEOPLE)]
        killing = asyncio.create_task(table.kill_workers())
        await asyncio.sleep(seconds)
        killing.cancel()
        table.only_approve = True
        left = await table.drain()
        for person in people:
            person.cancel()
        await asyncio.gather(*people, killing, return_exceptions=True)
        await table.http.aclose()
        return {
            "sessions": sessions,
            "kills": house.kills,
            "decisions": sum(table.taken.values()),
            "taken": dict(table.taken),
            "lost": await table.lost(),
            "answers_500": table.answers[500],
            "not_ended": left,
            "wrong_sums": await table.wrong_sums(),
            "verify": [
                f"{one.invariant.name}: {one.ids[:3]}"
                for one in (await verify(house.dsn, read=read_text)).findings
                if one.violations
            ],
        }


class Table:
    """The sessions, and those who decide over them."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.sessions: list[str] = []
        self.taken: Counter[str] = Counter()  # decisions that were acknowledged, by verb
        self.told: list[tuple[str, str]] = []  # their session and idempotency key
        self.answers: Counter[int] = Counter()
        self.only_approve = False
        self.ports = [free_port(), free_port()]
        self.apis: list[Any] = []
        self.http = httpx2.AsyncClient(trust_env=False, timeout=20)
        self._dice = random.Random(f"{seed} decisions")
        self._number = 0

    async def person(self, number: int) -> None:
        """Decide over whatever waits, until cancelled."""
        while True:
            session = self._dice.choice(self.sessions)
            try:
                await self._decide(session, by_http=number % 2 == 0)
            except (*_TROUBLE, EkidenError):
                pass  # refused, or not answered: then nothing was promised
            await asyncio.sleep(0.01 if self.only_approve else 0.03)

    async def _decide(self, session: str, *, by_http: bool) -> None:
        self._number += 1
        key = f"decision-{self._number}"
        progress = await self.house.sessions.progress(session)
        verb, given = self._choose(progress)
        if verb is None:
            return
        seen = progress["revision"] if verb in {Verb.APPROVE, Verb.EDIT, Verb.REJECT} else None
        if by_http:
            await self._post(session, verb, given, key, seen)
        else:
            review = Review(verb=verb, actor="person", key=key, revision=seen, **given)
            await self.house.sessions.reviews.take(session, review)
        self.taken[verb] += 1
        self.told.append((session, key))

    def _choose(self, progress: dict[str, Any]) -> tuple[Verb | None, dict[str, Any]]:
        status, phase = progress["status"], progress["currentPhase"]
        if self.only_approve:
            return (Verb.APPROVE if status == "AWAITING_REVIEW" else None), {}
        dice = self._dice.random()
        if status == "AWAITING_REVIEW":
            if dice < 0.15:
                return Verb.REJECT, {"comment": "once more"}
            if dice < 0.35:
                return Verb.EDIT, {"phase": phase, "output": {"total": self._number, "notes": []}}
            if dice < 0.45:
                return Verb.RERUN, {"phase": self._dice.randint(1, phase)}
            return Verb.APPROVE, {}
        if status == "COMPLETED" and dice < 0.5:
            step = self._dice.choice([StepKind.THINK, StepKind.INTEGRATE])
            return Verb.RERUN, {"phase": self._dice.randint(1, 3), "step": step}
        return None, {}

    async def _post(
        self, session: str, verb: Verb, given: dict[str, Any], key: str, seen: int | None
    ) -> None:
        port = self._dice.choice(self.ports)
        headers = {"Idempotency-Key": key} | ({"If-Match": f'"{seen}"'} if seen else {})
        answer = await self.http.post(
            f"http://127.0.0.1:{port}/api/{deciding.name}/cot-session/{session}/review",
            json={"verb": verb, "actor": "person", **given},
            headers=headers,
        )
        self.answers[answer.status_code] += 1
        if not answer.is_success:
            raise Conflict(answer.text)

    async def kill_workers(self) -> None:
        """Kill -9 a worker about every second, and start another."""
        while True:
            await asyncio.sleep(self._dice.uniform(0.5, 1.5))
            alive = self.house.workers
            if alive:
                self.house.kill(self._dice.choice(alive))
            self.house.worker()

    async def drain(self) -> list[str]:
        """Wait until every session has ended; return those that have not."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            statuses = await self.house.statuses()
            left = [s for s, status in statuses.items() if status != "COMPLETED"]
            for session in left:
                if statuses[session] in {"FAILED", "PAUSED"}:
                    await self.house.sessions.resume(session, actor="person")
            if not left or asyncio.get_running_loop().time() > deadline:
                return left
            await asyncio.sleep(0.2)

    async def lost(self) -> list[str]:
        """Return the acknowledged decisions that are not on the record of their session."""
        rows = await self.house.pool.fetch(
            "SELECT session_id::text, idempotency_key FROM ekiden.reviews"
        )
        return [f"{s} {k}" for s, k in set(self.told) - {tuple(row) for row in rows}]

    async def wrong_sums(self) -> list[str]:
        """Return the sessions whose last output is not the sum of the outputs that stand."""
        rows = await self.house.pool.fetch(
            "SELECT DISTINCT ON (r.session_id, r.phase) r.session_id::text AS session, r.phase,"
            " coalesce(r.output, t.result)::text AS output FROM ekiden.revisions r"
            " LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id WHERE r.approved_at IS NOT NULL"
            " ORDER BY r.session_id, r.phase, r.generation DESC, r.number DESC"
        )
        totals: dict[str, dict[int, int]] = {}
        for row in rows:
            totals.setdefault(row["session"], {})[row["phase"]] = json.loads(row["output"])["total"]
        return [
            f"{session}: {of}"
            for session, of in totals.items()
            if len(of) == 3 and of[3] != of[1] + of[2]
        ]
