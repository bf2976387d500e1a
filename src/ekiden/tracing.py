"""OpenTelemetry, when it is asked for: a session is a trace, attempts and calls are spans.

The trace's id is the session's, so whatever runs a step of it, on whatever machine, adds to the
same trace without a word to the others. Calls follow the semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/); what was asked and answered is not in them:
it is in the ledger, where access to it is guarded.

Off, this costs an attribute look-up a step.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from ekiden.core.model import CallOutcome, ClaimedTask
from ekiden.errors import SettingsError
from ekiden.redaction import redact
from ekiden.store.ledger import Call

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_tracer: Tracer | None = None


def set_up() -> bool:
    """Send traces to where the environment says, and return whether it says so.

    The variables are OpenTelemetry's own: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``
    and so on. ``OTEL_SDK_DISABLED=true`` leaves it off.

    Raises:
        SettingsError: it says so, and the extra is not installed.
    """
    asked = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if asked is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise SettingsError(
            f"{asked} is set, and traces need the extra 'otel': "
            "pip install '/path/to/ekiden[otel]', with the path of its checkout"
        ) from None
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "ekiden"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider)
    return True


def use(provider: TracerProvider | None) -> None:
    """Send spans to a provider; None turns it off."""
    global _tracer  # noqa: PLW0603 - set once, by the command that starts
    _tracer = None if provider is None else provider.get_tracer("ekiden")


class _Off:
    """A span while nobody traces."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def failed(self, kind: str, message: str) -> None:
        """Nobody hears it."""

    def ended(self, call: Call) -> None:
        """Nobody hears it."""


class _Span:
    """A span that is current between enter and exit."""

    def __init__(self, tracer: Tracer, name: str, **options: Any) -> None:
        self._current = tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **options
        )

    def __enter__(self) -> Self:
        self._span = self._current.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.failed(type(error).__name__, str(error))
        self._current.__exit__(kind, error, trace)

    def failed(self, kind: str, message: str) -> None:
        """Say that it went wrong."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR, redact(message)[:1000])

    def ended(self, call: Call) -> None:
        """Say what a call took, as far as it is known."""
        said: dict[str, Any] = {
            "gen_ai.response.model": call.model if call.kind == "ask" else None,
            "gen_ai.usage.input_tokens": call.input_tokens,
            "gen_ai.usage.output_tokens": call.output_tokens,
            "http.response.status_code": call.http_status or None,
            "ekiden.cost_usd": None if call.cost_usd is None else float(call.cost_usd),
            "ekiden.outcome": str(call.outcome),
        }
        self._span.set_attributes({k: v for k, v in said.items() if v is not None})
        if call.outcome != CallOutcome.ANSWERED:
            self.failed(str(call.outcome), call.error or "")


_OFF = _Off()


def attempt(task: ClaimedTask, flow: str) -> _Span | _Off:
    """Return the span of an attempt, to be entered where it runs."""
    if _tracer is None:
        return _OFF
    return _Span(
        _tracer,
        f"phase {task.phase} {task.step}",
        context=_session(task.session_id),
        attributes={
            "gen_ai.conversation.id": task.session_id,
            "ekiden.session": task.session_id,
            "ekiden.flow": flow,
            "ekiden.phase": task.phase,
            "ekiden.step": task.step,
            "ekiden.item": task.item,
            "ekiden.task": task.id,
            "ekiden.attempt": task.attempt,
        },
    )


def call(made: Call) -> _Span | _Off:
    """Return the span of a call, to be entered where it is made."""
    if _tracer is None:
        return _OFF
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    attributes: dict[str, Any] = {
        "gen_ai.conversation.id": made.session_id,
        "ekiden.task": made.task_id,
        "ekiden.attempt": made.attempt,
        "ekiden.call": made.number,
    }
    if made.kind == "ask":
        name = f"chat {made.model}"
        attributes |= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": made.provider,
            "gen_ai.request.model": made.model,
        }
    else:
        name = f"retrieval {made.model}"
        attributes |= {"gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": made.model}
    return _Span(_tracer, name, kind=SpanKind.CLIENT, attributes=attributes)


def _session(session_id: str) -> Any:
    """Return the context that puts a span into the session's trace."""
    from opentelemetry import trace  # noqa: PLC0415

    id_ = UUID(session_id)
    root = trace.SpanContext(
        trace_id=id_.int,
        span_id=id_.int & 0xFFFFFFFFFFFFFFFF or 1,
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(root))
