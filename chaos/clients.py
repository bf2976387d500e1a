"""Those who use the house while it breaks: they create sessions, stand at gates, pause and resume.

Half of what they do goes over HTTP to one of the API processes, half straight through the store.
They ask again until they are told, as clients do, and say everything they were told to a witness.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import asyncpg
import httpx2

from chaos import flows
from chaos.house import ENDED, RUNS_ON, House
from chaos.witness import Witness
from ekiden.errors import Conflict, DatabaseError, EkidenError
from ekiden.store.connection import UNREACHABLE

TROUBLE = (DatabaseError, asyncpg.PostgresError, httpx2.HTTPError, *UNREACHABLE)
CLICKS = 64
_EVERY = 0.1  # seconds between two looks of the person at the gates
_GATED = replace(RUNS_ON, auto_phases=False)


class Refused(Exception):
    """The API answered, and the answer is no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text[:200]}")
        self.status = status


class Clients:
    """The load, the person at the gates, and single acts.

    Args:
        house: where.
        ports: of its API processes.
        witness: is told what was acknowledged.
        seed: of what they choose.
    """

    def __init__(self, house: House, ports: list[int], witness: Witness, seed: int) -> None:
        self._house = house
        self._ports = ports
        self._witness = witness
        self._dice = random.Random(f"{seed} clients")
        self._http = httpx2.AsyncClient(trust_env=False, timeout=20)
        self.creating = True
        self.made = 0
        self.resumed = Counter[str]()  # sessions that had FAILED, by the kind of error
        self.answers = Counter[int]()  # of the API, by status
        self.surprises: list[str] = []  # answers nobody should get
        self.reserved: set[str] = set()  # sessions whose gate someone else is to click
        self.paused: set[str] = set()  # those that must not be resumed yet

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()

    # -- the load -------------------------------------------------------------------------------

    async def load(self, width: int) -> None:
        """Keep ``width`` sessions in flight until ``creating`` is False."""
        while self.creating:
            with suppress(*TROUBLE):
                open_ = await self._house.pool.fetchval(
                    "SELECT count(*) FROM ekiden.sessions WHERE status <> ALL ($1::text[])", ENDED
                )
                short = width - open_
                await asyncio.gather(*(self._create() for _ in range(max(0, short))))
            await asyncio.sleep(_EVERY)

    async def _create(self) -> None:
        self.made += 1
        key = f"s{self.made}"
        gated = self.made % 2 == 0
        body = {
            "title": key,
            "input": {"key": key},
            "start": True,
            "options": {
                "autoProgressPhases": not gated,
                "maxRetries": RUNS_ON.max_retries,
                "retryDelay": 20,
            },
        }

        async def over_http() -> str:
            path = f"/api/{flows.chaos.name}/cot-session/create"
            return str((await self.post(path, body, key=key))["sessionId"])

        async def direct() -> str:
            return await self._house.create(key, _GATED if gated else RUNS_ON)

        session = await self._until_told(over_http if self.made % 3 else direct)
        self._witness.sessions.add(session)
        self._house.created[session] = key

    async def _until_told(self, act: Callable[[], Awaitable[str]]) -> str:
        while True:
            try:
                return await act()
            except TROUBLE:
                await asyncio.sleep(0.05)
            except Refused as refused:
                if refused.status < 500:
                    raise
                await asyncio.sleep(0.05)

    # -- the person at the gates ------------------------------------------------------------------

    async def attend(self) -> None:
        """Approve what waits and resume what stopped, until cancelled."""
        while True:
            try:
                await self._look()
            except TROUBLE:
                pass
            except Refused as refused:  # 503: the database went between the look and the deed
                if refused.status < 500:
                    raise
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        rows = await self._house.pool.fetch(
            "SELECT s.id::text, s.phase, s.status, s.error ->> 'kind' AS kind, (SELECT r.id"
            " FROM ekiden.revisions r WHERE r.session_id = s.id AND r.phase = s.phase"
            " AND r.generation = s.generation ORDER BY r.number DESC LIMIT 1) AS revision"
            " FROM ekiden.sessions s WHERE s.status IN ('AWAITING_REVIEW', 'PAUSED', 'FAILED')"
        )
        for row in rows:
            session = row["id"]
            if row["status"] == "AWAITING_REVIEW" and session not in self.reserved:
                await self.approve(session, row["phase"], row["revision"])
            elif row["status"] == "FAILED":
                self.resumed[row["kind"] or "?"] += 1
                await self._act(session, "resume")
            elif row["status"] == "PAUSED" and session not in self.paused:
                await self._act(session, "resume")

    async def approve(self, session: str, phase: int, revision: int) -> bool:
        """Approve what was seen at a gate; whether this call was told that it passed it."""
        try:
            if self._dice.random() < 0.5:
                path = f"/api/{flows.chaos.name}/cot-session/{session}/proceed-next-phase"
                await self.post(path, {}, revision=revision)
            else:
                await self._house.sessions.approve(session, actor="chaos", revision=revision)
        except (Conflict, Refused):  # someone else was first
            return False
        self._witness.passed(session, phase)
        return True

    async def pause(self, session: str) -> bool:
        """Pause a session; whether it is paused."""
        return await self._done(session, "pause")

    async def cancel(self, session: str) -> bool:
        """Cancel a session; whether we were told that it is."""
        done = await self._done(session, "cancel")
        if done:
            self._witness.cancelled.add(session)
        return done

    async def _done(self, session: str, verb: str) -> bool:
        try:
            await self._act(session, verb)
        except (EkidenError, Refused, *TROUBLE):
            return False
        return True

    async def _act(self, session: str, verb: str) -> None:
        if self._dice.random() < 0.5:
            await self.post(f"/api/{flows.chaos.name}/cot-session/{session}/{verb}", {})
            return
        sessions = self._house.sessions
        act = {"resume": sessions.resume, "pause": sessions.pause, "cancel": sessions.cancel}[verb]
        await act(session, actor="chaos")

    async def post(
        self, path: str, body: object, *, key: str | None = None, revision: int | None = None
    ) -> dict[str, object]:
        """POST to one of the API processes.

        Raises:
            Refused: it answered with something else than 2xx.
            httpx2.HTTPError: it did not answer.
        """
        port = self._dice.choice(self._ports)
        headers = {"Idempotency-Key": key} if key else {}
        if revision is not None:
            headers["If-Match"] = f'"{revision}"'
        answer = await self._http.post(f"http://127.0.0.1:{port}{path}", json=body, headers=headers)
        self.answers[answer.status_code] += 1
        if answer.status_code == 500:
            self.surprises.append(f"500 to {path}: {answer.text[:300]}")
        if answer.is_success:
            return dict(answer.json())
        raise Refused(answer.status_code, answer.text)

    # -- 64 clicks --------------------------------------------------------------------------------

    async def click(self, session: str, phase: int, revision: int | None) -> int:
        """Approve one gate 64 times at once, everywhere; return how many were told 2xx.

        Args:
            session: whose gate.
            phase: which gate.
            revision: approve only this one. Needed while workers run: the session may reach its
                next gate before the last click arrives.
        """

        async def one(n: int) -> bool:
            try:
                if n % 4 == 3:
                    await self._house.sessions.approve(session, actor="click", revision=revision)
                else:
                    port = self._ports[n % len(self._ports)]
                    headers = {} if revision is None else {"If-Match": f'"{revision}"'}
                    answer = await self._http.post(
                        f"http://127.0.0.1:{port}/api/{flows.chaos.name}/cot-session/{session}"
                        "/proceed-next-phase",
                        json={"actor": f"click {n}"},
                        headers=headers,
                    )
                    return bool(answer.is_success)
            except (EkidenError, *TROUBLE):
                return False
            return True

        told = sum(await asyncio.gather(*(one(n) for n in range(CLICKS))))
        if told:
            self._witness.passed(session, phase, told)
        return told
