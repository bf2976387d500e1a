"""``ekiden verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from ekiden.cli import exits

_EPILOG = """\b
Is everything in this database as it must be? Safe at any time; nothing is changed:
  ekiden verify
\b
In a script: exit code 0 when it is, 1 when it is not; what was found as JSON:
  ekiden verify --json"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="Check the invariants of a live database.", epilog=_EPILOG)(verify)


def verify(
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Check this session only.")
    ] = None,
    timeout: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="Longest that one invariant may take.")
    ] = 600,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Check what must always be so, in one snapshot, and change nothing."""
    from ekiden.cli import verifying

    exits.leave(verifying.report(session, timeout=timeout, machine=json))
