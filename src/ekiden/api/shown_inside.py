"""The inside of a session as callers are shown it. Durations in seconds, shares from 0 to 1."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Self

from pydantic import Field

from ekiden.api.shown import Shown
from ekiden.core import timing
from ekiden.core.attempt_diff import Difference
from ekiden.core.records import CallInside
from ekiden.core.sentences import of_session
from ekiden.core.timing import Kind


class SegmentShown(Shown):
    """A stretch of the critical path."""

    kind: Kind
    begin: datetime
    end: datetime
    seconds: float
    phase: int
    generation: int
    step: str
    task_id: int
    attempt: int | None


class SourceTime(Shown):
    """What the calls to one model or source took."""

    name: str = Field(description="provider:model")
    seconds: float
    calls: int


class StepTimeShown(Shown):
    """What one step had of the critical path."""

    phase: int
    generation: int
    step: str
    tasks: int
    task_id: int = Field(description="the task on the path: the one that ended last")
    attempts: int = Field(description="of all its tasks")
    repeated: int
    machine_s: float
    share: float = Field(description="of the session's machine time")
    waiting_s: float
    human_s: float
    slowest_source: SourceTime | None

    @classmethod
    def of(cls, step: timing.StepTime) -> Self:
        """Show a step."""
        slow = step.slowest_source
        return cls(
            phase=step.phase,
            generation=step.generation,
            step=step.step,
            tasks=step.tasks,
            task_id=step.task_id,
            attempts=step.attempts,
            repeated=step.repeated,
            machine_s=round(step.machine, 4),
            share=round(step.share, 4),
            waiting_s=round(
                step.seconds.get(Kind.QUEUE, 0.0) + step.seconds.get(Kind.BACKOFF, 0.0), 4
            ),
            human_s=round(step.seconds.get(Kind.HUMAN, 0.0), 4),
            slowest_source=None
            if slow is None
            else SourceTime(name=slow[0], seconds=round(slow[1], 4), calls=slow[2]),
        )


class TimingShown(Shown):
    """Where the time of a session went."""

    session_id: str
    machine_s: float = Field(description="in attempts: run and repeated")
    seconds: dict[Kind, float] = Field(description="of the critical path, by what they are")
    steps: list[StepTimeShown] = Field(description="in running order")
    path: list[SegmentShown] = Field(description="the critical path")
    sentences: dict[str, list[str]] = Field(description="the same in words, by language")

    @classmethod
    def of(cls, session_id: str, found: timing.Timing) -> Self:
        """Show a timing."""
        return cls(
            session_id=session_id,
            machine_s=round(found.machine, 4),
            seconds={kind: round(s, 4) for kind, s in found.seconds.items()},
            steps=[StepTimeShown.of(step) for step in found.steps],
            path=[SegmentShown.model_validate(s) for s in found.path],
            sentences=of_session(found),
        )


class CallInsideShown(Shown):
    """One call: what was asked, and what came back."""

    id: int
    task_id: int
    phase: int
    step: str
    item: int
    generation: int
    attempt: int
    number: int
    kind: str
    provider: str
    model: str
    outcome: str
    error: str | None = Field(description="why there is no answer, or why it is of no use")
    http_status: int | None = Field(
        description="of the answer, or of one that broke off; 0 when not even its head came"
    )
    content_type: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    started_at: datetime
    finished_at: datetime
    seconds: float
    first_token_s: float | None = Field(description="until the first text, when it was streamed")
    request_id: str | None = Field(description="the provider's own, for its support")
    price_version: str | None = Field(description="which price list the cost is from")
    finish_reason: str | None
    citations: Any = Field(description="what the provider says it read: url, title, published")
    request: Any = Field(description="messages, schema and parameters, as they were asked")
    request_hash: str = Field(description="SHA-256, hex: equal requests have equal hashes")
    answer_bytes: int | None = Field(description="its length; all of it is at .../answer")
    answer: str | None = Field(description="its beginning, as text")

    @classmethod
    def of(cls, call: CallInside) -> Self:
        """Show a call."""
        fields = {
            name: getattr(call, name)
            for name in cls.model_fields
            if name not in {"seconds", "first_token_s", "request", "answer"}
        }
        return cls(
            **fields,
            seconds=round((call.finished_at - call.started_at).total_seconds(), 4),
            first_token_s=None
            if call.first_token is None
            else round(call.first_token.total_seconds(), 4),
            request=_json_or_text(call.request),
            answer=None if call.answer is None else call.answer.decode("utf-8", "replace"),
        )


def _json_or_text(data: bytes) -> Any:
    text = data.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class DifferenceShown(Shown):
    """The calls of two attempts with one number."""

    number: int
    before: int | None = Field(description="the call's id")
    after: int | None
    outcomes: list[str | None]
    request: list[str] = Field(description="a unified diff; empty when nothing differs")
    answer: list[str]


class DifferenceList(Shown):
    """What differs between two attempts."""

    task_id: int
    before: int = Field(description="an attempt's number")
    after: int
    outcomes: list[str]
    errors: list[str | None]
    calls: list[DifferenceShown]

    @staticmethod
    def line(found: Difference) -> DifferenceShown:
        """Show one pair of calls."""
        pair = (found.before, found.after)
        return DifferenceShown(
            number=found.number,
            before=found.before.id if found.before else None,
            after=found.after.id if found.after else None,
            outcomes=[call.outcome if call else None for call in pair],
            request=found.request,
            answer=found.answer,
        )
