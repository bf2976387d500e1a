"""``ekiden top``."""

from __future__ import annotations

from typing import Annotated

import typer

_EPILOG = """\b
A live picture of all that goes on, until Ctrl-C:
  ekiden top
\b
One look, for a person or for a program:
  ekiden top --once
  ekiden top --json
\b
The figures are those of GET /api/metrics/summary; docs/monitoring.md says what each means."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="Watch queue, workers, sessions, errors and cost.", epilog=_EPILOG)(top)


def top(
    flow: Annotated[str | None, typer.Option(help="Only this flow's.")] = None,
    every: Annotated[
        float, typer.Option(min=0.5, max=60, metavar="SECONDS", help="Between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Look once; JSON on stdout.")] = False,
) -> None:
    """Show what goes on now and what the last hour brought."""
    from ekiden.cli import watching

    watching.top(flow, every=every, once=once, machine=json)
