"""What ``ekiden sessions`` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import typer

from ekiden.cli import exits
from ekiden.cli.compose import Database, actor, open_store, run_async
from ekiden.cli.sessions import Format
from ekiden.cli.ways import going_on, ways_on
from ekiden.cli.words import ago, camel, clean, one_line, readable, table, to_json
from ekiden.config import load_settings
from ekiden.core import recording
from ekiden.core.budget import Spent
from ekiden.core.model import SessionState
from ekiden.core.records import DraftLine, Revision
from ekiden.errors import EkidenError
from ekiden.store.sessions import Sessions

T = TypeVar("T")


def show_list(
    *, status: str | None, flow: str | None, archived: bool, limit: int, machine: bool
) -> None:
    """Print a table of sessions."""
    if status is not None:
        status = status.upper()
        if status not in set(SessionState):
            exits.usage(f"--status {status}: must be one of {', '.join(SessionState)}")
    found = with_sessions(
        lambda s: s.find(status=status, flow=flow, archived=archived, limit=limit + 1)
    )
    if machine:
        from ekiden.api.shown_sessions import SessionList

        typer.echo(to_json(SessionList.of(found, limit).model_dump()))
        return
    if not found:
        typer.echo(_none(narrowed=bool(status or flow), archived=archived))
        return
    now = datetime.now(UTC)
    rows = [
        [s.id, s.flow, s.status, f"{s.phase} {s.step}", ago(s.updated_at, now), s.title]
        for s in found[:limit]
    ]
    typer.echo("\n".join(table(["ID", "FLOW", "STATUS", "AT", "CHANGED", "TITLE"], rows)))


def _none(*, narrowed: bool, archived: bool) -> str:
    if narrowed:
        return "No session fits."
    if archived:
        return "No session is archived."
    return "No sessions. Make one: ekiden run viral --theme coffee"


def show(session_id: str, *, machine: bool) -> None:
    """Print progress and outputs."""

    async def look(sessions: Sessions) -> tuple[Any, ...]:
        return (
            await sessions.get(session_id),
            await sessions.progress(session_id),
            await sessions.revisions(session_id),
            await sessions.drafts(session_id),
            await sessions.budgets.of(session_id),
        )

    session, progress, revisions, drafts, budgets = with_sessions(look)
    if machine:
        from ekiden.api.shown_engine import DraftList
        from ekiden.api.shown_progress import Progress
        from ekiden.api.shown_sessions import SessionShown

        told = {
            **SessionShown.of(session, revisions, budgets).model_dump(),
            **DraftList.of(drafts).model_dump(),
            "progress": Progress.model_validate(progress).model_dump(),
        }
        typer.echo(to_json(told))
        return
    lines = [
        f"Session  {session.id}",
        f"Flow     {session.flow} ({session.flow_title}), version {session.flow_version}",
        f"Title    {one_line(session.title)}",
        f"Status   {session.status}",
        *(_budget_line(budget) for budget in budgets),
        "Input",
        *readable(session.input, "  "),
        "Phases",
        *(_phase_line(phase) for phase in progress["phases"]),
    ]
    if progress["error"]:
        lines += ["Error", *readable(progress["error"], "  ")]
    for revision in revisions:
        title = progress["phases"][revision.phase - 1]["title"]
        lines += [
            "",
            f"── Output of phase {revision.phase}: {title} "
            f"(revision {revision.id} by {revision.author}, {_state(revision, progress)})",
            *readable(revision.output, "  "),
        ]
    typer.echo(clean("\n".join(lines)))
    if drafts:
        typer.echo("\n" + _markdown(drafts))
    if waiting := progress["waitingFor"]:
        typer.echo(f"\n{clean(waiting['message'])}")
        for what in ways_on(progress) or ("resume {id}",):
            typer.echo(f"  ekiden {what.format(id=session.id)}")


def _state(revision: Revision, progress: dict[str, Any]) -> str:
    if revision.approved_at:
        return "approved"
    return "waits for approval" if revision.id == progress["revision"] else "not approved"


def _budget_line(budget: Spent) -> str:
    parts = []
    if budget.max_cost_usd is not None:
        parts.append(f"{budget.used_usd:.4f} of {budget.max_cost_usd:f} USD")
    if budget.max_tokens is not None:
        parts.append(f"{budget.used_tokens:,} of {budget.max_tokens:,} tokens")
    of = f"phase {budget.phase}: " if budget.phase else ""
    return f"Budget   {of}{', '.join(parts)} used"


def _phase_line(phase: dict[str, Any]) -> str:
    steps = "  ".join(
        f"{step['step']} {step['status']}"
        + (f" {step['completed']}/{step['tasks']}" if step["tasks"] > 1 else "")
        for step in phase["steps"]
    )
    return f"  {phase['phase']} {phase['title']}: {steps}"


def change(verb: str, session_id: str, *, machine: bool) -> None:
    """Pause, resume or cancel."""

    async def act(sessions: Sessions) -> dict[str, Any]:
        match verb:
            case "pause":
                await sessions.pause(session_id, actor=actor())
            case "resume":
                await sessions.resume(session_id, actor=actor())
            case "cancel":
                await sessions.cancel(session_id, actor=actor())
        return await sessions.progress(session_id)

    progress = with_sessions(act)
    told(progress, f"Session {session_id} is {progress['status']}.", machine=machine)


def told(progress: dict[str, Any], text: str, *, machine: bool, **done: Any) -> None:
    """Say what was done, or as JSON where the session is and what the decision did."""
    if machine:
        shown = {key: progress[key] for key in ("sessionId", "status")}
        typer.echo(to_json(shown | done | {"progress": progress}))
        return
    typer.echo(text)
    if progress["status"] == "RUNNING":
        typer.echo(going_on(progress))


def export(session_id: str, *, form: Format, output: Path | None) -> None:
    """Write a session."""

    async def gather(sessions: Sessions) -> str:
        if form is Format.RECORDING:
            return recording.write(await sessions.recordings.take(session_id))
        session = await sessions.get(session_id)
        drafts = await sessions.drafts(session_id)
        if form is Format.MD:
            return f"# {one_line(session.title)}\n\n{_markdown(drafts)}"
        tasks = [
            camel(task)
            | {
                "attempts": camel(await sessions.attempts(session_id, task.id)),
                "calls": camel(await sessions.calls(session_id, task.id)),
            }
            for task in await sessions.tasks(session_id)
        ]
        return to_json(
            {
                "session": camel(session),
                "progress": await sessions.progress(session_id),
                "revisions": camel(await sessions.revisions(session_id)),
                "tasks": tasks,
                "events": await _events(sessions, session_id),
                "drafts": camel(drafts),
            }
        )

    text = with_sessions(gather)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise EkidenError(f"{output} cannot be written: {error.strerror}") from None
    typer.echo(f"Written: {output}")


def import_(file: Path, *, machine: bool) -> None:
    """Bring a recorded session into this database."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EkidenError(f"{file} cannot be read: {error}") from None
    rows = recording.read(text)
    recording.Recording.of(rows)  # says what is damaged before anything is written

    async def put(sessions: Sessions) -> dict[str, Any]:
        return await sessions.progress(await sessions.recordings.put(rows))

    progress = with_sessions(put)
    session_id, status = progress["sessionId"], progress["status"]
    told(progress, f"Session {session_id} is here now, {status}.", machine=machine)


async def _events(sessions: Sessions, session_id: str) -> list[Any]:
    events: list[Any] = []
    after = 0
    while batch := await sessions.events(session_id, after=after):
        events += camel(batch)
        after = batch[-1].id
    return events


def _markdown(drafts: list[DraftLine]) -> str:
    if not drafts:
        return "No drafts: they are made when the last phase completes.\n"
    parts = []
    for draft in drafts:
        text = draft.body.get("text")
        body = clean(text) if isinstance(text, str) else "\n".join(readable(draft.body))
        lines = [f"## {draft.number}. {one_line(draft.title)}", "", body]
        if draft.sources:
            lines += ["", "Sources:", ""]
            for source in draft.sources:
                licence = f", {source['licence']}" if source.get("licence") else ""
                title, url = one_line(str(source.get("title"))), one_line(str(source.get("url")))
                lines.append(f"- {title} <{url}>{licence}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def with_sessions(action: Callable[[Sessions], Awaitable[T]]) -> T:
    """Open the store of the settings and do something with its sessions."""
    settings = load_settings()

    async def main(database: Database) -> Any:
        async with open_store(database) as (_, sessions):
            return await action(sessions)

    with Database(settings) as database:
        result: T = run_async(main(database))
        return result
