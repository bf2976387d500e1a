"""A relay under load, and the judge that looks at it afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from ekiden import Context, Draft, Flow, Phase, telemetry
from ekiden.flows.registry import CompiledFlow
from tests.worker.relay import QUICK, Count, House

AUTO = replace(QUICK, auto_phases=True)
ITEMS = 3
_TASKS = 1 + ITEMS + 1 + 2
_PATIENCE = 60.0


class Squares(Phase):
    """Square the numbers, slowly enough to be interrupted"""

    async def think(self, ctx: Context) -> list[int]:
        await asyncio.sleep(0.02)
        return list(range(ctx.input.n))

    def each(self, plan: list[int]) -> list[int]:
        return plan

    async def execute(self, ctx: Context, number: int) -> int:
        await asyncio.sleep(0.02)
        return number * number

    async def integrate(self, ctx: Context, plan: list[int], found: list[int]) -> int:
        return sum(found)


class Doubled(Phase):
    """Double the sum"""

    async def think(self, ctx: Context) -> int:
        await asyncio.sleep(0.02)
        return int(ctx.output(Squares))

    async def integrate(self, ctx: Context, plan: int) -> int:
        return plan * 2


def squares() -> CompiledFlow:
    """Two phases: a fan-out, then its output doubled; one draft."""
    return CompiledFlow(
        Flow(
            "squares",
            input=Count,
            phases=[Squares, Doubled],
            drafts=lambda output: [Draft(title="The sum", body={"sum": output(Doubled)})],
        )
    )


class Heard:
    """The telemetry of a test."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def count(self, event: str) -> int:
        return sum(1 for name, _ in self.events if name == event)

    async def until(self, event: str, times: int = 1) -> None:
        await eventually(lambda: self.count(event) >= times, f"{times} × {event}")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """What the worker tells of itself from here on."""
    heard = Heard()
    monkeypatch.setattr(telemetry, "emit", heard)
    return heard


async def eventually(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


async def begin(house: House, sessions: int = 12) -> list[str]:
    return [await house.begin("squares", AUTO, n=ITEMS) for _ in range(sessions)]


async def some_are_done(house: House, tasks: int = 5) -> None:
    """Return in the middle of it: some tasks are completed, others are not."""
    async with asyncio.timeout(_PATIENCE):
        while await house.pool.fetchval(COMPLETED) < tasks:
            await asyncio.sleep(0.005)


COMPLETED = "SELECT count(*) FROM ekiden.api_tasks WHERE status = 'COMPLETED'"


async def all_completed(house: House, sessions: list[str]) -> None:
    """The judge: every session ended right, and every step of it was committed exactly once."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while await house.pool.fetchval(
                "SELECT count(*) FROM ekiden.sessions WHERE status <> 'COMPLETED'"
            ):
                await asyncio.sleep(0.02)
    except TimeoutError:
        stuck = await house.pool.fetch(
            "SELECT s.id::text, s.status, s.open_tasks, s.error::text, t.id AS task, t.phase,"
            " t.step, t.status AS task_status, t.attempt, t.queued, t.error::text AS task_error"
            " FROM ekiden.sessions s JOIN ekiden.api_tasks t ON t.session_id = s.id"
            " WHERE s.status <> 'COMPLETED' AND t.status <> 'COMPLETED'"
        )
        raise AssertionError(f"stuck: {[dict(row) for row in stuck]}") from None
    expected = 2 * sum(n * n for n in range(ITEMS))
    for session in sessions:
        (draft,) = await house.sessions.drafts(session)
        assert draft.body == {"sum": expected}
        steps = await house.steps(session)
        assert [status for _, _, _, status, _ in steps] == ["COMPLETED"] * _TASKS
    committed = await house.pool.fetch(
        "SELECT t.id, (SELECT count(*) FROM ekiden.attempts a WHERE a.task_id = t.id"
        "              AND a.outcome = 'COMPLETED') AS attempts,"
        "       (SELECT count(*) FROM ekiden.events e WHERE e.session_id = t.session_id"
        "        AND e.task_id = t.id AND e.type = 'task_completed') AS told"
        " FROM ekiden.api_tasks t"
    )
    assert len(committed) == len(sessions) * _TASKS
    assert {(row["attempts"], row["told"]) for row in committed} == {(1, 1)}


async def outcomes(house: House) -> Counter[str]:
    rows = await house.pool.fetch("SELECT outcome FROM ekiden.attempts")
    return Counter(row["outcome"] for row in rows)


@asynccontextmanager
async def control(dsn: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection from outside, which no fault of the test is meant for."""
    connection = await asyncpg.connect(
        dsn, server_settings={"application_name": "control", "statement_timeout": "0", **settings}
    )
    try:
        yield connection
    finally:
        connection.terminate()
