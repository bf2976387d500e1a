"""The decisions among ``ekiden sessions``: edit, reject, rerun and what else people may do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

SessionId = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Comment = Annotated[str | None, typer.Option(help="Why, for the record.")]
Revision = Annotated[
    int | None, typer.Option(help="Only if this is still the revision that waits.")
]
Phase = Annotated[int | None, typer.Option(min=1, help="Which phase; else the current one.")]
Model = Annotated[
    str | None, typer.Option(metavar="PROVIDER:MODEL", help="Who answers in this run.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A variable of this run; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands: tuple[Callable[..., None], ...] = (
        edit, reject, rerun, accept, retry, budget, fork, waiting, reviews, compare,
    )  # fmt: skip
    for command in commands:
        app.command()(command)


def edit(
    session_id: SessionId,
    phase: Phase = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON to take instead of opening $EDITOR; - is stdin.")
    ] = None,
    comment: Comment = None,
    json: Json = False,
) -> None:
    """Change a phase's output by hand; it then waits for approval."""
    from ekiden.cli import deciding

    deciding.edit(session_id, phase=phase, file=file, comment=comment, machine=json)


def reject(  # noqa: PLR0917 - typer calls it by name
    session_id: SessionId,
    note: Annotated[str, typer.Option(help="What should be different; THINK is told.")],
    model: Model = None,
    set_: Set = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Send the output at the gate back: the phase runs again."""
    from ekiden.cli import deciding

    deciding.reject(
        session_id, note=note, model=model, given=set_ or [], revision=revision, machine=json
    )


def rerun(  # noqa: PLR0917 - typer calls it by name
    session_id: SessionId,
    phase: Phase = None,
    step: Annotated[
        str, typer.Option(help="THINK, EXECUTE or INTEGRATE; what was before it is kept.")
    ] = "THINK",
    note: Annotated[str | None, typer.Option(help="What should be different.")] = None,
    model: Model = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Run a phase again from one of its steps, and the later ones that depended on it."""
    from ekiden.cli import deciding

    deciding.rerun(
        session_id, phase=phase, step=step, note=note, model=model, given=set_ or [], machine=json
    )


def accept(session_id: SessionId, comment: Comment = None, json: Json = False) -> None:
    """Go on without the items that failed."""
    from ekiden.cli import deciding

    deciding.items("accept", session_id, comment=comment, machine=json)


def retry(session_id: SessionId, comment: Comment = None, json: Json = False) -> None:
    """Try the items that failed again, and only those."""
    from ekiden.cli import deciding

    deciding.items("retry", session_id, comment=comment, machine=json)


def budget(  # noqa: PLR0917 - typer calls it by name
    session_id: SessionId,
    max_cost: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="US dollars, in all.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=0, help="Tokens in and out together, in all.")
    ] = None,
    phase: Annotated[
        int, typer.Option(min=0, help="Of this phase alone; 0 is the whole session.")
    ] = 0,
    none: Annotated[
        bool,
        typer.Option("--none", help="Take away the limits there are, but for those given here."),
    ] = False,
    json: Json = False,
) -> None:
    """Show what may be spent and what is; or set it.

    A limit that is not given stays as it is. A session that its budget had stopped goes on.
    """
    from ekiden.cli import budgeting

    if max_cost is None and max_tokens is None and not none:
        budgeting.show(session_id, machine=json)
    else:
        budgeting.put(
            session_id,
            phase=phase,
            max_cost=max_cost,
            max_tokens=max_tokens,
            none=none,
            machine=json,
        )


def fork(
    session_id: SessionId,
    phase: Annotated[
        int, typer.Option(min=0, help="The last phase whose output is shared; 0: only the input.")
    ],
    title: Annotated[str | None, typer.Option(help="Else the same.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Start its first step now.")] = False,
    json: Json = False,
) -> None:
    """Make a new session that shares outputs of this one; nothing is paid again."""
    from ekiden.cli import deciding

    deciding.fork(session_id, phase=phase, title=title, start=start, machine=json)


def waiting(
    flow: Annotated[str | None, typer.Option(help="Only this flow's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The longest so many.")] = 20,
    json: Json = False,
) -> None:
    """List what waits for a person, longest first, and how long people take."""
    from ekiden.cli import deciding

    deciding.waiting(flow=flow, limit=limit, machine=json)


def reviews(session_id: SessionId, json: Json = False) -> None:
    """List the decisions over a session: who, what and why."""
    from ekiden.cli import deciding

    deciding.reviews(session_id, machine=json)


def compare(
    old: Annotated[int, typer.Argument(metavar="OLD", help="A revision (see sessions show).")],
    new: Annotated[int, typer.Argument(metavar="NEW", help="Another, of any session.")],
    json: Json = False,
) -> None:
    """Show what differs between two outputs."""
    from ekiden.cli import deciding

    deciding.compare(old, new, machine=json)
