"""Answers made in the background are paid for once, whoever dies, and not made for nobody.

https://developers.openai.com/api/docs/guides/background
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from ekiden.core.model import Budget, Review, Verb
from ekiden.errors import AnswerInvalid, ModelUnavailable
from ekiden.providers import openai_compatible
from ekiden.providers.models_by_place import Models
from ekiden.store.budgets import Budgets
from ekiden.store.ledger import Call, Ledger, UnwantedAnswer
from ekiden.worker import withdrawals
from tests.providers.fake_server import FakeServer, Received, Reply, answer, in_pieces, then_silence
from tests.providers.wires import BACKGROUND, RESPONSE_ID, WIRES, answered, response
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, House, working
from tests.worker.streaming import only_task, says, until

TEXT = "The sash is handed over in the zone."
WHOLE = BACKGROUND.stream(TEXT, "stop")
HALF = WHOLE[: WHOLE.rindex(b"event: response.output_text.delta")]


class Remote:
    """The Responses API, as far as it is asked for here."""

    def __init__(self, fake: FakeServer) -> None:
        self.asked: Counter[str] = Counter()
        self.stands: dict[str, Any] = response("in_progress")
        self.first = then_silence(HALF)
        self.deaf = 0  # how many cancellations fail
        self.trouble: Reply | None = None  # what a look meets
        fake.answering = self._answer

    def _answer(self, received: Received) -> Reply:
        what = {
            ("POST", "/v1/responses"): "made",
            ("GET", f"/v1/responses/{RESPONSE_ID}"): "looked at",
            ("POST", f"/v1/responses/{RESPONSE_ID}/cancel"): "cancelled",
        }[received.method, received.path]
        self.asked[what] += 1
        if what == "made":
            return self.first
        if what == "looked at" and self.trouble is not None:
            return self.trouble
        if what == "cancelled" and self.asked[what] <= self.deaf:
            return answer(b"{}", status=500)
        if what == "cancelled":
            self.stands = response("cancelled")
        return answer(json.dumps(self.stands).encode(), content_type="application/json")


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture
def remote(fake: FakeServer) -> Remote:
    return Remote(fake)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "_FIRST_LOOK", 0.02)


@pytest.fixture
def one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "_IN_PLACE", 0.0)


async def named(house: House) -> bool:
    return bool(await house.pool.fetchval("SELECT count(*) FROM ekiden.started_calls"))


async def killed_in_mid_stream(house: House, fake: FakeServer) -> str:
    """Let a worker ask and kill -9 it; return the session."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.worker.wire_child"),
        *(house.dsn, str(WIRES.index(BACKGROUND)), str(fake.port)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while not await house.pool.fetchval("SELECT count(*) FROM ekiden.flows"):
                await asyncio.sleep(0.02)
        session = await house.begin("one")
        await until(lambda: named(house))
    finally:
        child.kill()
        await child.wait()
    return session


async def test_after_kill_9_in_mid_stream_the_answer_is_fetched_and_paid_once(
    house: House, fake: FakeServer, remote: Remote
):
    session = await killed_in_mid_stream(house, fake)
    remote.stands = answered(TEXT)
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        progress = await house.until(session)
    assert remote.asked == {"made": 1, "looked at": 1}
    [call] = await house.pool.fetch(
        "SELECT attempt, outcome, finish_reason, input_tokens, output_tokens FROM ekiden.calls"
    )
    assert tuple(call.values()) == (1, "ANSWERED", "stop", 120, 30)
    assert progress["usage"]["calls"] == 1
    result = await house.pool.fetchval(
        "SELECT result::text FROM ekiden.api_tasks WHERE step = 'THINK'"
    )
    assert json.loads(result) == TEXT


async def test_a_worker_that_asks_in_the_foreground_fetches_it_all_the_same(
    house: House, fake: FakeServer, remote: Remote
):
    session = await killed_in_mid_stream(house, fake)
    remote.stands = answered(TEXT)
    foreground = replace(BACKGROUND, background=False)
    async with working(house.dsn, says(), models=Models(foreground.provider(fake))):
        await house.until(session)
    assert remote.asked == {"made": 1, "looked at": 1}


async def test_a_step_whose_answer_takes_long_has_no_slot_burns_no_try_and_asks_nobody_else(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openai_compatible, "_IN_PLACE", 0.0)
    session = await killed_in_mid_stream(house, fake)
    fallback = ScriptedProvider([], model="fallback-1")
    models = Models(
        BACKGROUND.provider(fake), build=lambda _name: fallback, fallback="scripted:fallback-1"
    )
    async with working(house.dsn, says(), models=models, capacity=1):
        await until(lambda: _looked(remote, QUICK.max_retries + 3))
        remote.stands = answered(TEXT)
        await house.until(session)
    assert remote.asked["made"] == 1
    assert fallback.log == []


TROUBLES = [
    answer(b"{}", status=429, headers={"retry-after": "0.02"}),
    answer(b"{}", status=503),
    answer(b"{}", claims=10),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=["busy", "down", "cut"])
async def test_where_nobody_can_look_at_an_answer_it_is_not_asked_for_again(
    house: House,
    fake: FakeServer,
    remote: Remote,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Reply,
):
    monkeypatch.setattr(openai_compatible, "_LAST_LOOK", 0.02)
    session = await killed_in_mid_stream(house, fake)
    remote.trouble = trouble
    fallback = ScriptedProvider([], model="fallback-1")
    models = Models(
        BACKGROUND.provider(fake), build=lambda _name: fallback, fallback="scripted:fallback-1"
    )
    async with working(house.dsn, says(), models=models):
        await until(lambda: _looked(remote, QUICK.max_retries + 3))
        remote.trouble, remote.stands = None, answered(TEXT)
        await house.until(session)
    assert remote.asked["made"] == 1
    assert fallback.log == []


async def test_a_fallback_that_works_on_its_answer_burns_no_try(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openai_compatible, "_IN_PLACE", 0.0)
    remote.first = in_pieces(HALF)
    down = ScriptedProvider(lambda _request: ModelUnavailable("down"))
    background = BACKGROUND.provider(fake)
    models = Models(down, build=lambda _name: background, fallback="openai:gpt-5-mini")
    async with working(house.dsn, says(), models=models):
        session = await house.begin("one", replace(QUICK, max_retries=0))
        await until(lambda: _looked(remote, 3))
        remote.stands = answered(TEXT)
        await house.until(session)
    assert remote.asked["made"] == 1


@pytest.mark.usefixtures("one_look")
async def test_while_a_fallback_works_on_its_answer_the_model_that_is_back_is_not_paid_as_well(
    house: House, fake: FakeServer, remote: Remote
):
    remote.first = in_pieces(HALF)
    back = ScriptedProvider([ModelUnavailable("down"), "It is back."])
    background = BACKGROUND.provider(fake)
    models = Models(back, build=lambda _name: background, fallback="openai:gpt-5-mini")
    async with working(house.dsn, says(), models=models):
        session = await house.begin("one")
        await until(lambda: _looked(remote, 1))
        remote.stands = answered(TEXT)
        await house.until(session)
    assert remote.asked["made"] == len(back.log) == 1
    paid = await house.pool.fetch(
        "SELECT provider, attempt, number FROM ekiden.calls WHERE outcome = 'ANSWERED'"
    )
    assert [tuple(call.values()) for call in paid] == [("openai", 1, 2)]


@pytest.mark.usefixtures("one_look")
async def test_what_a_call_that_is_parked_as_it_was_sent_may_cost_stays_reserved(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openai_compatible, "_FIRST_LOOK", 60.0)
    remote.first = in_pieces(HALF)
    options = replace(QUICK, budgets={0: Budget(max_tokens=10**6)})
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        await house.begin("one", options)
        await until(lambda: _looked(remote, 1))
        await until(lambda: _parked(house))
    assert await house.pool.fetchval("SELECT count(*) FROM ekiden.reservations") == 1


async def test_what_a_parked_call_may_cost_stays_reserved(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openai_compatible, "_IN_PLACE", 0.0)
    monkeypatch.setattr(openai_compatible, "_FIRST_LOOK", 60.0)
    session = await killed_in_mid_stream(house, fake)
    await house.pool.execute("INSERT INTO ekiden.budgets VALUES ($1, 0, NULL, 100)", session)
    await house.pool.execute(
        "INSERT INTO ekiden.reservations SELECT session_id, task_id, attempt, number, 1, NULL, 60"
        " FROM ekiden.started_calls"
    )
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        await until(lambda: _looked(remote, 1))
        await until(lambda: _parked(house))
    task, attempt = await house.pool.fetchrow("SELECT id, attempt FROM ekiden.api_tasks")
    budgets = Budgets(house.pool, house.dsn)

    async def may(task_id: int) -> bool:
        call = Call(
            session_id=session, task_id=task_id, attempt=attempt, number=1, kind="ask",
            provider="openai", model="gpt-5-mini", request_hash=b"", request=b"",
        )  # fmt: skip
        return await budgets.reserve(call, phase=1, cost_usd=None, tokens=60) is None

    assert not await may(task + 1)  # a sibling
    assert await may(task)  # asks anew, where the answer came to nothing
    await house.pool.execute("DELETE FROM ekiden.reservations WHERE attempt > 1")
    await house.pool.execute("UPDATE ekiden.started_calls SET withdrawn_at = now()")
    assert await may(task + 1)


@pytest.mark.usefixtures("one_look")
@pytest.mark.parametrize(
    ("age", "least"), [("1 hour", 440.0), ("9 hours", 890.0)], ids=["an hour", "long"]
)
async def test_what_takes_long_is_looked_for_ever_more_rarely(
    house: House, fake: FakeServer, remote: Remote, age: str, least: float
):
    session = await asked_before(house, fake, age)
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        await until(lambda: _looked(remote, 1))
        await until(lambda: _parked(house))
    due = await house.pool.fetchval(
        "SELECT extract(epoch FROM available_at - ekiden.now()) FROM ekiden.api_tasks"
    )
    assert least < due <= 900
    assert (await house.sessions.progress(session))["status"] == "RUNNING"


@pytest.mark.usefixtures("one_look")
@pytest.mark.parametrize("trouble", [None, TROUBLES[1]], ids=["in the making", "down"])
async def test_what_has_not_come_for_a_day_ends_by_the_uniform_retries(
    house: House, fake: FakeServer, remote: Remote, trouble: Reply | None
):
    remote.trouble = trouble
    session = await asked_before(house, fake, "25 hours")
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        failed = await house.until(session, "FAILED")
        assert "asked for 25 hours ago has not come" in failed["error"]["message"]
        assert "rerun the phase" in failed["error"]["message"]
        assert remote.asked["made"] == 1
        # A person may look again; what has come since is not paid for twice.
        remote.trouble, remote.stands = None, answered(TEXT)
        await house.sessions.resume(session, actor="me")
        await house.until(session)
    assert remote.asked["made"] == 1


async def asked_before(house: House, fake: FakeServer, age: str) -> str:
    """Let a worker ask and die, and so much time pass; return the session."""
    session = await killed_in_mid_stream(house, fake)
    await house.pool.execute(
        "UPDATE ekiden.started_calls SET started_at = now() - $1::text::interval", age
    )
    return session


async def _looked(remote: Remote, times: int) -> bool:
    return remote.asked["looked at"] >= times


@pytest.mark.parametrize("dead", [False, True], ids=["while it runs", "while nobody runs it"])
async def test_cancelling_the_session_stops_it_at_the_provider(
    house: House, fake: FakeServer, remote: Remote, dead: bool
):
    models = Models(BACKGROUND.provider(fake))
    if dead:
        session = await killed_in_mid_stream(house, fake)
        await house.sessions.cancel(session, actor="me")
    async with working(house.dsn, says(), models=models):
        if not dead:
            session = await house.begin("one")
            await until(lambda: named(house))
            await house.sessions.cancel(session, actor="me")
        await until(lambda: _withdrawn(house))
    assert remote.asked["made"] == remote.asked["cancelled"] == 1


async def test_streams_that_nobody_can_withdraw_crowd_out_none_that_can_be(
    house: House, fake: FakeServer, remote: Remote
):
    session = await killed_in_mid_stream(house, fake)
    await house.pool.execute(
        "INSERT INTO ekiden.started_calls (session_id, task_id, attempt, number, kind, provider,"
        " model, request_hash, answer_id, started_at)"
        " SELECT session_id, task_id, attempt, n, kind, 'anthropic', 'claude', request_hash,"
        " 'msg_' || n, started_at - interval '1 min'"
        " FROM ekiden.started_calls, generate_series(2, 101) n"
    )
    await house.sessions.cancel(session, actor="me")
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        await until(lambda: _withdrawn(house))
    assert remote.asked["cancelled"] == 1


async def test_a_provider_that_could_not_be_told_is_told_soon(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(withdrawals, "_SOON", 0.02)
    remote.deaf = 3
    session = await killed_in_mid_stream(house, fake)
    await house.sessions.cancel(session, actor="me")
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        await until(lambda: _withdrawn(house))
    assert remote.asked["cancelled"] == 4


async def test_an_id_that_is_noted_after_the_look_is_looked_at_soon(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(withdrawals, "_SOON", 0.2)
    looks = 0
    unwanted = Ledger.unwanted

    async def counted(ledger: Ledger) -> list[UnwantedAnswer]:
        nonlocal looks
        found = await unwanted(ledger)
        looks += 1
        if looks == 2:  # the look after the bell, with which the session is cancelled
            await house.pool.execute("UPDATE ekiden.started_calls SET started_at = now()")
        return found

    session = await killed_in_mid_stream(house, fake)
    await house.pool.execute("UPDATE ekiden.started_calls SET started_at = now() - interval '4 d'")
    await house.sessions.cancel(session, actor="me")
    monkeypatch.setattr(Ledger, "unwanted", counted)
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake))):
        await until(lambda: _withdrawn(house))
    assert looks == 3


async def test_running_a_phase_anew_stops_what_a_parked_step_waits_for(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(withdrawals, "_SOON", 900.0)
    monkeypatch.setattr(openai_compatible, "_IN_PLACE", 0.0)
    monkeypatch.setattr(openai_compatible, "_FIRST_LOOK", 60.0)
    session = await killed_in_mid_stream(house, fake)
    async with working(house.dsn, says(), models=Models(BACKGROUND.provider(fake)), drain=0.0):
        await until(lambda: _looked(remote, 1))
        await until(lambda: _parked(house))
        await house.sessions.pause(session, actor="me")
        await house.sessions.reviews.take(session, Review(verb=Verb.RERUN, actor="me", phase=1))
        await until(lambda: _withdrawn(house))
    assert remote.asked["cancelled"] == 1


@pytest.mark.usefixtures("one_look")
async def test_a_fallback_that_was_silent_for_a_day_is_withdrawn_before_the_model_is_asked(
    house: House, fake: FakeServer, remote: Remote
):
    session = await asked_before(house, fake, "25 hours")
    # After the second attempt there is a third: it looks for nothing any more.
    back = ScriptedProvider([AnswerInvalid("odd"), "It is back."])
    background = BACKGROUND.provider(fake)
    models = Models(back, build=lambda _name: background, fallback="openai:gpt-5-mini")
    async with working(house.dsn, says(), models=models):
        await house.until(session)
    assert remote.asked == {"made": 1, "looked at": 1, "cancelled": 1}
    calls = await house.pool.fetch(
        "SELECT provider, attempt, outcome FROM ekiden.calls ORDER BY attempt"
    )
    assert [tuple(call.values()) for call in calls] == [
        ("openai", 1, "ABORTED"),  # it may be paid as well: a budget counts it
        ("scripted", 2, "FAILED"),
        ("scripted", 3, "ANSWERED"),
    ]


async def test_a_result_from_outside_stops_the_answer_that_is_in_the_making(
    house: House, fake: FakeServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(withdrawals, "_SWEEP", 0.1)
    stop = asyncio.Event()
    ear = await asyncpg.connect(house.dsn)
    await ear.add_listener("session_cancelled", lambda *_: stop.set())
    models = Models(BACKGROUND.provider(fake))
    async with working(house.dsn, says(), models=models, drain=0.0):
        session = await house.begin("one")
        await until(lambda: named(house))
        task = await only_task(house, session)
        await house.sessions.deliver(session, task_id=task, attempt=1, result=TEXT)
        await house.until(session)
        await asyncio.wait_for(stop.wait(), 20)
        await until(lambda: _withdrawn(house))
    await ear.close()
    assert remote.asked == {"made": 1, "cancelled": 1}


async def _parked(house: House) -> bool:
    return bool(await house.pool.fetchval("SELECT count(*) FROM ekiden.api_tasks WHERE queued"))


async def _withdrawn(house: House) -> bool:
    return bool(await house.pool.fetchval("SELECT max(withdrawn_at) FROM ekiden.started_calls"))


async def test_what_was_not_cancelled_goes_on_when_a_worker_stops(
    house: House, fake: FakeServer, remote: Remote
):
    models = Models(BACKGROUND.provider(fake))
    async with working(house.dsn, says(), models=models, drain=0.0):
        session = await house.begin("one")
        await until(lambda: named(house))
    remote.stands = answered(TEXT)
    async with working(house.dsn, says(), models=models):
        await house.until(session)
    assert remote.asked == {"made": 1, "looked at": 1}
