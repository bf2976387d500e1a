"""``ekiden prune``."""

from __future__ import annotations

from typing import Annotated

import typer

_EPILOG = """\b
What would go?
  ekiden prune --older-than 90 --dry-run
\b
Every night, from cron:
  ekiden prune --older-than 90 --yes
\b
Nothing is deleted by itself. What runs, waits at a gate, is paused or has failed always stays.
Save what you want to keep first: ekiden sessions export ID"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="Delete sessions that ended long ago.", epilog=_EPILOG)(prune)


def prune(
    older_than: Annotated[
        int, typer.Option(min=0, max=36_500, metavar="DAYS", help="Ended at least so long ago.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many would go; delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Delete COMPLETED and CANCELLED sessions with their tasks, calls, outputs and drafts."""
    from ekiden.cli import pruning

    pruning.prune_sessions(older_than, dry_run=dry_run, yes=yes, machine=json)
