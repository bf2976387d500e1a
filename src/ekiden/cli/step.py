"""``ekiden step``: one step of a session again, without touching the session."""

from __future__ import annotations

from typing import Annotated

import typer

from ekiden.cli import exits

_EPILOG = """\b
You changed the prompt of phase 2 THINK. What does it say now, on the same input?
  ekiden step ID 2 THINK --dry-run
\b
The third item of a fan-out, and every question asked anew:
  ekiden step ID 1 EXECUTE --item 2 --fresh --dry-run
\b
What was asked before in the same words is answered from the ledger and costs nothing; only what is
new is asked of the model.
\b
Exit codes: 0 it has a result, 1 it failed."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG, short_help="Try one step again; the session stays as it is.")(step)


def step(  # noqa: PLR0917 - typer calls it by name
    session_id: Annotated[
        str, typer.Argument(metavar="ID|FILE", help="A session's id, or a recording of one.")
    ],
    phase: Annotated[int, typer.Argument(min=1, help="The phase, from 1.")],
    kind: Annotated[str, typer.Argument(metavar="STEP", help="THINK, EXECUTE or INTEGRATE.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say that nothing is to be stored; needed.")
    ] = False,
    item: Annotated[int, typer.Option(min=0, help="Which item of a fan-out, from 0.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask everything anew, also what has an answer.")
    ] = False,
    flow: Annotated[
        list[str] | None,
        typer.Option("--flow", metavar="MODULE:NAME", help="A flow of your own."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run one step with today's code on the inputs that are stored, and show what it makes."""
    if not dry_run:
        exits.usage(
            "A step is only tried here: add --dry-run. To have it run in its session, resume it, "
            "or rerun its phase."
        )
    from ekiden.cli import replaying

    exits.leave(
        replaying.step(
            session_id, phase, kind.upper(), item=item, fresh=fresh, references=flow or [],
            machine=json,
        )
    )  # fmt: skip
