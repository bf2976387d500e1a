"""An answer that broke off and that its provider keeps: nobody else is paid for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ekiden.core.model import Options
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
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, House, working
from tests.worker.streaming import says


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
