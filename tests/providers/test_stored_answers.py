"""Answers that the server keeps: asked for with ``store``, fetched again by their id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from ekiden.cli.compose import provider_settings
from ekiden.config import Settings
from ekiden.errors import ModelBusy, ModelUnavailable
from ekiden.providers import openai_compatible
from ekiden.providers.choose import choose
from ekiden.providers.openai_compatible import OpenAICompatible
from ekiden.providers.protocol import KeepsAnswers, Message, ModelRequest, Usage
from tests.providers.fake_server import (
    FakeServer,
    Reply,
    answer,
    chunk,
    completion,
    sse,
    then_silence,
)

REQUEST = ModelRequest(messages=(Message(role="user", content="say hello"),))
NAMED = [chunk("hel", id="chatcmpl-1"), chunk("lo", id="chatcmpl-1", finish="stop")]


def stored(text: str, *, finish: str | None = "stop", status: int = 200) -> Reply:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": finish}
    body = json.dumps({"id": "chatcmpl-1", "model": "fake-1", "choices": [choice]}).encode()
    return answer(body, content_type="application/json", status=status)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture
async def provider(server: FakeServer) -> AsyncIterator[OpenAICompatible]:
    made = OpenAICompatible(base_url=server.url, model="fake", store=True)
    yield made
    await made.close()


class Named:
    def __init__(self) -> None:
        self.ids: list[str] = []

    async def hear(self, answer_id: str) -> None:
        self.ids.append(answer_id)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "_FIRST_LOOK", 0.01)


async def test_a_server_that_shall_keep_its_answers_is_told_so_and_names_them_at_once(
    server, provider
):
    server.reply = then_silence(sse(NAMED[0]))
    named: asyncio.Queue[str] = asyncio.Queue()
    asking = asyncio.ensure_future(provider.send(REQUEST, on_id=named.put))
    assert await asyncio.wait_for(named.get(), 10) == "chatcmpl-1"
    assert not asking.done()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert server.requests[0].json["store"] is True


async def test_an_id_is_named_once(server, provider):
    server.reply = answer(sse(*NAMED, done=True))
    named = Named()
    await provider.send(REQUEST, on_id=named.hear)
    assert named.ids == ["chatcmpl-1"]


async def test_nothing_more_is_heard_before_the_id_is_noted(server, provider):
    server.reply = answer(sse(*NAMED, done=True))
    order: list[str] = []

    async def note(_answer_id: str) -> None:
        await asyncio.sleep(0.05)
        order.append("noted")

    await provider.send(REQUEST, on_id=note)
    assert order == ["noted"], "the answer is not handed over before"


async def test_without_the_setting_nothing_is_kept_and_nothing_named(server):
    provider = OpenAICompatible(base_url=server.url, model="fake")
    server.reply = answer(sse(*NAMED, done=True))
    named = Named()
    await provider.send(REQUEST, on_id=named.hear)
    await provider.close()
    assert named.ids == []
    assert "store" not in server.requests[0].json


@pytest.mark.parametrize("hostile", ["../models", "a/b", "", "x" * 201, 7, None, "a?b", ".."])
async def test_an_id_that_is_no_plain_word_is_never_asked_for(server, provider, hostile):
    server.reply = answer(sse(chunk("hello", id=hostile, finish="stop"), done=True))
    named = Named()
    assert provider.read(await provider.send(REQUEST, on_id=named.hear)).text == "hello"
    assert named.ids == []


async def test_a_stored_answer_is_fetched_with_the_key_and_read_like_any_other(server):
    provider = OpenAICompatible(base_url=server.url, model="fake", api_key="sk-0123456789")
    server.reply = stored("hello")
    assert isinstance(provider, KeepsAnswers)
    raw = await provider.fetch("chatcmpl-1")
    await provider.close()
    assert raw is not None
    assert provider.read(raw).text == "hello"
    [received] = server.requests
    assert (received.method, received.path) == ("GET", "/v1/chat/completions/chatcmpl-1")
    assert received.headers["authorization"] == "Bearer sk-0123456789"


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410])
async def test_what_the_server_will_not_give_is_not_there(server, provider, status):
    server.reply = answer(b'{"error": {"message": "no such completion"}}', status=status)
    assert await provider.fetch("chatcmpl-1") is None


@pytest.mark.parametrize(("status", "error"), [(500, ModelUnavailable), (429, ModelBusy)])
async def test_a_server_that_cannot_say_is_not_taken_for_a_no(server, provider, status, error):
    server.reply = answer(b"{}", status=status)
    with pytest.raises(error):
        await provider.fetch("chatcmpl-1")


STILL: list[Callable[[], Reply]] = [
    lambda: stored("hal", finish=None),
    lambda: stored("", status=202),
    lambda: answer(b'{"status": "in_progress"}', content_type="application/json"),
]


@pytest.mark.parametrize("still", STILL, ids=["unfinished", "202", "status"])
async def test_an_answer_that_is_still_being_made_is_waited_for(server, provider, still):
    fetching = asyncio.ensure_future(_fetch_from(server, provider, still()))
    while len(server.requests) < 3:
        await asyncio.sleep(0.005)
    assert not fetching.done()
    server.reply = stored("hello")
    raw = await asyncio.wait_for(fetching, 10)
    assert raw is not None
    assert provider.read(raw).text == "hello"


async def _fetch_from(server: FakeServer, provider: OpenAICompatible, reply: Reply) -> object:
    server.reply = reply
    return await provider.fetch("chatcmpl-1")


async def test_a_kept_answer_that_says_nothing_of_its_end_is_taken_as_it_is(server, provider):
    body = json.loads(completion("hello"))
    del body["choices"][0]["finish_reason"]
    server.reply = answer(json.dumps(body).encode(), content_type="application/json")
    raw = await provider.fetch("chatcmpl-1")
    assert raw is not None
    assert provider.read(raw).text == "hello"


async def test_what_a_server_said_of_its_usage_before_it_was_cut_is_told(server, provider):
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    server.reply = answer(sse(chunk("half", usage=usage)))
    told: list[Usage] = []
    with pytest.raises(ModelUnavailable):
        await provider.send(REQUEST, on_usage=told.append)
    assert told == [Usage(input_tokens=12, output_tokens=3)]


async def test_of_a_cancelled_request_too_and_never_of_one_that_ended_well(server, provider):
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    told: list[Usage] = []
    server.reply = then_silence(sse(chunk("half", usage=usage)))
    first = asyncio.Event()
    asking = asyncio.ensure_future(
        provider.send(REQUEST, on_text=lambda _: first.set(), on_usage=told.append)
    )
    await asyncio.wait_for(first.wait(), 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert len(told) == 1
    server.reply = answer(sse(chunk("all", usage=usage, finish="stop"), done=True))
    await provider.send(REQUEST, on_usage=told.append)
    assert len(told) == 1


async def test_the_setting_reaches_the_server(server, tmp_path, monkeypatch):
    for name, value in {
        "EKIDEN_STORE_ANSWERS": "true",
        "EKIDEN_HOME": str(tmp_path),
        "EKIDEN_MODEL": "openai:fake",
        "OPENAI_BASE_URL": server.url,
    }.items():
        monkeypatch.setenv(name, value)
    made = await choose(provider_settings(Settings(_env_file=None)))
    await made.send(REQUEST)
    await made.close()
    assert server.requests[0].json["store"] is True
