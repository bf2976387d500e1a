"""What a flow's own steps return: stored as it is, or refused with a reason. Never a hang."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from ekiden import Context, Draft, Flow, Phase
from ekiden.api.settings import ApiSettings
from ekiden.flows.registry import CompiledFlow
from ekiden.store.budgets import Budgets
from ekiden.store.ledger import Call, Ledger
from ekiden.store.tasks import Tasks
from ekiden.store.workers import Workers
from ekiden.worker.ledger_writer import LedgerWriter
from tests.api.conftest import client_of
from tests.worker.relay import QUICK, Count, House, one_step, working


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def returning(value: Any) -> Callable[[Any], Any]:
    async def run(_ctx: object) -> Any:
        return value

    return run


async def shown(house: House, path: str) -> Any:
    async with client_of(house.sessions, ApiSettings()) as client:
        response = await client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


REFUSED = {
    "NaN": ({"score": [1.0, math.nan], "none": None}, "score.1: NaN"),
    "Infinity": (-math.inf, "-Infinity"),
    "a lone surrogate": ("a\ud800", "surrogates not allowed"),
    "a lone surrogate as a key": ({"\udfff": 1}, "surrogates not allowed"),
    "an integer of 5,000 digits": (10**4999, "number"),
    "nesting 100,000 deep": (deep(100_000), "depth exceeded"),
    "nesting deeper than can be read again": (deep(220), "recursion limit"),
    "something with no JSON form": (object(), "no JSON form"),
}


@pytest.mark.parametrize(("value", "because"), REFUSED.values(), ids=REFUSED)
async def test_a_result_that_json_cannot_hold_is_refused_with_its_place(
    house: House, value: Any, because: str
) -> None:
    async with working(house.dsn, one_step(returning(value))):
        session = await house.begin("one", QUICK)
        await house.until(session, "FAILED")
    progress = await shown(house, f"/api/one/cot-session/{session}/progress")
    assert progress["error"]["kind"] == "ResultInvalid"
    assert because in progress["error"]["message"]
    assert progress["error"]["attempt"] == 1  # no retry heals it


KEPT = {
    "NUL": "a\0b",
    "an integer of 30 digits": {"n": 10**30 + 1, "x": [-(10**25)]},
    "an integer of 4,000 digits": 10**3999 + 7,
    "a text of 5,000 digits": "7" * 5000,
    "NaN as a text, and null": {"score": "NaN", "note": None},
    "the largest and the smallest number": [1.7976931348623157e308, 5e-324, -0.0],
    "every kind of character": '\u0001\u007f\u2028\ufeff\uffff😀"\\',
    "nesting 150 deep": deep(150),
    "5 MB": "x" * 5_000_000,
}


@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT)
async def test_a_result_that_json_can_hold_is_handed_on_and_shown_as_it_is(
    house: House, value: Any
) -> None:
    async with working(house.dsn, one_step(returning(value))):
        session = await house.begin("one", QUICK)
        await house.until(session)
    tasks = (await shown(house, f"/api/one/cot-session/{session}/tasks"))["tasks"]
    assert [task["result"] for task in tasks] == [value, value]
    (output,) = await house.sessions.revisions(session)
    assert output.output == value


async def test_a_result_that_no_statement_can_carry_is_refused(house: House) -> None:
    async def huge(_ctx: object) -> Any:
        return "x" * 130_000_000

    async with working(house.dsn, one_step(huge)):
        session = await house.begin("one", QUICK)
        progress = await house.until(session, "FAILED")
    assert "130,000,002 characters, 128,000,000 are allowed" in progress["error"]["message"]


async def test_many_large_answers_are_written_a_few_at_a_time(house: House) -> None:
    await registered(house)
    session = await house.begin("one", QUICK)
    body = b"x" * 50_000_000
    writer = LedgerWriter(Ledger(house.pool, house.dsn), Budgets(house.pool, house.dsn))
    calls = [
        writer.append(
            Call(
                session_id=session, task_id=1, attempt=1, number=number, kind="ask", provider="p",
                model="m", request_hash=b"", request=b"{}", answer=body,
            )
        )
        for number in range(1, 23)
    ]  # fmt: skip
    waiting = asyncio.gather(*calls)
    await asyncio.sleep(0)  # all of them wait when the writer looks: 1.1 GB
    writer.start()
    await asyncio.wait_for(waiting, 100)
    await writer.close()
    rows = await house.pool.fetch("SELECT octet_length(answer) AS size FROM ekiden.calls")
    assert [row["size"] for row in rows] == [len(body)] * 22


async def registered(house: House) -> int:
    flow = one_step(returning(0))
    return await Workers(house.pool, house.dsn).register_flow(
        name="one", version=flow.version, title="t", phases=flow.describe(), input_schema={}
    )


def drafting(draft: Draft) -> CompiledFlow:
    class Only(Phase):
        """The only phase"""

        async def think(self, ctx: Context) -> int:
            return 1

        async def integrate(self, ctx: Context, plan: int) -> int:
            return plan

    return CompiledFlow(Flow("one", input=Count, phases=[Only], drafts=lambda _output: [draft]))


@pytest.mark.parametrize(
    ("draft", "because"),
    [
        (Draft(title="t", body={"score": math.nan}), "draft body: score: NaN"),
        (Draft(title="t", body={"text": "\ud800"}), "surrogates not allowed"),
        (Draft(title="t", body={}, sources=({"x": math.inf},)), "draft sources: 0.x: Infinity"),
    ],
)
async def test_a_draft_that_json_cannot_hold_is_refused_with_its_place(
    house: House, draft: Draft, because: str
) -> None:
    async with working(house.dsn, drafting(draft)):
        session = await house.begin("one", QUICK)
        progress = await house.until(session, "FAILED")
    assert because in progress["error"]["message"]
    assert await house.sessions.drafts(session) == []


async def test_a_drafts_title_is_text_whatever_it_holds(house: House) -> None:
    draft = Draft(title="a\0\ud800b", body={"n": 10**30, "text": "a\0b"})
    async with working(house.dsn, drafting(draft)):
        session = await house.begin("one", QUICK)
        await house.until(session)
    (kept,) = (await shown(house, f"/api/one/cot-session/{session}/drafts"))["drafts"]
    assert kept["title"] == "a��b"
    assert kept["body"] == draft.body


@pytest.mark.parametrize("said", ["a\0\ud800b", "x" * 5_000_000])
async def test_an_error_is_kept_and_shown_whatever_it_says(house: House, said: str) -> None:
    async def fails(_ctx: object) -> Any:
        raise ValueError(said)

    async with working(house.dsn, one_step(fails)):
        session = await house.begin("one", QUICK)
        await house.until(session, "FAILED")
    progress = await shown(house, f"/api/one/cot-session/{session}/progress")
    assert progress["error"]["message"].startswith(f"ValueError: {said[:1]}")
    assert len(progress["error"]["message"]) <= 4000
    size = await house.pool.fetchval(
        "SELECT sum(octet_length(e.data::text)) FROM ekiden.events e WHERE session_id = $1", session
    )
    assert size < 100_000


@pytest.mark.parametrize(
    "result",
    [b'"\\ud800"', b'"a\\u0000b"', b"NaN", b"1e400", b"1" + b"0" * 30, b"7" * 5000,
     b"[" * 100_000 + b"]" * 100_000],
)  # fmt: skip
async def test_a_result_from_outside_that_cannot_be_kept_is_refused_at_the_door(
    house: House, result: bytes
) -> None:
    tasks, flow_id = Tasks(house.pool, house.dsn), await registered(house)
    session = await house.begin("one", QUICK)
    (task,) = await tasks.claim(1, [flow_id], 1)
    async with client_of(house.sessions, ApiSettings()) as client:
        told = await client.post(
            f"/api/one/cot-session/{session}/continue-async",
            content=b'{"taskId": %d, "attempt": 1, "result": %s}' % (task.id, result),
            headers={"content-type": "application/json"},
        )
    assert told.status_code in {400, 413, 422}, told.text
    assert told.json()["detail"]
    assert (await house.sessions.tasks(session))[0].status == "RUNNING"
