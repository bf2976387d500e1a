"""A session is a trace: its attempts and their calls, read back from memory and from the wire."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ekiden import Context, Flow, Phase, tracing
from ekiden.errors import ModelUnavailable, SettingsError
from ekiden.flows.registry import CompiledFlow
from ekiden.search.protocol import Source
from tests.providers.fake_server import FakeServer
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, Count, House, Word, working


class Library:
    name = "library"

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        return []


class Look(Phase):
    """Look"""

    async def think(self, ctx: Context) -> str:
        await ctx.search("tea")
        return (await ctx.ask("say it", Word)).word

    async def integrate(self, ctx: Context, plan: str) -> str:
        return plan


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


async def run(house: House) -> str:
    flow = CompiledFlow(Flow("look", input=Count, phases=[Look]))
    key = "sk-proj-abcdEFGH1234567890abcd"
    provider = ScriptedProvider([ModelUnavailable(f"refused {key}"), '{"word": "tea"}'])
    async with working(house.dsn, flow, provider=provider, search=Library()):
        session = await house.begin("look", QUICK)
        await house.until(session)
    return session


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [s for s in spans.get_finished_spans() if s.name == name]


async def test_a_session_is_one_trace_of_attempts_and_calls(
    house: House, spans: InMemorySpanExporter
):
    session = await run(house)
    found = spans.get_finished_spans()
    assert {s.context.trace_id for s in found if s.context} == {UUID(session).int}
    first, second = named(spans, "phase 1 THINK")
    assert [dict(s.attributes or {})["ekiden.attempt"] for s in (first, second)] == [1, 2]
    assert (first.attributes or {})["ekiden.flow"] == "look"
    assert first.status.status_code is StatusCode.ERROR
    assert (first.attributes or {})["error.type"] == "ModelUnavailable"
    assert second.status.status_code is not StatusCode.ERROR
    assert len(named(spans, "phase 1 INTEGRATE")) == 1

    broken, answered = named(spans, "chat scripted-1")
    assert broken.parent and first.context and broken.parent.span_id == first.context.span_id
    assert broken.kind is SpanKind.CLIENT
    assert broken.status.status_code is StatusCode.ERROR
    said = dict(answered.attributes or {})
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "scripted"
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "scripted-1"
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (10, 2)
    assert said["gen_ai.conversation.id"] == session
    (search,) = named(spans, "retrieval library")  # the second attempt has it from the ledger
    assert (search.attributes or {})["gen_ai.operation.name"] == "retrieval"


async def test_no_prompt_no_answer_and_no_secret_is_in_a_trace(
    house: House, spans: InMemorySpanExporter
):
    await run(house)
    told = "".join(s.to_json() for s in spans.get_finished_spans())
    assert "refused [redacted]" in told
    assert not any(word in told for word in ("say it", '"tea"', "sk-proj"))


async def test_the_environment_turns_it_on(house: House, monkeypatch: pytest.MonkeyPatch):
    async with FakeServer() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.removesuffix("/v1"))
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        assert not tracing.set_up()
        monkeypatch.delenv("OTEL_SDK_DISABLED")
        providers: list[TracerProvider] = []
        use = tracing.use
        monkeypatch.setattr(tracing, "use", lambda p: (providers.append(p), use(p)))
        assert tracing.set_up()
        try:
            await run(house)
            async with asyncio.timeout(20):
                while not collector.requests:
                    await asyncio.sleep(0.02)
        finally:
            use(None)
            await asyncio.to_thread(providers[0].shutdown)
        # A batch leaves every 50 ms: which span is in which is nobody's promise.
        assert {request.path for request in collector.requests} == {"/v1/traces"}
        assert b"phase 1 THINK" in b"".join(request.body for request in collector.requests)


def test_without_the_extra_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"extra 'otel': pip install '\S+\[otel\]'"):
        tracing.set_up()
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert not tracing.set_up()
