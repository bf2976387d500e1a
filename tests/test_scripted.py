from __future__ import annotations

import asyncio

import pytest

from ekiden.errors import AnswerInvalid, ModelBusy
from ekiden.providers.protocol import Message, ModelRequest, Provider
from tests.scripted import ScriptedProvider, read_log

REQUEST = ModelRequest(messages=(Message(role="user", content="hello"),))


async def test_it_is_a_provider_and_answers_what_the_function_says():
    provider: Provider = ScriptedProvider(lambda request: request.messages[0].content.upper())
    heard: list[str] = []
    answer = provider.read(await provider.send(REQUEST, on_text=heard.append))
    assert (answer.text, heard) == ("HELLO", ["HELLO"])


async def test_it_gives_the_answers_of_a_list_in_turn_and_raises_the_errors_among_them():
    provider = ScriptedProvider([ModelBusy(retry_after=3), "second"])
    with pytest.raises(ModelBusy):
        await provider.send(REQUEST)
    assert provider.read(await provider.send(REQUEST)).text == "second"
    assert [entry.number for entry in provider.log] == [1, 2]
    assert [entry.number for entry in provider.answered] == [2]
    with pytest.raises(AssertionError, match="fewer answers"):
        await provider.send(REQUEST)


async def test_a_request_at_the_gate_is_logged_and_not_answered():
    provider = ScriptedProvider(["late"], gate=asyncio.Event())
    asking = asyncio.ensure_future(provider.send(REQUEST))
    await provider.arrived.wait()
    assert (len(provider.log), provider.answered) == (1, [])
    assert provider.gate is not None
    provider.gate.set()
    assert (await asking).body == b"late"
    assert len(provider.answered) == 1


async def test_bytes_that_are_no_text_are_sent_and_refused_by_reading():
    provider = ScriptedProvider([b"\xff\xfe"])
    with pytest.raises(AnswerInvalid):
        provider.read(await provider.send(REQUEST))


async def test_the_log_file_gathers_what_several_providers_answered(tmp_path):
    path = tmp_path / "answered.jsonl"
    assert read_log(path) == []
    for name in ("a", "b"):
        await ScriptedProvider([name], log_file=path).send(REQUEST)
    assert [entry["said"] for entry in read_log(path)] == ["a", "b"]
