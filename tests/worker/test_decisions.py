"""What people decide is what the next steps see, and nothing is paid for twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from ekiden.core.model import Budget, Review, Reviewed, StepKind, Verb
from ekiden.core.refusals import place_in
from ekiden.errors import CannotHeal, Conflict, InputInvalid
from ekiden.providers.protocol import ModelRequest
from tests.worker.deciding import PRICE, Checked, First, Priced, Second, Wide, echo, five
from tests.worker.relay import QUICK, House, open_house, working

ASK = replace(QUICK, max_retries=0)


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with open_house(database) as opened:
        yield opened


class Table:
    """A session, and the person who decides over it."""

    def __init__(self, house: House, session: str, provider: Priced) -> None:
        self.house = house
        self.session = session
        self.provider = provider

    async def decide(self, verb: Verb, *, actor: str = "ann", **of: Any) -> Reviewed:
        review = Review(verb=verb, actor=actor, **of)
        return await self.house.sessions.reviews.take(self.session, review)

    async def at_gate(self, phase: int) -> dict[str, Any]:
        """Approve gate after gate until this one."""
        while True:
            progress = await self.house.until(self.session, "AWAITING_REVIEW", "COMPLETED")
            if progress["currentPhase"] == phase or progress["status"] == "COMPLETED":
                return progress
            await self.decide(Verb.APPROVE)

    async def done(self) -> dict[str, Any]:
        return await self.at_gate(0)

    def asked(self) -> list[str]:
        return [entry.request.messages[-1].content for entry in self.provider.answered]

    async def cost(self) -> Decimal:
        return Decimal(str((await self.house.sessions.progress(self.session))["cost"]["usd"]))


async def test_an_edited_output_is_what_the_next_phase_reads(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(), provider=provider):
        table = Table(house, await house.begin("five"), provider)
        shown = await table.at_gate(2)
        edited = await table.decide(Verb.EDIT, output={"text": "by hand"}, comment="shorter")
        assert edited.revision != shown["revision"]
        await table.decide(Verb.APPROVE, revision=edited.revision)
        await table.at_gate(3)
    assert "plan 3 of by hand" in table.asked()
    second = [r for r in await house.sessions.revisions(table.session) if r.phase == 2]
    assert [(r.author, r.approved_at is not None) for r in second] == [
        ("model", False),
        ("ann", True),
    ]
    assert second[1].comment == "shorter"


async def test_an_edit_that_does_not_fit_the_phase_names_each_field(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(), provider=provider):
        table = Table(house, await house.begin("five"), provider)
        await table.at_gate(1)
        with pytest.raises(InputInvalid) as caught:
            await table.decide(Verb.EDIT, output={"text": 7})
    assert caught.value.problems == [("text", "must be text")]
    assert len(await house.sessions.revisions(table.session)) == 1


async def test_a_rejected_phase_runs_again_and_its_think_is_told_why(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(), provider=provider):
        table = Table(house, await house.begin("five"), provider)
        await table.at_gate(3)
        before = len(provider.log)
        await table.decide(
            Verb.REJECT, comment="more relays", variables={"tone": "dry"}, model=None
        )
        progress = await house.until(table.session, "AWAITING_REVIEW")
    assert progress["currentPhase"] == 3
    assert progress["phases"][2]["generation"] == 2
    asked = table.asked()[before:]
    made = "[make 3 of [plan 3 of [make 2 of [plan 2 of [make 1 of [plan 1]]]]]]"
    assert asked[0].endswith(f"Note: more relays. Before: {made} Tone: dry")
    assert len(asked) == 2, "only that phase ran again"


async def test_going_back_runs_again_what_depended_on_it_and_keeps_the_rest(house: House):
    provider = Priced(echo, cost_usd=float(PRICE))
    async with working(house.dsn, five(), provider=provider):
        table = Table(house, await house.begin("five"), provider)
        await table.done()
        assert len(provider.log) == 10
        assert await house.sessions.reviews.would_be_stale(table.session, 1) == ([2, 3], [4, 5])
        done = await table.decide(Verb.RERUN, phase=1, comment="anew")
        assert (done.stale, done.kept) == ((2, 3), (4, 5))
        progress = await house.until(table.session, "AWAITING_REVIEW")
        assert [p["status"] for p in progress["phases"]] == [
            "COMPLETED", "STALE", "STALE", "COMPLETED", "COMPLETED",
        ]  # fmt: skip
        progress = await table.done()
    assert [p["generation"] for p in progress["phases"]] == [2, 2, 2, 1, 1]
    assert len(provider.log) == 16, "three phases of two calls each, and no more"
    assert await table.cost() == 16 * PRICE


async def test_an_open_gate_is_not_jumped_over(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(), provider=provider):
        table = Table(house, await house.begin("five"), provider)

        async def fork(phase: int) -> str:
            reviews = house.sessions.reviews
            made, _ = await reviews.fork(table.session, phase=phase, actor="ann")
            return made

        await table.done()
        await table.decide(Verb.EDIT, phase=1, output={"text": "by hand"})
        for at, later, shared in ((1, 3, 0), (2, 4, 1)):  # the fourth holds, and waits all the same
            await table.at_gate(at)
            for verb, of in ((Verb.RERUN, {}), (Verb.EDIT, {"output": {"text": "x"}})):
                with pytest.raises(Conflict, match=f"is back at phase {at}, and phase") as caught:
                    await table.decide(verb, phase=later, **of)
                assert caught.value.kind == "later-phase"
            await fork(shared)
            for stale in range(shared + 1, 4):
                with pytest.raises(Conflict, match="an approved output that holds"):
                    await fork(stale)
        await table.done()
        await fork(4)
        await table.decide(Verb.RERUN, phase=3)
        await table.done()
    asked = table.asked()
    assert "plan 2 of by hand" in asked
    assert asked.count("plan 3 of [make 2 of [plan 2 of by hand]]") == 2


async def test_a_rerun_from_integrate_keeps_the_plan(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(First, Second, name="two"), provider=provider):
        table = Table(house, await house.begin("two"), provider)
        await table.at_gate(1)
        await table.decide(Verb.RERUN, step=StepKind.INTEGRATE)
        progress = await house.until(table.session, "AWAITING_REVIEW")
        assert [s["status"] for s in progress["phases"][0]["steps"]] == ["COMPLETED"] * 2
        await table.done()
    assert [asked for asked in table.asked() if asked.startswith("plan 1")] == ["plan 1"]
    assert len([asked for asked in table.asked() if asked.startswith("make 1")]) == 2


async def test_a_budget_stops_before_the_call_that_would_exceed_it_and_repeats_none(house: House):
    provider = Priced(echo, cost_usd=float(PRICE))
    limited = replace(ASK, budgets={0: Budget(max_cost_usd=7 * PRICE)})
    async with working(house.dsn, five(Wide, name="wide"), provider=provider, capacity=20):
        table = Table(house, await house.begin("wide", limited), provider)
        progress = await house.until(table.session, "PAUSED")
        await asyncio.sleep(0.3)  # whatever was under way may end
        assert progress["waitingFor"]["kind"] == "budget"
        assert "0.07 USD" in progress["waitingFor"]["message"]
        assert progress["requiresManualTrigger"]
        assert len(provider.log) == 7
        await table.decide(Verb.BUDGET, budget=Budget(max_cost_usd=Decimal(1)), phase=0)
        await house.until(table.session)
    assert sorted(table.asked()) == sorted(f"item {n}" for n in range(20)), "each was paid once"
    assert await table.cost() == 20 * PRICE


async def test_an_unknown_price_stops_a_budget_of_money_and_one_of_tokens_does_not(house: House):
    class Unpriced(Priced):
        def most_it_costs(self, input_chars: int, max_tokens: int) -> None:  # type: ignore[override]
            return None

    provider = Unpriced(echo, cost_usd=None)
    money = replace(ASK, budgets={1: Budget(max_cost_usd=Decimal(5))})
    async with working(house.dsn, five(First, name="one"), provider=provider):
        table = Table(house, await house.begin("one", money), provider)
        progress = await house.until(table.session, "PAUSED")
        assert "price of scripted:scripted-1 is not known" in progress["waitingFor"]["message"]
        assert provider.log == []
        await table.decide(Verb.BUDGET, phase=1, budget=Budget(max_tokens=100_000))
        await house.until(table.session)


async def test_when_items_fail_a_person_accepts_what_there_is(house: House):
    provider = Priced(_fails(3))
    async with working(house.dsn, five(Wide, name="wide"), provider=provider, capacity=20):
        table = Table(house, await house.begin("wide", ASK), provider)
        progress = await house.until(table.session, "PAUSED")
        assert progress["waitingFor"]["kind"] == "items"
        assert progress["waitingFor"]["message"].startswith("3 of 20 items of phase 1 failed")
        said = f"ekiden sessions accept {table.session}.*ekiden sessions retry {table.session}"
        with pytest.raises(Conflict, match=said) as refused:
            await house.sessions.resume(table.session, actor="ann")
        assert refused.value.kind == "items-failed"
        with pytest.raises(Conflict, match=said):
            await house.sessions.start(table.session)
        await table.decide(Verb.ACCEPT)
        await house.until(table.session)
    (made,) = await house.sessions.revisions(table.session)
    assert len(made.output) == 17


async def test_when_items_fail_a_person_retries_those_alone(house: House):
    failing = [True]
    provider = Priced(_fails(3, failing))
    async with working(house.dsn, five(Wide, name="wide"), provider=provider, capacity=20):
        table = Table(house, await house.begin("wide", ASK), provider)
        await house.until(table.session, "PAUSED")
        failing.clear()
        await table.decide(Verb.RETRY)
        await house.until(table.session)
    (made,) = await house.sessions.revisions(table.session)
    assert len(made.output) == 20
    assert len(provider.log) == 23


async def test_what_is_decided_of_failed_items_is_what_was_seen(house: House):
    provider = Priced(_fails(3))
    async with working(house.dsn, five(Wide, name="wide"), provider=provider, capacity=20):
        table = Table(house, await house.begin("wide", ASK), provider)
        seen = place_in(await house.until(table.session, "PAUSED"))
        await table.decide(Verb.RETRY, seen=seen)
        # As many fail again, and it is another stop.
        now = place_in(await house.until(table.session, "PAUSED"))
        for verb in (Verb.ACCEPT, Verb.RETRY):
            with pytest.raises(Conflict, match="has moved on since you looked"):
                await table.decide(verb, seen=seen)
        await table.decide(Verb.ACCEPT, seen=now)
        await house.until(table.session)


@pytest.mark.parametrize(("fail", "status"), [(4, "COMPLETED"), (5, "PAUSED")])
async def test_a_quorum_goes_on_by_itself_or_asks(house: House, fail: int, status: str):
    class Most(Wide):
        """Four of five are enough"""

        failed_items = 0.8

    provider = Priced(_fails(fail))
    async with working(house.dsn, five(Most, name="most"), provider=provider, capacity=20):
        session = await house.begin("most", ASK)
        await house.until(session, status)


def _fails(how_many: int, while_: list[bool] | None = None) -> Any:
    bad = {f"item {n}" for n in range(how_many)}

    def script(request: ModelRequest) -> Any:
        if request.messages[-1].content in bad and (while_ is None or while_):
            return CannotHeal("no such thing")
        return echo(request)

    return script


async def test_a_check_lets_pass_or_says_what_a_person_should_look_at(house: House):
    flow = five(Checked, Second2, name="checked")
    for script, expected in ((lambda _: "short", "AWAITING_REVIEW"), (echo, "COMPLETED")):
        provider = Priced(script)
        async with working(house.dsn, flow, provider=provider):
            session = await house.begin("checked", ASK)
            progress = await house.until(session, expected, "FAILED")
        assert progress["status"] == expected
        assert progress["complaint"] == ("too short" if expected == "AWAITING_REVIEW" else None)


class Second2(First):
    """The last one, so that there is a gate before it"""


async def test_several_must_approve_and_who_started_it_may_not(house: House):
    provider = Priced(echo)
    gates = {1: {"approvals": 2, "approvers": ["ann", "bob", "test"], "fourEyes": True}}
    async with working(house.dsn, five(First, Second, name="two"), provider=provider):
        session, _ = await house.sessions.create(
            "two", title="t", input={}, options=replace(ASK, gates=gates), start=True, actor="test"
        )
        table = Table(house, session, provider)
        await house.until(session, "AWAITING_REVIEW")
        for actor, why in (("eve", "may approve here"), ("test", "four eyes")):
            with pytest.raises(Conflict, match=why):
                await table.decide(Verb.APPROVE, actor=actor)
        assert (await table.decide(Verb.APPROVE, actor="ann")).missing == 1
        with pytest.raises(Conflict, match="has approved this already"):
            await table.decide(Verb.APPROVE, actor="ann")
        assert (await house.sessions.progress(session))["approvedBy"] == ["ann"]
        assert (await table.decide(Verb.APPROVE, actor="bob")).missing == 0
        await house.until(session)
    reviews = await house.sessions.reviews.of(session)
    assert [(r.actor, r.passes) for r in reviews] == [("ann", False), ("bob", True)]


async def test_approvals_of_what_was_edited_since_do_not_count(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(First, Second, name="two"), provider=provider):
        options = replace(ASK, gates={1: {"approvals": 2}})
        table = Table(house, await house.begin("two", options), provider)
        await table.at_gate(1)
        await table.decide(Verb.APPROVE, actor="ann")
        await table.decide(Verb.EDIT, output={"text": "other"}, actor="bob")
        assert (await table.decide(Verb.APPROVE, actor="bob")).missing == 1


async def test_a_fork_pays_for_nothing_it_shares(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(), provider=provider):
        table = Table(house, await house.begin("five"), provider)
        await table.at_gate(3)
        before = len(provider.log)
        made, _ = await house.sessions.reviews.fork(table.session, phase=2, actor="ann", start=True)
        fork = Table(house, made, provider)
        progress = await fork.at_gate(3)
        assert progress["completedPhases"] == [1, 2, 3]
        assert progress["forkOf"] == table.session
        assert len(provider.log) == before + 2
        revisions = await house.sessions.revisions(made)
        assert [r.approved_by for r in revisions] == ["fork", "fork", None]


async def test_time_spent_waiting_for_people_is_kept_apart(house: House):
    provider = Priced(echo)
    async with working(house.dsn, five(First, Second, name="two"), provider=provider):
        table = Table(house, await house.begin("two"), provider)
        await table.at_gate(1)
        await house.pool.execute(
            "UPDATE ekiden.sessions SET waiting_since = waiting_since - interval '1 hour'"
        )
        (line,) = await house.sessions.reviews.waiting()
        assert (line.id, line.phase_title) == (table.session, "The first")
        assert line.age.total_seconds() >= 3600
        await table.decide(Verb.APPROVE)
        progress = await house.until(table.session)
    assert progress["waitingSince"] is None
    assert 3_600_000 <= progress["waitedForPeopleMs"] < 3_700_000
    times = await house.sessions.reviews.waiting_times()
    assert (times.waiting, times.decided) == (0, 1)
    assert times.took_p50 is not None
    assert times.took_p50.total_seconds() >= 3600
