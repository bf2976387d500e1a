"""A model that was chosen for a session, and that not every worker has the key for."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ekiden.cli.verifying import read_text
from ekiden.core.model import Options
from ekiden.providers.catalog import Catalog, ProviderSettings
from ekiden.providers.models_by_place import Models
from ekiden.store.verify import verify
from ekiden.worker import context
from tests.scripted import ScriptedProvider
from tests.worker.relay import House, asks, working
from tests.worker.streaming import until

WANTED = "anthropic:claude-haiku-4-5"
CHOSEN = Options(retry_delay=timedelta(milliseconds=5), models={"": WANTED})


def without() -> Models:
    """The models of a worker without a key."""
    catalog = Catalog(ProviderSettings(home=Path("/nowhere")))
    return Models(ScriptedProvider([]), build=catalog.get, askable=catalog.askable())


def having(provider: ScriptedProvider) -> Models:
    """The models of a worker that can ask what is wanted."""
    return Models(ScriptedProvider([]), build=lambda _name: provider, askable=["anthropic"])


def chosen() -> ScriptedProvider:
    return ScriptedProvider(
        lambda _request: json.dumps({"word": "sash"}), name="anthropic", model="claude-haiku-4-5"
    )


async def handed_on(house: House, session: str) -> dict[str, Any] | None:
    """Return what its task waits for."""
    progress = await house.sessions.progress(session)
    assert progress["error"] is None
    return progress["wait"]


async def test_a_worker_without_the_key_hands_the_task_on_to_one_that_has_it(house: House):
    provider = chosen()
    async with working(house.dsn, asks(), models=without()):
        session = await house.begin("asks", replace(CHOSEN, max_retries=0))
        wait = await until(lambda: handed_on(house, session))
        assert wait["kind"] == "model"
        assert "ANTHROPIC_API_KEY" in wait["message"]
        assert "the step fails when none is there within 60 s" in wait["message"]
        async with working(house.dsn, asks(), models=having(provider)):
            await house.until(session)
    assert len(provider.answered) == 3
    counted = await house.pool.fetchval("SELECT max(attempt - budget_from) FROM ekiden.api_tasks")
    assert counted == 1  # handing on burns no try,
    outcomes = await house.outcomes(session, (await house.sessions.tasks(session))[0].id)
    assert set(outcomes) == {"RELEASED", "COMPLETED"}  # and is no error of anybody's
    assert (await verify(house.dsn, read=read_text)).violations == 0


async def test_while_a_living_worker_has_it_the_task_waits_however_long_that_takes(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(context, "_NOBODY_HAS_IT", timedelta(0))
    provider = chosen()
    async with working(house.dsn, asks(), models=having(provider)), \
               working(house.dsn, asks(), models=without(), capacity=4):  # fmt: skip
        for _ in range(4):
            session = await house.begin("asks", CHOSEN)
            await house.until(session)
    assert len(provider.answered) == 12


async def test_while_the_worker_that_has_it_is_busy_the_task_is_handed_on_ever_more_rarely(
    house: House,
):
    provider = chosen()
    provider.gate = asyncio.Event()
    async with working(house.dsn, asks(), models=having(provider), capacity=1):
        busy = await house.begin("asks", CHOSEN)
        await asyncio.wait_for(provider.arrived.wait(), 10)
        async with working(house.dsn, asks(), models=without()):
            waits = await house.begin("asks", CHOSEN)
            assert (await until(lambda: handed_on(house, waits)))["kind"] == "claim"
            await house.pool.execute(
                "UPDATE ekiden.attempts SET started_at = started_at - interval '1 hour'"
            )
            due = await until(lambda: _due_later_than(house, waits, 20))
        assert due <= 60
        await house.pool.execute("UPDATE ekiden.api_tasks SET available_at = now() WHERE queued")
        provider.gate.set()
        await house.until(busy)
        await house.until(waits)


async def _due_later_than(house: House, session: str, seconds: float) -> float | None:
    due = await house.pool.fetchval(
        "SELECT extract(epoch FROM available_at - ekiden.now()) FROM ekiden.api_tasks"
        " WHERE session_id = $1 AND queued",
        session,
    )
    return float(due) if due is not None and due > seconds else None


async def test_where_no_worker_has_it_the_step_fails_in_time_and_says_what_to_do(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(context, "_NOBODY_HAS_IT", timedelta(seconds=0.5))
    async with working(house.dsn, asks(), models=without()):
        session = await house.begin("asks", CHOSEN)
        failed = await house.until(session, "FAILED")
        message = failed["error"]["message"]
        assert message.startswith(f"No worker could ask {WANTED} for ")
        assert "ANTHROPIC_API_KEY" in message
        assert "resume the session, or rerun the phase with another model" in message
        attempts = await house.pool.fetchval("SELECT attempt FROM ekiden.api_tasks")
        assert 2 < attempts < 10
        # It can be set then: the wait begins anew, and the session goes on.
        await house.sessions.resume(session, actor="me")
        async with working(house.dsn, asks(), models=having(chosen())):
            await house.until(session)


async def test_a_name_that_is_none_fails_at_once(house: House):
    async with working(house.dsn, asks(), models=without()):
        session = await house.begin("asks", replace(CHOSEN, models={"": "nonsense"}))
        failed = await house.until(session, "FAILED")
    assert "is not provider:model" in failed["error"]["message"]
    assert await house.pool.fetchval("SELECT attempt FROM ekiden.api_tasks") == 1
