"""The ledger is judged: what an attempt paid again although an earlier one had its answer."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from ekiden import Context
from ekiden.store.ledger import Call
from ekiden.store.verify import Report
from ekiden.worker.caller import Caller
from tests.scripted import ScriptedProvider
from tests.store.lived import WORD
from tests.store.test_verify import check, found, red
from tests.worker.relay import Word, one_step, open_house, working


class Repeats:
    """A step that asks, fails once the answers have been stored for a while, and asks again."""

    def __init__(self, dsn: str, questions: dict[int, list[str]]) -> None:
        self._dsn = dsn
        self._questions = questions  # by attempt

    async def __call__(self, ctx: Context) -> str:
        for question in self._questions[ctx.attempt]:
            await ctx.ask(question, Word)
        if ctx.attempt == 1:
            await self._until_stored()
            raise RuntimeError("bad luck")
        return "done"

    async def _until_stored(self) -> None:
        """Judged are answers that were stored a quarter of a second before the next attempt."""
        old = "SELECT bool_and(finished_at < now() - interval '260 ms') FROM ekiden.calls"
        connection = await asyncpg.connect(self._dsn)
        try:
            while not await connection.fetchval(old):
                await asyncio.sleep(0.02)
        finally:
            await connection.close()


async def _repeated(dsn: str, questions: dict[int, list[str]]) -> Report:
    flow = one_step(Repeats(dsn, questions))
    async with (
        open_house(dsn) as house,
        working(dsn, flow, provider=ScriptedProvider(lambda _request: WORD)),
    ):
        await house.until(await house.begin("one"))
    return await check(dsn)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts take nothing from the ledger."""

    async def nothing_was_paid(_caller: Caller, _call: Call) -> None:
        return None

    monkeypatch.setattr(Caller, "paid", nothing_was_paid)


@pytest.mark.usefixtures("forgetful")
async def test_a_ledger_that_does_not_replay_is_found(database: str) -> None:
    report = await _repeated(database, {1: ["a", "b"], 2: ["a", "b"]})
    assert red(report) == {"answers_are_paid_once": ["1/2/1", "1/2/2"]}


@pytest.mark.usefixtures("forgetful")
async def test_an_answer_that_is_paid_again_under_another_number_is_found(database: str) -> None:
    report = await _repeated(database, {1: ["a"], 2: ["new", "a"]})
    assert red(report) == {"answers_are_paid_once": ["1/2/2"]}


@pytest.mark.parametrize(
    "again",
    [["a", "b", "c"], ["a", "a", "b"], ["c", "a", "b"], ["b", "a", "b"]],
    ids=["one more", "the same once more", "another first", "in another order, one twice"],
)
async def test_what_an_attempt_asks_that_was_not_asked_before_may_be_paid(
    database: str, again: list[str]
) -> None:
    report = await _repeated(database, {1: ["a", "b"], 2: again})
    assert red(report) == {}
    assert found(report, "answers_are_paid_once").examined == 1
