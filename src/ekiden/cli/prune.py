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
Nothing is deleted by itself. What runs, waits at a gate or is paused always stays; what has
failed stays until it was archived so long ago (ekiden sessions archive).
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
    """Delete sessions that ended, or failed and were archived, with all that belongs to them."""
    from ekiden.cli import pruning

    pruning.prune_sessions(older_than, dry_run=dry_run, yes=yes, machine=json)
