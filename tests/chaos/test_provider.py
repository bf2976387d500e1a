"""The scripted provider, asked by the real client."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from pydantic import TypeAdapter

from chaos import answers, flows
from chaos.billing import asks_of
from chaos.house import Provider
from ekiden.errors import AnswerInvalid, ModelBusy, ModelError, ModelUnavailable
from ekiden.providers.openai_compatible import OpenAICompatible
from ekiden.providers.protocol import Message, ModelRequest

PLAN = TypeAdapter(flows.Plan).json_schema()


def request(text: str = "plan", schema: Any = PLAN) -> ModelRequest:
    question = f"[key k] [place 1/T/0/1] {text}"
    return ModelRequest(
        messages=(Message(role="user", content=question),), schema=schema, seed=1000
    )


@pytest_asyncio.fixture
async def model(provider: Provider) -> AsyncIterator[OpenAICompatible]:
    client = OpenAICompatible(base_url=provider.url, model="chaos-1", silence=20)
    yield client
    await client.close()


async def test_an_answer_fits_the_schema_and_is_the_same_each_time(
    model: OpenAICompatible,
) -> None:
    pieces: list[str] = []
    first = model.read(await model.send(request(), on_text=pieces.append))
    second = model.read(await model.send(request()))
    assert first.text == second.text == "".join(pieces)
    assert len(pieces) > 3, "it came in pieces"
    jsonschema.validate(json.loads(first.text), PLAN)
    assert first.usage.output_tokens
    other = model.read(await model.send(request("another plan")))
    assert other.text != first.text


async def test_the_judge_knows_every_answer_beforehand(model: OpenAICompatible) -> None:
    asked = request()
    answer = model.read(await model.send(asked))
    assert answer.text == answers.answer(7, asked.messages[0].content, PLAN)
    plain = model.read(await model.send(request(schema=None)))
    assert answers.is_signed(plain.text)
    assert not answers.is_signed(plain.text.replace("e", "a", 1))


EVERYTHING = {
    "type": "object",
    "required": ["text", "one", "few", "some", "yes", "none", "fixed", "inner", "either"],
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "minLength": 30, "maxLength": 31},
        "one": {"enum": ["a", "b"]},
        "few": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 6},
        "some": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3},
        "yes": {"type": "boolean"},
        "none": {"type": "null"},
        "fixed": {"const": 7},
        "inner": {"$ref": "#/$defs/Inner"},
        "either": {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]},
    },
    "$defs": {"Inner": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


@pytest.mark.parametrize("number", range(20))
def test_schemas_are_filled(number: int) -> None:
    jsonschema.validate(json.loads(answers.answer(1, f"{number}", EVERYTHING)), EVERYTHING)


@pytest.mark.parametrize(
    ("fault", "error", "billed"),
    [
        ("reset_at_99", ModelUnavailable, True),
        ("truncated_stream", ModelUnavailable, True),
        ("busy429", ModelBusy, False),
        ("busy429_retry_after", ModelBusy, False),
        ("error5xx", ModelError, False),
        ("html200", AnswerInvalid, False),
    ],
)
async def test_each_fault_is_what_it_is_called_and_is_in_the_log(
    provider: Provider, model: OpenAICompatible, fault: str, error: type, billed: bool
) -> None:
    provider.control(**{fault: 1.0})
    with pytest.raises(error) as raised:
        model.read(await model.send(request()))
    if fault.startswith("busy429"):
        assert raised.value.retry_after == (0.25 if fault == "busy429_retry_after" else None)
    [ask] = asks_of(provider.entries(), {"k"})
    assert (ask.behaviour, ask.billed, ask.sent) == (fault, billed, False)
    provider.control(heal=True)
    model.read(await model.send(request()))
    whole = asks_of(provider.entries(), {"k"})[1]
    assert (whole.behaviour, whole.billed, whole.sent) == ("ok", True, True)


async def test_99_percent_of_the_answer_come_before_the_reset(
    provider: Provider, model: OpenAICompatible
) -> None:
    provider.control(reset_at_99=1.0)
    pieces: list[str] = []
    with pytest.raises(ModelUnavailable, match="broke"):
        await model.send(request(schema=None), on_text=pieces.append)
    asked = request(schema=None).messages[0].content
    assert "".join(pieces) == answers.answer(7, asked, None)


async def test_a_stalled_answer_stays_half_until_its_client_leaves(provider: Provider) -> None:
    provider.control(stall=1.0)
    impatient = OpenAICompatible(base_url=provider.url, model="chaos-1", silence=0.3)
    pieces: list[str] = []
    with pytest.raises(ModelUnavailable):
        await impatient.send(request(schema=None), on_text=pieces.append)
    await impatient.close()
    assert 0 < len("".join(pieces)) < len(answers.answer(7, "", None))


async def test_garbage_never_passes_for_an_answer(
    provider: Provider, model: OpenAICompatible
) -> None:
    provider.control(garbage=1.0)
    adapter = TypeAdapter(flows.Plan)
    for _ in range(8):
        answer = model.read(await model.send(request()))
        with pytest.raises(ValueError, match="validation error"):
            adapter.validate_json(answer.text)
        assert not answers.is_signed(answer.text)


async def test_an_answer_can_be_fetched_again_by_its_id(
    provider: Provider, model: OpenAICompatible
) -> None:
    answer = model.read(await model.send(request()))
    [ask] = asks_of(provider.entries(), {"k"})

    def fetch() -> Any:
        with urllib.request.urlopen(f"{provider.url}/chat/completions/{ask.id}") as found:
            return json.load(found)

    again = await asyncio.to_thread(fetch)
    assert again["id"] == ask.id
    assert again["choices"][0]["message"]["content"] == answer.text
    assert [e["event"] for e in provider.entries()] == ["asked", "sent", "fetched"]
    provider.control(fetchable=False)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        await asyncio.to_thread(fetch)


async def test_faults_come_in_the_order_that_the_seed_says(
    provider: Provider, model: OpenAICompatible
) -> None:
    async def drawn() -> list[str]:
        provider.stop()
        provider.log.unlink()
        provider.start()
        provider.control(busy429=0.5)
        for _ in range(12):
            with suppress(ModelBusy):
                await model.send(request())
        return [ask.behaviour for ask in asks_of(provider.entries(), {"k"})]

    first = await drawn()
    assert {"ok", "busy429"} == set(first)
    assert await drawn() == first


async def test_the_log_has_the_request_before_the_client_has_the_answer(
    provider: Provider, model: OpenAICompatible
) -> None:
    seen: list[int] = []
    provider.control(piece_s=0.01)
    await model.send(request(), on_text=lambda _: seen.append(len(provider.entries())))
    assert seen[0] == 1, "asked, not yet sent"
