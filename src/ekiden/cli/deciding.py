"""What the decisions among ``ekiden sessions`` do."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer

from ekiden.cli import editing, exits
from ekiden.cli.compose import actor
from ekiden.cli.desk import told, with_sessions
from ekiden.cli.words import clean, one_line, table, to_json
from ekiden.core.json_changes import Change
from ekiden.core.json_changes import compare as differences
from ekiden.core.model import Review, Reviewed, StepKind, Verb
from ekiden.errors import EkidenError
from ekiden.store.sessions import Sessions


def approve(session_id: str, *, comment: str | None, revision: int | None, machine: bool) -> None:
    """Pass a gate, or count towards it."""
    review = Review(verb=Verb.APPROVE, actor=actor(), comment=comment, revision=revision)
    decide(session_id, review, "Approved.", machine=machine)


def edit(
    session_id: str,
    *,
    phase: int | None,
    file: Path | None,
    comment: str | None,
    machine: bool,
) -> None:
    """Change an output, in the editor or from a file."""
    number, revision, output = with_sessions(lambda s: _output(s, session_id, phase))

    def keep(value: Any) -> None:
        review = Review(
            verb=Verb.EDIT, actor=actor(), comment=comment, phase=number, revision=revision,
            output=value,
        )  # fmt: skip
        decide(session_id, review, f"Phase {number} has a new output. It waits for approval.",
               machine=machine)  # fmt: skip

    if file is not None:
        keep(_read(file))
    elif not editing.edit(
        output,
        what=f"The output of phase {number}",
        again=f"ekiden sessions edit {session_id} --phase {number}",
        keep=keep,
    ):
        typer.echo("Nothing was changed.")


async def _output(sessions: Sessions, session_id: str, phase: int | None) -> tuple[int, int, Any]:
    """Return the phase, and the id and the output of its newest revision."""
    number = (await sessions.get(session_id)).phase if phase is None else phase
    await sessions.reviews.check_edit(session_id, number)
    newest = [r for r in await sessions.revisions(session_id) if r.phase == number][-1]
    return number, newest.id, newest.output


def _read(file: Path) -> Any:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        raise EkidenError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise EkidenError(f"{file} is not JSON: {error}") from None


def reject(
    session_id: str,
    *,
    note: str,
    model: str | None,
    given: list[str],
    revision: int | None,
    machine: bool,
) -> None:
    """Send the output at the gate back."""
    review = Review(
        verb=Verb.REJECT, actor=actor(), comment=note, model=model, variables=_variables(given),
        revision=revision,
    )  # fmt: skip
    decide(session_id, review, "Sent back. The phase runs again.", machine=machine)


def rerun(
    session_id: str,
    *,
    phase: int | None,
    step: str,
    note: str | None,
    model: str | None,
    given: list[str],
    machine: bool,
) -> None:
    """Run a phase again."""
    if step.upper() not in set(StepKind):
        exits.usage(f"--step {step}: must be one of {', '.join(StepKind)}")
    review = Review(
        verb=Verb.RERUN, actor=actor(), comment=note, phase=phase, step=StepKind(step.upper()),
        model=model, variables=_variables(given),
    )  # fmt: skip
    decide(session_id, review, "The phase runs again.", machine=machine)


def _variables(given: list[str]) -> dict[str, Any]:
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            exits.usage(f"--set {pair}: write it as name=value")
        found[name] = value
    return found


def items(verb: str, session_id: str, *, comment: str | None, machine: bool) -> None:
    """Decide over the items that failed."""
    text = {"accept": "Going on without what failed.", "retry": "What failed is tried again."}[verb]
    review = Review(verb=Verb(verb), actor=actor(), comment=comment)
    decide(session_id, review, text, machine=machine)


def decide(session_id: str, review: Review, text: str, *, machine: bool) -> None:
    """Take a decision, and say what it did."""

    async def act(sessions: Sessions) -> tuple[Reviewed, dict[str, Any]]:
        done = await sessions.reviews.take(session_id, review)
        return done, await sessions.progress(session_id)

    done, progress = with_sessions(act)
    if not machine and done.missing:
        text = f"Your approval counts; {done.missing} more must approve."
    if not machine and done.stale:
        text += f" So do the phases that depended on it: {_listed(done.stale)}."
    if not machine and done.kept:
        text += f" Kept as they are: {_listed(done.kept)}."
    told(progress, text, machine=machine, missing=done.missing, stale=done.stale, kept=done.kept)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def fork(session_id: str, *, phase: int, title: str | None, start: bool, machine: bool) -> None:
    """Make a session that shares outputs."""

    async def act(sessions: Sessions) -> dict[str, Any]:
        made, _new = await sessions.reviews.fork(
            session_id, phase=phase, actor=actor(), title=title, start=start
        )
        return await sessions.progress(made)

    progress = with_sessions(act)
    told(progress, f"New session {progress['sessionId']}.", machine=machine)


def waiting(*, flow: str | None, limit: int, machine: bool) -> None:
    """Print what waits for people."""

    async def look(sessions: Sessions) -> tuple[Any, Any]:
        reviews = sessions.reviews
        return await reviews.waiting(flow=flow, limit=limit), await reviews.waiting_times()

    found, times = with_sessions(look)
    if machine:
        from ekiden.api.shown_reviews import WaitingList

        typer.echo(to_json(WaitingList.of(found, times).model_dump()))
        return
    if not found:
        typer.echo("Nothing waits for a person.")
        return
    rows = [
        [s.id, s.flow, _for(s.age), f"{s.phase} {one_line(s.phase_title)}", _why(s.stop), s.title]
        for s in found
    ]
    typer.echo("\n".join(table(["ID", "FLOW", "WAITS", "PHASE", "FOR", "TITLE"], rows)))
    typer.echo(
        f"\n{times.waiting} waiting, half of them longer than {_for(times.age_p50)}. "
        + (
            f"{times.decided} decided in 30 days, half within {_for(times.took_p50)}, "
            f"nine of ten within {_for(times.took_p90)}."
            if times.decided
            else "None decided in 30 days."
        )
    )


def _why(stop: dict[str, Any] | None) -> str:
    return "review" if stop is None else str(stop["kind"])


def _for(time: timedelta | None) -> str:
    seconds = int(time.total_seconds()) if time else 0
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def reviews(session_id: str, *, machine: bool) -> None:
    """Print the decisions over a session."""
    found = with_sessions(lambda s: s.reviews.of(session_id))
    if machine:
        from ekiden.api.shown_reviews import ReviewList

        typer.echo(to_json(ReviewList.of(found).model_dump()))
        return
    if not found:
        typer.echo("Nobody has decided anything here.")
        return
    rows = [
        [
            f"{r.created_at:%Y-%m-%d %H:%M}",
            r.actor,
            r.verb if r.passes else f"{r.verb} (one of several)",
            f"{r.phase}" + (f" {r.step}" if r.step else ""),
            "" if r.waited is None else _for(r.waited),
            one_line(r.comment or ""),
        ]
        for r in found
    ]
    typer.echo("\n".join(table(["WHEN", "WHO", "WHAT", "PHASE", "AFTER", "WHY"], rows)))


def compare(old: int, new: int, *, machine: bool) -> None:
    """Print what differs between two revisions."""

    async def look(sessions: Sessions) -> tuple[Any, Any]:
        return await sessions.reviews.revision(old), await sessions.reviews.revision(new)

    first, second = with_sessions(look)
    if machine:
        from ekiden.api.shown_reviews import Comparison

        typer.echo(to_json(Comparison.of(first, second).model_dump()))
        return
    changes = differences(first.output, second.output)
    if not changes:
        typer.echo("They are the same.")
        return
    typer.echo(clean("\n".join(line for change in changes for line in _lines(change))))


def _lines(change: Change) -> list[str]:
    lines = [change.path or "(all of it)"]
    if change.op != "add":
        lines.append(f"  - {json.dumps(change.old, ensure_ascii=False)}")
    if change.op != "remove":
        lines.append(f"  + {json.dumps(change.new, ensure_ascii=False)}")
    return lines
