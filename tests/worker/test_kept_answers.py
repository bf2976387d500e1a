"""An answer that broke off and that its provider keeps: nobody else is paid for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ekiden.core.model import Options
from ekiden.errors import ModelUnavailable
from ekiden.providers.models_by_place import Models
from tests.providers.fake_server import (
    FakeServer,
    Received,
    Reply,
    answer,
    chunk,
    completion,
    in_pieces,
    sse,
)
from tests.providers.wires import OPENAI
from tests.scripted import ScriptedProvider, Streamed
from tests.worker.relay import QUICK, House, working
from tests.worker.streaming import are, says, until


@pytest.fixture
async def remote() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


async def answered_by(
    house: House, remote: FakeServer, first: Reply, options: Options = QUICK, *, store: bool = True
) -> tuple[list[str], int]:
    """Answer the question with ``first``; return what was asked there, and what of the fallback."""

    def answering(received: Received) -> Reply:
        if received.method == "POST":
            return first
        return answer(completion("whole"), content_type="application/json")

    remote.answering = answering
    fallback = ScriptedProvider(lambda _request: "instead", model="fallback-1")
    models = Models(
        OPENAI.provider(remote, store_answers=store),
        build=lambda _name: fallback,
        fallback="scripted:fallback-1",
    )
    async with working(house.dsn, says(), models=models):
        await house.until(await house.begin("one", options))
    return [received.method for received in remote.requests], len(fallback.log)


CUT = in_pieces(sse(chunk("who", id="chatcmpl-1")))


async def test_a_cut_answer_that_is_kept_is_fetched_and_no_fallback_is_paid(
    house: House, remote: FakeServer
):
    assert await answered_by(house, remote, CUT) == (["POST", "GET"], 0)


async def test_on_the_last_try_the_fallback_answers(house: House, remote: FakeServer):
    asked = await answered_by(house, remote, CUT, replace(QUICK, max_retries=0))
    assert asked == (["POST"], 1)


async def test_where_nothing_is_kept_the_fallback_answers_at_once(house: House, remote: FakeServer):
    assert await answered_by(house, remote, CUT, store=False) == (["POST"], 1)
    remote.requests.clear()
    down = answer(b"{}", status=500)
    assert await answered_by(house, remote, down) == (["POST"], 1)


def broken_off(*primary: str | Exception) -> tuple[ScriptedProvider, Models]:
    """Return a fallback that keeps a cut answer where nobody can look, and the models."""
    cut = Streamed(pieces=("wh",), then=ModelUnavailable("cut"), answer_id="kept-1")
    fallback = ScriptedProvider([cut], name="other", model="fallback-1")
    fallback.stored["kept-1"] = ModelUnavailable("away")
    step = ScriptedProvider(primary)
    return fallback, Models(step, build=lambda _name: fallback, fallback="other:fallback-1")


async def test_where_nobody_can_look_at_what_the_fallback_keeps_the_model_of_the_step_is_asked(
    house: House,
):
    fallback, models = broken_off(ModelUnavailable("down"), "back")
    async with working(house.dsn, says(), models=models):
        await house.until(await house.begin("one"))
    assert (len(fallback.log), fallback.fetched) == (1, ["kept-1"])


async def test_a_fallback_that_may_keep_its_answer_is_not_asked_anew(house: House):
    fallback, models = broken_off(*[ModelUnavailable("down")] * 1000)
    async with working(house.dsn, says(), models=models):
        session = await house.begin("one", replace(QUICK, max_retries=900))
        await until(lambda: are(len(fallback.fetched) > 2, True))
        fallback.stored["kept-1"] = "whole"
        await house.until(session)
    assert len(fallback.log) == 1
