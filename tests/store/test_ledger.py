"""The ledger keeps what came back, byte for byte."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from ekiden.store.ledger import Call, Ledger
from tests.store.helpers import Relay

ODD = b'{"text": "\x00 \xed\xa0\xbd NaN \xff'
REQUEST = b'{"prompt": "hello"}'


def call(session: str, task_id: int, number: int = 1, **fields: object) -> Call:
    return replace(
        Call(
            session_id=session,
            task_id=task_id,
            attempt=1,
            number=number,
            kind="ask",
            provider="scripted",
            model="scripted-1",
            request_hash=hashlib.sha256(REQUEST).digest(),
            request=REQUEST,
            answer=ODD,
            took=timedelta(seconds=2),
        ),
        **fields,
    )


async def paid_for(ledger: Ledger, asked: Call) -> list[bytes]:
    """Take what earlier attempts have paid for, one after the other."""
    taken: dict[int, bytes] = {}
    while (paid := await ledger.next_paid(asked, list(taken))) is not None:
        taken[paid.id] = paid.answer
    return list(taken.values())


async def test_an_answer_is_kept_as_it_came_whatever_its_bytes(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    task = await relay.started()
    await ledger.append([call(task.session_id, task.id, content_type="x/y", http_status=201)])
    paid = await ledger.next_paid(call(task.session_id, task.id, attempt=2), [])
    assert paid is not None
    assert (paid.answer, paid.content_type, paid.http_status) == (ODD, "x/y", 201)


async def test_only_usable_answers_are_paid_for_already_oldest_first(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    task, other = await relay.started(), await relay.started()
    sid = task.session_id
    await ledger.append(
        [
            call(sid, task.id, 1, answer=b"first"),
            call(sid, task.id, 2, answer=None, outcome="FAILED", error="refused"),
            call(sid, task.id, 3, answer=b"nonsense"),
            call(sid, task.id, 4, answer=b"last"),
            call(sid, task.id, 5, answer=None, outcome="ABORTED", error="stopped"),
            call(sid, task.id, 6, answer=b"to another request", request_hash=b"other"),
            call(sid, task.id, 1, answer=b"of this attempt", attempt=2),
            call(other.session_id, other.id, 1, answer=b"another task's"),
        ]
    )
    await ledger.settle([call(sid, task.id, 3, outcome="INVALID", error="no JSON")])
    assert await paid_for(ledger, call(sid, task.id, attempt=2)) == [b"first", b"last"]


async def test_a_zombies_answer_still_enters_the_ledger(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    task = await relay.started()
    await relay.sessions.cancel(task.session_id, actor="me")
    await ledger.append([call(task.session_id, task.id)])
    assert len(await relay.sessions.calls(task.session_id, task.id)) == 1


async def test_settling_says_what_it_took_once_and_only_of_an_answer(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    task = await relay.started()
    await ledger.append(
        [
            call(task.session_id, task.id, 1),
            call(task.session_id, task.id, 2, answer=None, outcome="FAILED", error="refused"),
        ]
    )
    took = {"input_tokens": 3, "output_tokens": 4, "cost_usd": Decimal("0.5")}
    await ledger.settle(
        [call(task.session_id, task.id, number, outcome="INVALID", **took) for number in (1, 2)]
    )
    await ledger.settle([call(task.session_id, task.id, 1, cost_usd=Decimal(9))])
    first, second = await relay.sessions.calls(task.session_id, task.id)
    assert (first.outcome, first.input_tokens, first.output_tokens, first.cost_usd) == (
        "INVALID", 3, 4, Decimal("0.5"),
    )  # fmt: skip
    assert (second.outcome, second.error, second.cost_usd) == ("FAILED", "refused", None)
    usage = (await relay.sessions.progress(task.session_id))["usage"]
    assert usage == {
        "calls": 2,
        "inputTokens": 3,
        "outputTokens": 4,
        "models": ["scripted:scripted-1"],
    }
    assert (await relay.sessions.progress(task.session_id))["cost"] == {
        "usd": 0.5,
        "callsWithoutPrice": 1,
    }


async def test_calls_that_are_settled_together_keep_what_is_theirs(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    task, other = await relay.started(), await relay.started()
    mine = [call(task.session_id, task.id, n) for n in (1, 2)]
    its = call(other.session_id, other.id)
    await ledger.append([*mine, its])
    await ledger.settle(
        [
            replace(mine[1], input_tokens=2, finish_reason="stop", citations='["two"]'),
            replace(its, outcome="INVALID", error="no JSON"),
            replace(mine[0], input_tokens=1, cost_usd=Decimal("0.25")),
        ]
    )
    rows = await relay.pool.fetch(
        "SELECT task_id, number, outcome, error, input_tokens, cost_usd, finish_reason,"
        " citations::text FROM ekiden.calls"
    )
    assert {tuple(row) for row in rows} == {
        (task.id, 1, "ANSWERED", None, 1, Decimal("0.25"), None, None),
        (task.id, 2, "ANSWERED", None, 2, None, "stop", '["two"]'),
        (other.id, 1, "INVALID", "no JSON", None, None, None, None),
    }


async def test_only_the_attempt_that_holds_its_task_may_begin_a_call(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    held, cancelled = await relay.started(), await relay.started()
    await relay.sessions.cancel(cancelled.session_id, actor="me")
    asked = [
        call(cancelled.session_id, cancelled.id),
        call(held.session_id, held.id),
        call(held.session_id, held.id, attempt=2),
        call(held.session_id, 2**60),
        call(held.session_id, held.id, number=2),
    ]
    held_by = [standing.held for standing in await ledger.are_payable(asked)]
    assert held_by == [False, True, False, False, True]


async def test_a_call_that_begins_hears_whether_its_session_has_a_budget_by_now(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    free, limited = await relay.started(), await relay.started()
    asked = [call(task.session_id, task.id) for task in (limited, free)]
    assert [s.budgeted for s in await ledger.are_payable(asked)] == [False, False]
    await relay.pool.execute(
        "INSERT INTO ekiden.budgets VALUES ($1, 2, NULL, 100)", limited.session_id
    )
    assert [s.budgeted for s in await ledger.are_payable(asked)] == [True, False]


async def test_a_call_is_dated_from_how_long_it_took(relay: Relay):
    task = await relay.started()
    await Ledger(relay.pool, relay.dsn).append([call(task.session_id, task.id)])
    (line,) = await relay.sessions.calls(task.session_id, task.id)
    assert line.finished_at - line.started_at == timedelta(seconds=2)


async def test_a_call_has_one_answer_however_often_it_is_stored(relay: Relay):
    """An append whose confirmation was lost is sent again."""
    ledger = Ledger(relay.pool, relay.dsn)
    task = await relay.started()
    lost = call(task.session_id, task.id, answer=None, outcome="ABORTED", error="stopped")
    for _ in range(2):
        await ledger.append([lost, call(task.session_id, task.id)])
    lines = await relay.sessions.calls(task.session_id, task.id)
    assert [line.outcome for line in lines] == ["ABORTED", "ANSWERED"]


async def test_a_started_call_is_fetched_until_its_answer_is_here(relay: Relay):
    ledger = Ledger(relay.pool, relay.dsn)
    task, other = await relay.started(), await relay.started()
    first = call(task.session_id, task.id)
    await ledger.start([(first, "a-1"), (replace(first, number=2, kind="search"), "a-2")])
    await ledger.start([(first, "a-1")])
    again = replace(first, attempt=2)
    found = await ledger.next_started(again, [])
    assert found is not None
    assert (found.attempt, found.number, found.answer_id) == (1, 1, "a-1")
    for elsewhere in (
        first,  # of this attempt itself
        replace(again, request_hash=b"other"),
        replace(again, provider="another"),
        call(other.session_id, other.id, attempt=2),
    ):
        assert await ledger.next_started(elsewhere, []) is None
    assert await ledger.next_started(again, ["a-1"]) is None
    await ledger.append([replace(first, answer=None, outcome="FAILED", error="cut")])
    assert await ledger.next_started(again, []) is not None
    await ledger.append([first])
    assert await ledger.next_started(again, []) is None
