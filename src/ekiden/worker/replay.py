"""Runs the steps of a recorded session again with today's code, and says what would be different.

Each step runs by itself, on the inputs that are stored: a difference in one does not hide those
after it. Nothing is asked of anyone and nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ekiden.core.attempt_diff import difference
from ekiden.core.model import ClaimedTask, Feedback, Options, StepKind, TaskState
from ekiden.core.recording import RecordedTask, Recording
from ekiden.errors import EkidenError
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.models_by_place import Models
from ekiden.providers.protocol import Provider
from ekiden.search.protocol import SearchEngine
from ekiden.worker.executor import Executor, Finished, describe
from ekiden.worker.leg import Leg, Run
from ekiden.worker.recorded import (
    Answers,
    Asked,
    Reader,
    RecordedProvider,
    RecordedSearch,
    Unwritten,
    WouldAsk,
)


class Verdict(StrEnum):
    """What became of a step when it ran again."""

    SAME = "same"
    ASKS = "asks something else"
    UNASKED = "asks less"
    RESULT = "has another result"
    ITEMS = "fans out to other items"
    RAISES = "fails"
    HEALS = "no longer fails"
    GONE = "is not in today's flow"
    SKIPPED = "was not replayed"


@dataclass(slots=True, kw_only=True)
class Replayed:
    """One task that ran again."""

    task_id: int
    phase: int
    step: str
    item: int
    verdicts: list[Verdict] = field(default_factory=list)
    calls: int = 0  # recorded ones that were used
    details: list[str] = field(default_factory=list)  # for people, most of it as a diff

    @property
    def differs(self) -> bool:
        """Whether anything is not as it was."""
        return any(v not in {Verdict.SAME, Verdict.SKIPPED} for v in self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A step that ran once on stored inputs."""

    result: str | None  # JSON text
    items: list[str] | None  # JSON texts: what a THINK fans out to
    error: BaseException | None
    answers: Answers


async def replay(recording: Recording, flow: CompiledFlow, read: Reader) -> list[Replayed]:
    """Run every step of a session again that has ended, in running order."""
    return [await _again(recording, flow, read, task) for task in recording.newest()]


async def try_step(
    recording: Recording,
    flow: CompiledFlow,
    read: Reader,
    task: RecordedTask,
    *,
    answers: Answers | None = None,
    provider: Provider | None = None,
    search: SearchEngine | None = None,
) -> Tried:
    """Run one step on what is stored, and write nothing.

    Args:
        recording: the session.
        flow: today's.
        read: understands recorded answers.
        task: which one.
        answers: what may be answered from the recording; None: all that its last attempt had.
        provider: answers the rest; None: the step ends there.
        search: the same for searches.

    Raises:
        EkidenError: an input of the step is not there yet.
    """
    if answers is None:
        calls = [c for c in recording.calls if c.task_id == task.id]
        answers = Answers(calls, task.attempt)
    executor = Executor(
        models=Models(RecordedProvider(answers, read, provider)),
        search=RecordedSearch(answers, search),
        ledger=Unwritten(),
    )
    leg = leg_of(recording, flow, task)
    try:
        done: Finished = await executor.run(_claimed(recording, task), leg)
    except Exception as error:  # noqa: BLE001 - whatever a flow raises is what is told
        return Tried(result=None, items=None, error=error, answers=answers)
    completion = done.completion
    return Tried(result=completion.result, items=completion.items, error=None, answers=answers)


def leg_of(recording: Recording, flow: CompiledFlow, task: RecordedTask) -> Leg:
    """Return what a step of the session is given.

    Raises:
        EkidenError: it is not there yet; the message says what is missing.
    """
    missing = [p for p in range(1, task.phase) if p not in recording.outputs]
    if missing:
        raise EkidenError(
            f"Phase {task.phase} needs the output of phase {missing[0]}, which is not there yet."
        )
    beside = [t for t in recording.newest() if t.phase == task.phase]
    plan = next((t.result for t in beside if t.step == StepKind.THINK), None)
    execute = [t for t in beside if t.step == StepKind.EXECUTE]
    if task.step != StepKind.THINK and plan is None:
        raise EkidenError(f"Phase {task.phase} {task.step} needs its THINK, which has no result.")
    if task.step == StepKind.INTEGRATE and any(
        t.result is None and t.status != TaskState.FAILED for t in execute
    ):
        raise EkidenError(f"Phase {task.phase} INTEGRATE needs its EXECUTE, which is not complete.")
    run = recording.run_of(task)
    return Leg(
        flow=flow,
        options=Options(),
        input=recording.input,
        phase=task.phase,
        generation=task.generation,
        outputs={p: text for p, text in recording.outputs.items() if p < task.phase},
        plan=plan,
        found=[t.result for t in execute if t.result is not None],
        run=Run(
            None if run.note is None else Feedback(note=run.note, previous=run.previous),
            None,  # the recording answers, whoever did then
            run.variables,
        ),
    )


def _claimed(recording: Recording, task: RecordedTask) -> ClaimedTask:
    return ClaimedTask(
        id=task.id,
        session_id=recording.session_id,
        flow_id=0,
        phase=task.phase,
        step=task.step,
        item=task.item,
        generation=task.generation,
        attempt=max(1, task.attempt),
        budget_from=0,
        request=task.item_input,
    )


async def _again(
    recording: Recording, flow: CompiledFlow, read: Reader, task: RecordedTask
) -> Replayed:
    found = Replayed(task_id=task.id, phase=task.phase, step=task.step, item=task.item)
    if task.status not in {TaskState.COMPLETED, TaskState.FAILED} or task.delivered:
        found.verdicts.append(Verdict.SKIPPED)
        found.details.append(
            "Its result came from outside." if task.delivered else f"It is {task.status}."
        )
        return found
    if task.phase > len(flow.phases) or task.step not in flow.kinds(task.phase):
        found.verdicts.append(Verdict.GONE)
        return found
    try:
        tried = await try_step(recording, flow, read, task)
    except EkidenError as error:
        found.verdicts.append(Verdict.SKIPPED)
        found.details.append(error.message)
        return found
    found.calls = tried.answers.taken
    for verdict, details in _differences(recording, task, tried):
        found.verdicts.append(verdict)
        found.details += details
    if not found.verdicts:
        found.verdicts.append(Verdict.SAME)
    return found


def _differences(
    recording: Recording, task: RecordedTask, tried: Tried
) -> Iterator[tuple[Verdict, list[str]]]:
    """Yield what is not as it was."""
    for asked in tried.answers.differing:
        yield Verdict.ASKS, asked_instead(asked)
    if tried.error is not None:
        if isinstance(tried.error, WouldAsk) and tried.answers.differing:
            return
        error = describe(tried.error)
        if task.status == TaskState.FAILED and error.kind == task.error_kind:
            return
        yield Verdict.RAISES, [error.message, *([f"It was: {task.error}"] if task.error else [])]
        return
    if unasked := tried.answers.unasked:
        yield Verdict.UNASKED, [f"{len(unasked)} of its calls would not be made."]
    if task.status == TaskState.FAILED:
        yield Verdict.HEALS, [f"It failed with: {task.error}"]
        return
    assert task.result is not None and tried.result is not None  # it is COMPLETED, and so are we
    if _value(task.result) != _value(tried.result):
        yield Verdict.RESULT, difference(task.result.encode(), tried.result.encode())
    items = [
        t.item_input
        for t in recording.newest()
        if (t.phase, t.step) == (task.phase, StepKind.EXECUTE) and t.item_input is not None
    ]
    if task.step == StepKind.THINK and (items or tried.items):
        then, now = [_value(i) for i in items], [_value(i) for i in tried.items or []]
        if then and then != now:
            yield Verdict.ITEMS, [f"{len(then)} items then, {len(now)} now."]


def asked_instead(asked: Asked) -> list[str]:
    """Show a request beside the one it stands for."""
    what = "asks the model" if asked.kind == "ask" else "searches"
    if asked.instead_of is None:
        return [f"It {what} once more than was recorded:", *difference(b"", asked.request)]
    return [f"It {what} something else:", *difference(asked.instead_of, asked.request)]


def _value(text: str) -> Any:
    return json.loads(text)
