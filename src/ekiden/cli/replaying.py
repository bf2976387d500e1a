"""What ``ekiden sessions replay`` and ``ekiden step`` do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import typer

from ekiden.cli import exits
from ekiden.cli.compose import Database, open_parts, open_store, run_async
from ekiden.cli.words import clean, one_line, readable, to_json
from ekiden.config import Settings, load_settings
from ekiden.core import recording as files
from ekiden.core.attempt_diff import difference
from ekiden.core.recording import RecordedTask, Recording
from ekiden.errors import EkidenError, NotFound
from ekiden.flows.registry import CompiledFlow, find_flow, load_flows
from ekiden.providers.protocol import Answer, RawAnswer
from ekiden.worker.executor import describe
from ekiden.worker.recorded import Answers
from ekiden.worker.replay import Replayed, Tried, Verdict, asked_instead, try_step
from ekiden.worker.replay import replay as run_again

_SHOWN = 40  # lines of one difference


def replay(session: str, references: Sequence[str], *, machine: bool) -> int:
    """Run a session again on its recording; return the exit code."""
    flows = load_flows(references)
    recording = _from_file(session)
    if recording is None:
        recording = _from_database(session)
    flow = find_flow(flows, recording.flow)
    found = run_async(run_again(recording, flow, read_recorded))
    differs = any(r.differs for r in found)
    if machine:
        typer.echo(to_json(_as_json(recording, flow, found)))
    else:
        _tell(recording, flow, found)
    return exits.FAILED if differs else exits.COMPLETED


def step(
    session: str,
    phase: int,
    kind: str,
    *,
    item: int,
    fresh: bool,
    references: Sequence[str],
    machine: bool,
) -> int:
    """Try one step; return the exit code."""
    flows = load_flows(references)
    settings = load_settings()

    async def main(database: Database) -> tuple[RecordedTask, Tried, str]:
        async with AsyncExitStack() as stack:
            pool, sessions = await stack.enter_async_context(open_store(database))
            recording = _from_file(session)
            if recording is None:
                recording = Recording.of(await sessions.recordings.take(session))
            flow = find_flow(flows, recording.flow)
            task = _task(recording, flow, phase, kind, item)
            parts = await stack.enter_async_context(open_parts(settings, pool, database.dsn()))
            provider = parts.models.of(
                flow=flow.name,
                phase=task.phase,
                step=task.step,
                wanted=recording.wanted_model(task),
            )
            tried = await try_step(
                recording,
                flow,
                read_recorded,
                task,
                answers=Answers([], task.attempt) if fresh else None,
                provider=provider,
                search=parts.search,
            )
            return task, tried, f"{provider.name}:{provider.model}"

    with Database(settings) as database:
        task, tried, model = run_async(main(database))
    if machine:
        typer.echo(to_json(_tried_as_json(task, tried)))
    else:
        _tell_step(task, tried, model)
    return exits.COMPLETED if tried.error is None else exits.FAILED


def read_recorded(provider: str, model: str, raw: RawAnswer) -> Answer:
    """Understand a recorded answer without asking anyone: no connection is opened for that."""
    from ekiden.providers.openai_compatible import OpenAICompatible

    nowhere = "http://127.0.0.1:9"  # the port that discards; it is not spoken to
    return OpenAICompatible(base_url=nowhere, model=model, name=provider).read(raw)


def _from_file(session: str) -> Recording | None:
    """Return the recording in a file; None when the word is no file's name."""
    path = Path(session)
    if not path.is_file():
        return None
    try:
        return Recording.of(files.read(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise EkidenError(f"{path} cannot be read: {error}") from None


def _from_database(session: str) -> Recording:
    settings: Settings = load_settings()

    async def main(database: Database) -> Recording:
        async with open_store(database) as (_, sessions):
            return Recording.of(await sessions.recordings.take(session))

    with Database(settings) as database:
        return run_async(main(database))


def _task(
    recording: Recording, flow: CompiledFlow, phase: int, kind: str, item: int
) -> RecordedTask:
    """Return the task that stands for a step.

    Raises:
        NotFound: the flow has no such step, or the session has not come to it.
    """
    if phase > len(flow.phases) or kind not in flow.kinds(phase):
        has = ", ".join(f"{p.number} {step}" for p in flow.phases for step in flow.kinds(p.number))
        raise NotFound(f"The flow {flow.name} has no step {phase} {kind}. It has: {has}.")
    here = [t for t in recording.newest() if (t.phase, t.step) == (phase, kind)]
    for task in here:
        if task.item == item:
            return task
    if here:
        raise NotFound(f"Phase {phase} {kind} has items 0 to {len(here) - 1}, not {item}.")
    raise NotFound(f"The session has not come to phase {phase} {kind} yet.")


def _as_json(recording: Recording, flow: CompiledFlow, found: list[Replayed]) -> dict[str, Any]:
    return {
        "sessionId": recording.session_id,
        "flow": recording.flow,
        "sameVersion": recording.flow_version == flow.version,
        "differs": any(r.differs for r in found),
        "steps": [
            {
                "taskId": r.task_id,
                "phase": r.phase,
                "step": r.step,
                "item": r.item,
                "verdicts": r.verdicts,
                "calls": r.calls,
                "details": r.details,
            }
            for r in found
        ],
    }


def _tell(recording: Recording, flow: CompiledFlow, found: list[Replayed]) -> None:
    typer.echo(
        f"{one_line(recording.title)}  ({recording.flow}, {recording.status}, "
        f"{len(recording.calls)} recorded calls)"
    )
    if recording.flow_version != flow.version:
        typer.echo("Today's flow has another version: a step, a result or an input has changed.")
    for step in found:
        item = f" item {step.item}" if step.item else ""
        what = ", ".join(dict.fromkeys(step.verdicts))
        typer.echo(f"  {step.phase} {step.step}{item}: {what}  ({step.calls} calls)")
        if step.differs or Verdict.SKIPPED in step.verdicts:
            _details(step.details)
    changed = sum(r.differs for r in found)
    typer.echo(
        f"{changed} of {len(found)} steps would be different."
        if changed
        else f"All {len(found)} steps are as they were."
    )


def _details(lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        typer.echo(f"      {clean(line)}")
    if len(lines) > _SHOWN:
        typer.echo(f"      … {len(lines) - _SHOWN} more lines (--json has them)")


def _tried_as_json(task: RecordedTask, tried: Tried) -> dict[str, Any]:
    error = None if tried.error is None else describe(tried.error)
    return {
        "taskId": task.id,
        "phase": task.phase,
        "step": task.step,
        "item": task.item,
        "result": None if tried.result is None else json.loads(tried.result),
        "error": None if error is None else {"kind": error.kind, "message": error.message},
        "answersTaken": tried.answers.taken,
        "askedAnew": len(tried.answers.differing),
        "difference": _changed(task, tried),
    }


def _changed(task: RecordedTask, tried: Tried) -> list[str]:
    if task.result is None or tried.result is None:
        return []
    return difference(task.result.encode(), tried.result.encode())


def _tell_step(task: RecordedTask, tried: Tried, model: str) -> None:
    typer.echo(
        f"{task.phase} {task.step}: {tried.answers.taken} calls answered from the ledger, "
        f"{len(tried.answers.differing)} asked anew of {model}"
    )
    for asked in tried.answers.differing:
        if asked.instead_of is not None:
            _details(asked_instead(asked))
    if tried.error is not None:
        error = describe(tried.error)
        typer.echo(f"It failed: {clean(error.message)}", err=True)
        return
    assert tried.result is not None
    for line in readable(json.loads(tried.result)):
        typer.echo(f"  {line}")
    if changed := _changed(task, tried):
        typer.echo("Against the result that is stored:")
        _details(changed)
    elif task.result is not None:
        typer.echo("The result that is stored is the same.")
