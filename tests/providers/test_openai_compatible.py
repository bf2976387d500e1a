"""Over real sockets: what goes out, what comes back, and the name of everything that breaks."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from ekiden.errors import (
    AnswerInvalid,
    ModelBusy,
    ModelRefused,
    ModelUnavailable,
    SettingsError,
)
from ekiden.providers.addresses import checked_url
from ekiden.providers.openai_compatible import OpenAICompatible
from ekiden.providers.protocol import Message, ModelRequest, Provider, RawAnswer, Usage
from tests.providers.fake_server import (
    FakeServer,
    answer,
    chunk,
    completion,
    in_pieces,
    nothing,
    slam,
    sse,
    then_silence,
)

KEY = "sk-secret-0123456789"
REQUEST = ModelRequest(messages=(Message(role="user", content="say hello"),), seed=7)
HELLO = sse(chunk("hel"), chunk("lo"), chunk("", finish="stop"), done=True)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture
async def provider(server: FakeServer) -> AsyncIterator[OpenAICompatible]:
    made = OpenAICompatible(base_url=server.url, model="fake", api_key=KEY)
    yield made
    await made.close()


async def test_it_returns_the_exact_bytes_and_tells_the_pieces_as_they_come(server, provider):
    server.reply = answer(HELLO)
    heard: list[str] = []
    raw = await provider.send(REQUEST, on_text=heard.append)
    assert raw == RawAnswer(body=HELLO, status=200, content_type="text/event-stream")
    assert heard == ["hel", "lo"]


async def test_it_is_heard_before_the_stream_is_over(server, provider):
    server.reply = then_silence(sse(chunk("first")))
    first = asyncio.Event()
    asking = asyncio.ensure_future(provider.send(REQUEST, on_text=lambda _: first.set()))
    await asyncio.wait_for(first.wait(), 10)
    assert not asking.done()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_cancelled_request_hangs_up(server, provider):
    server.reply = then_silence(sse(chunk("first")))
    first = asyncio.Event()
    asking = asyncio.ensure_future(provider.send(REQUEST, on_text=lambda _: first.set()))
    await asyncio.wait_for(first.wait(), 10)
    asking.cancel()
    await asyncio.wait_for(server.hung_up.wait(), 10)


async def test_it_reads_text_model_finish_reason_and_usage_of_a_stream(server, provider):
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    tail = json.dumps({"model": "fake-1", "choices": [], "usage": usage}).encode()
    server.reply = answer(sse(chunk("hi"), chunk("", finish="length"), tail, done=True))
    read = provider.read(await provider.send(REQUEST))
    assert (read.text, read.finish_reason, read.model) == ("hi", "length", "fake-1")
    assert read.usage == Usage(input_tokens=12, output_tokens=3, cost_usd=None)


async def test_unknown_usage_is_none_and_not_zero(server, provider):
    server.reply = answer(HELLO)
    assert provider.read(await provider.send(REQUEST)).usage == Usage()


async def test_a_server_that_does_not_stream_is_understood_and_heard_at_the_end(server, provider):
    server.reply = answer(completion("whole"), content_type="application/json")
    heard: list[str] = []
    read = provider.read(await provider.send(REQUEST, on_text=heard.append))
    assert (read.text, heard) == ("whole", ["whole"])


async def test_characters_split_between_packets_arrive_whole(server, provider):
    wire = sse(chunk("").replace(b"{}", '{"content": "駅伝🏃"}'.encode()), done=True)
    server.reply = in_pieces(*(wire[i : i + 1] for i in range(len(wire))))
    heard: list[str] = []
    raw = await provider.send(REQUEST, on_text=heard.append)
    assert (raw.body, heard) == (wire, ["駅伝🏃"])


async def test_nul_and_lone_surrogates_stay_in_the_raw_bytes_and_not_in_the_text(server, provider):
    server.reply = answer(sse(chunk("a\0b\ud800c", finish="stop"), done=True))
    heard: list[str] = []
    raw = await provider.send(REQUEST, on_text=heard.append)
    assert b"\\u0000" in raw.body
    assert provider.read(raw).text == "a\ufffdb\ufffdc" == heard[0]


async def test_the_request_carries_messages_seed_limits_and_key(server, provider):
    await provider.send(REQUEST)
    [received] = server.requests
    assert received.path == "/v1/chat/completions"
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.json == {
        "model": "fake",
        "messages": [{"role": "user", "content": "say hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 1024,
        "temperature": 0.7,
        "seed": 7,
    }


async def test_without_a_key_nothing_of_the_environment_is_sent(server, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "not-for-strangers")
    provider = OpenAICompatible(base_url=server.url, model="fake")
    await provider.send(REQUEST)
    await provider.close()
    [received] = server.requests
    assert "authorization" not in received.headers
    assert not [v for v in received.headers.values() if "not-for-strangers" in v]


async def test_a_proxy_in_the_environment_is_not_used_for_loopback(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    provider = OpenAICompatible(base_url=server.url, model="fake")
    assert (await provider.send(REQUEST)).status == 200
    await provider.close()


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_busy_servers_are_busy_and_retry_after_is_passed_on(server, provider, status):
    body = b'{"error": {"message": "slow down"}}'
    server.reply = answer(body, status=status, headers={"Retry-After": "17"})
    with pytest.raises(ModelBusy, match="slow down") as caught:
        await provider.send(REQUEST)
    assert caught.value.retry_after == 17
    assert server.url in caught.value.message


@pytest.mark.parametrize("status", [500, 502, 504, 408])
async def test_a_failing_server_is_unavailable_and_asked_only_once(server, provider, status):
    server.reply = answer(b"<h1>oops</h1>", status=status, content_type="text/html")
    with pytest.raises(ModelUnavailable, match=str(status)) as caught:
        await provider.send(REQUEST)
    assert caught.value.retryable
    assert server.url in caught.value.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_refusal_speaks_the_providers_words_without_the_key(server, provider, status):
    said = {"error": {"message": f"Incorrect API key provided: {KEY}, sorry"}}
    server.reply = answer(json.dumps(said).encode(), status=status)
    with pytest.raises(ModelRefused, match="Incorrect API key provided") as caught:
        await provider.send(REQUEST)
    assert not caught.value.retryable
    assert KEY not in caught.value.message


async def test_an_empty_account_is_refused_although_it_comes_as_429(server, provider):
    error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
    server.reply = answer(json.dumps({"error": error}).encode(), status=429)
    with pytest.raises(ModelRefused, match="quota"):
        await provider.send(REQUEST)


async def test_a_redirect_is_named_and_not_followed(server, provider):
    server.reply = answer(b"", status=307, headers={"Location": "http://elsewhere.test/v1"})
    with pytest.raises(ModelRefused, match=r"elsewhere\.test"):
        await provider.send(REQUEST)
    assert len(server.requests) == 1


async def test_a_refused_connection_says_which_address():
    with socket.socket() as bound:  # bound and not listening: nobody else can take the port
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        provider = OpenAICompatible(base_url=url, model="fake")
        with pytest.raises(ModelUnavailable, match="cannot be reached") as caught:
            await provider.send(REQUEST)
        await provider.close()
    assert url in caught.value.message


@pytest.mark.parametrize("reply", [nothing, then_silence(sse(chunk("half")))])
async def test_a_silent_server_is_given_up(server, reply):
    server.reply = reply
    provider = OpenAICompatible(base_url=server.url, model="fake", silence=0.2)
    with pytest.raises(ModelUnavailable, match=r"silent for 0\.2 s"):
        await provider.send(REQUEST)
    await provider.close()


async def test_a_stream_without_its_end_was_cut(server, provider):
    server.reply = answer(sse(chunk("half of")))
    with pytest.raises(ModelUnavailable, match="was cut after"):
        await provider.send(REQUEST)


async def test_a_stream_that_finished_without_saying_done_is_complete(server, provider):
    server.reply = answer(sse(chunk("all", finish="stop")))
    assert provider.read(await provider.send(REQUEST)).text == "all"


@pytest.mark.parametrize("reply", [slam, answer(completion("half")[:20], claims=500)])
async def test_a_connection_that_breaks_is_unavailable(server, provider, reply):
    server.reply = reply
    with pytest.raises(ModelUnavailable, match="broke"):
        await provider.send(REQUEST)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, ModelUnavailable), ("server_error", ModelUnavailable), (429, ModelBusy)],
)
async def test_an_error_in_the_middle_of_a_stream_is_an_error(server, provider, code, expected):
    event = json.dumps({"error": {"message": "out of memory", "code": code}}).encode()
    server.reply = answer(sse(chunk("half"), event, done=True))
    with pytest.raises(expected, match="out of memory"):
        await provider.send(REQUEST)


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"<!doctype html><title>Sign in</title>", "text/html", "Sign in"),
        (b"", "application/json", "empty"),
        (completion("long enough")[:-9], "application/json", "not complete JSON"),
        (b"[1, 2]", "application/json", "not an object"),
        (b'{"choices": []}', "application/json", "no choices"),
        (b'{"detail": "Not Found"}', "application/json", "no choices"),
    ],
)
async def test_strange_answers_are_returned_for_the_ledger_and_refused_by_reading(
    server, provider, body, content_type, says
):
    server.reply = answer(body, content_type=content_type)
    heard: list[str] = []
    raw = await provider.send(REQUEST, on_text=heard.append)
    assert (raw.body, heard) == (body, [])
    with pytest.raises(AnswerInvalid, match=says):
        provider.read(raw)


async def test_an_answer_without_end_is_given_up_at_the_limit(server):
    server.reply = answer(sse(*(chunk("x" * 1000) for _ in range(100))))
    provider = OpenAICompatible(base_url=server.url, model="fake", max_bytes=20_000)
    with pytest.raises(AnswerInvalid, match="longer than 20,000 bytes"):
        await provider.send(REQUEST)
    await provider.close()


async def test_it_can_be_used_again_after_close(server, provider):
    await provider.send(REQUEST)
    await provider.close()
    await provider.close()
    assert (await provider.send(REQUEST)).status == 200


async def test_it_lists_models_in_the_servers_order(server, provider):
    listed = {"object": "list", "data": [{"id": "b"}, {"id": "a"}, {"nope": 1}]}
    server.reply = answer(json.dumps(listed).encode(), content_type="application/json")
    assert await provider.models() == ["b", "a"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"data": 1}'])
async def test_what_is_not_a_list_of_models_is_said_to_be_none(server, provider, body):
    server.reply = answer(body, content_type="application/json")
    with pytest.raises(AnswerInvalid, match="not a list of models"):
        await provider.models()


def test_it_is_a_provider_by_its_types():
    provider: Provider = OpenAICompatible(base_url="http://localhost/v1/", model="m", name="x")
    assert (provider.name, provider.model) == ("x", "m")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "host:8000/v1",
        "http://",
        "http://host:99999/v1",
        "https://host/v1?key=secret",
        "https://user:secret@host/v1",
        "http://[broken/v1",
    ],
)
def test_a_base_url_that_is_none_is_refused_without_showing_secrets(url):
    with pytest.raises(SettingsError, match="base URL") as caught:
        checked_url(url)
    assert "secret" not in caught.value.message


def test_a_cost_that_the_server_states_is_believed_before_the_price_list():
    provider = OpenAICompatible(base_url="https://api.perplexity.ai", model="sonar")
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "cost": {"total_cost": 0.006}}
    raw = RawAnswer(body=completion("hi", usage=usage), status=200)
    assert provider.read(raw).usage.cost_usd == 0.006
