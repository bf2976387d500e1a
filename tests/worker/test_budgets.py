"""What counts against a budget while nobody knows yet, or ever, what a call did cost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from ekiden.core.model import Budget, Review, Verb
from ekiden.errors import NotNow
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.models_by_place import Models
from ekiden.providers.openai_compatible import OpenAICompatible
from ekiden.store.budgets import Budgets
from ekiden.store.ledger import Call, Ledger
from tests.providers.fake_server import FakeServer, Reply, answer, in_pieces, nothing, slam
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, House, asks, one_step, working
from tests.worker.streaming import only_task, says, until

LIMITED = replace(QUICK, budgets={0: Budget(max_cost_usd=Decimal("0.10"), max_tokens=100)})
CALL, TOKENS = Decimal("0.06"), 60


class Spender:
    """Reserves calls of one task, and notes what became of them."""

    def __init__(self, house: House, session: str, task: int) -> None:
        self._house = house
        self._budgets = Budgets(house.pool, house.dsn)
        self.ledger = Ledger(house.pool, house.dsn)
        self._session, self._task = session, task

    def call(self, number: int, **told: Any) -> Call:
        return replace(
            Call(
                session_id=self._session, task_id=self._task, attempt=1, number=number,
                kind="ask", provider="p", model="m", request_hash=b"", request=b"", answer=b"a",
            ),
            **told,
        )  # fmt: skip

    async def may(self, number: int) -> bool:
        call = self.call(number)
        stop = await self._budgets.reserve(call, phase=1, cost_usd=CALL, tokens=TOKENS)
        return stop is None

    async def gone(self) -> tuple[Decimal, int, Decimal, int]:
        (seen,) = await self._budgets.of(self._session)
        return seen.cost_usd, seen.tokens, seen.reserved_cost_usd, seen.reserved_tokens

    async def says(self, number: int) -> None:
        await self._house.pool.execute(
            "INSERT INTO ekiden.partials (session_id, task_id, attempt, call, seq, text)"
            " VALUES ($1, $2, 1, $3, 1, 'The')", self._session, self._task, number,
        )  # fmt: skip

    async def over(self, outcome: str) -> None:
        await self._house.pool.execute(
            "INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at,"
            " finished_at) VALUES ($1, 1, 1, $2, now(), now())", self._task, outcome,
        )  # fmt: skip


@pytest.fixture
async def spender(house: House) -> Spender:
    async with working(house.dsn, says(), provider=ScriptedProvider([])):
        pass  # the flow is known now
    session = await house.begin("one", LIMITED)
    made = Spender(house, session, await only_task(house, session))
    assert await made.may(1)
    return made


async def test_an_answer_that_nobody_has_read_counts_as_what_was_reserved(spender: Spender) -> None:
    await spender.ledger.append([spender.call(1)])
    assert not await spender.may(2)
    read = {"input_tokens": 10, "output_tokens": 5, "cost_usd": Decimal("0.01")}
    await spender.ledger.settle([spender.call(1, **read)])
    assert await spender.may(2)


async def test_people_see_what_is_gone_and_what_a_call_may_still_take(
    spender: Spender,
) -> None:
    assert await spender.gone() == (0, 0, 0, 0), "no attempt runs"
    await spender.over("LOST")
    assert await spender.gone() == (0, 0, CALL, TOKENS)
    read = {"input_tokens": 10, "output_tokens": 5, "cost_usd": Decimal("0.01")}
    await spender.ledger.append([spender.call(1)])
    assert await spender.gone() == (CALL, TOKENS, 0, 0)
    await spender.ledger.settle([spender.call(1, **read)])
    assert await spender.gone() == (Decimal("0.01"), 15, 0, 0)


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 7, "output_tokens": 1}])
async def test_a_call_that_was_stopped_counts_as_what_was_reserved(
    house: House, spender: Spender, usage: dict[str, int]
) -> None:
    await spender.ledger.append([spender.call(1, answer=None, outcome="ABORTED", **usage)])
    assert not await spender.may(2)
    await house.pool.execute("UPDATE ekiden.budgets SET max_cost_usd = 1, max_tokens = 120")
    assert await spender.may(2), "a person can raise it"


async def test_a_call_that_failed_counts_only_where_an_answer_had_begun(spender: Spender) -> None:
    await spender.ledger.append([spender.call(1, answer=None, outcome="FAILED")])
    assert await spender.may(2)
    await spender.says(2)
    await spender.ledger.append([spender.call(2, answer=None, outcome="FAILED")])
    assert not await spender.may(3)


@pytest.mark.parametrize(("outcome", "counts"), [("LOST", True), ("RELEASED", False)])
async def test_a_call_whose_worker_died_counts_as_what_was_reserved(
    spender: Spender, outcome: str, counts: bool
) -> None:
    await spender.over(outcome)
    assert await spender.may(2) is not counts


async def run(house: House, provider: ScriptedProvider, most: int) -> str:
    """Return the status of a session with a budget of so many tokens."""
    options = replace(QUICK, budgets={0: Budget(max_tokens=most)})
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one", options)
        return str((await house.until(session, "COMPLETED", "PAUSED"))["status"])


async def test_room_to_think_is_reserved_as_well(house: House) -> None:
    class Thinking(ScriptedProvider):
        def most_tokens(self, max_tokens: int) -> int:
            return max_tokens + 4096

    assert await run(house, ScriptedProvider(["said"]), 3000) == "COMPLETED"
    assert await run(house, Thinking(["said"]), 3000) == "PAUSED"


def asks_thrice() -> CompiledFlow:
    """A flow whose one attempt asks three times."""

    async def ask(ctx: Any) -> list[str]:
        return [await ctx.ask(word, str) for word in ("first", "second", "third")]

    return one_step(ask, "asks")


@pytest.mark.parametrize("flow", [asks, asks_thrice], ids=["over steps", "in one attempt"])
async def test_a_first_budget_holds_from_the_next_call_of_a_session_that_runs(
    house: House, flow: Callable[[], CompiledFlow]
) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(lambda _request: '{"word": "said"}', gate=gate)

    async def limit(session: str, most: int) -> None:
        review = Review(verb=Verb.BUDGET, actor="me", phase=0, budget=Budget(max_tokens=most))
        await house.sessions.reviews.take(session, review)

    async with working(house.dsn, flow(), provider=provider):
        session = await house.begin("asks")
        await asyncio.wait_for(provider.arrived.wait(), 10)
        await limit(session, 100)
        gate.set()
        assert (await house.until(session, "COMPLETED", "PAUSED"))["status"] == "PAUSED"
        assert len(provider.log) == 1
        await limit(session, 10_000)
        await house.until(session)
    assert len(provider.log) == 3
    assert await house.pool.fetchval("SELECT count(*) FROM ekiden.reservations") == 2


async def test_who_lost_its_task_while_it_reserved_asks_nothing(house: House) -> None:
    provider = ScriptedProvider(lambda _request: "said")
    options = replace(QUICK, budgets={0: Budget(max_tokens=10_000)})
    async with working(house.dsn, says(), provider=provider):
        async with house.pool.acquire() as peer, peer.transaction():
            session = await house.begin("one", options, start=False)
            await peer.execute("SELECT FROM ekiden.budgets FOR UPDATE")
            await house.sessions.start(session)
            await until(lambda: waits_for_a_lock(house))
            await house.pool.execute("UPDATE ekiden.api_tasks SET attempt = attempt + 1")
        await until(lambda: house.pool.fetchval("SELECT count(*) FROM ekiden.reservations"))
    assert provider.log == []


async def waits_for_a_lock(house: House) -> bool:
    return bool(
        await house.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


async def test_a_call_that_was_not_sent_is_not_counted_while_the_fallback_answers(
    house: House,
) -> None:
    busy = ScriptedProvider(lambda _request: NotNow("Its rate limit is used up."))
    fallback = ScriptedProvider(lambda _request: '{"word": "said"}', model="fallback-1")
    models = Models(busy, build=lambda _name: fallback, fallback="scripted:fallback-1")
    # Room for what one call may take, and for what three did.
    options = replace(QUICK, budgets={0: Budget(max_tokens=2000)})
    async with working(house.dsn, asks(), models=models):
        session = await house.begin("asks", options)
        progress = await house.until(session, "COMPLETED", "PAUSED")
    assert progress["status"] == "COMPLETED"
    assert len(busy.log) == len(fallback.log) == 3
    left = await house.pool.fetchval(
        "SELECT count(*) FROM ekiden.reservations r WHERE NOT EXISTS"
        " (SELECT FROM ekiden.calls c WHERE (c.task_id, c.attempt, c.number)"
        " = (r.task_id, r.attempt, r.number))"
    )
    assert left == 0


async def asked_of(
    house: House, url: str, most: int, silence: float = 30.0
) -> tuple[str, list[int | None]]:
    """Ask a server with a budget of so many tokens, and once more when that fails.

    Returns:
        The session's status, and the HTTP status of each call.
    """
    options = replace(QUICK, max_retries=1, budgets={0: Budget(max_tokens=most)})
    model = OpenAICompatible(base_url=url, model="fake", silence=silence)
    async with working(house.dsn, says(), models=Models(model)):
        session = await house.begin("one", options)
        progress = await house.until(session, "COMPLETED", "PAUSED", "FAILED")
    calls = "SELECT http_status FROM ekiden.calls WHERE session_id = $1 ORDER BY id"
    return progress["status"], [row[0] for row in await house.pool.fetch(calls, session)]


async def one_and_a_half(house: House, url: str) -> int:
    """Return one and a half times the tokens that a call reserves."""
    await asked_of(house, url, 10**6)
    return int(await house.pool.fetchval("SELECT max(tokens) * 3 / 2 FROM ekiden.reservations"))


@pytest.mark.parametrize(
    ("reply", "noted"),
    [(in_pieces(), 200), (answer(b"{", content_type="application/json", claims=9), 200),
     (nothing, 0), (slam, 0)],
    ids=["cut stream", "cut document", "silence", "slammed"],
)  # fmt: skip
async def test_a_call_that_broke_off_before_its_first_text_counts_as_what_was_reserved(
    house: House, reply: Reply, noted: int
) -> None:
    async with FakeServer() as server:
        most = await one_and_a_half(house, server.url)
        server.requests.clear()
        server.reply = reply
        silence = 0.3 if reply is nothing else 30.0
        assert await asked_of(house, server.url, most, silence) == ("PAUSED", [noted])
    assert len(server.requests) == 1


async def test_a_call_that_was_refused_or_not_sent_counts_nothing(house: House) -> None:
    async with FakeServer() as server:
        most = await one_and_a_half(house, server.url)
        server.reply = answer(b"{}", status=500)
        assert await asked_of(house, server.url, most) == ("FAILED", [None, None])
    with socket.socket() as bound:  # bound and not listening: nobody else can take the port
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        assert await asked_of(house, url, most) == ("FAILED", [None, None])
