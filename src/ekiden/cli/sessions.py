"""``ekiden sessions``: look at sessions and decide, wherever they run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ekiden.cli import reviews

_EPILOG = """\b
What waits for me?
  ekiden sessions waiting
\b
Look at it, let it go on, and run the rest here:
  ekiden sessions show ID
  ekiden sessions approve ID --comment "good sources"
  ekiden resume ID
\b
Not good enough? Change it, send it back, or go back:
  ekiden sessions edit ID
  ekiden sessions reject ID --note "fewer hashtags"
  ekiden sessions rerun ID --phase 2
\b
Take the posts away:
  ekiden sessions export ID --format md --output posts.md"""

app = typer.Typer(
    help="Look at sessions and decide. Works whether or not a server runs.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

SessionId = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class Format(StrEnum):
    """What ``export`` writes."""

    JSON = "json"
    MD = "md"


@app.command("list")
def list_(
    status: Annotated[
        str | None,
        typer.Option(
            help="RUNNING, AWAITING_REVIEW, PAUSED, FAILED, COMPLETED or CANCELLED.",
        ),
    ] = None,
    flow: Annotated[str | None, typer.Option(help="Only this flow's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 20,
    json: Json = False,
) -> None:
    """List sessions, newest first."""
    from ekiden.cli import desk

    desk.show_list(status=status, flow=flow, limit=limit, machine=json)


@app.command()
def show(session_id: SessionId, json: Json = False) -> None:
    """Show a session's progress and the outputs of its phases."""
    from ekiden.cli import desk

    desk.show(session_id, machine=json)


@app.command()
def approve(
    session_id: SessionId,
    comment: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    revision: Annotated[
        int | None, typer.Option(help="Only if this is still the revision that waits.")
    ] = None,
    json: Json = False,
) -> None:
    """Pass the gate at which a session waits."""
    from ekiden.cli import desk

    desk.approve(session_id, comment=comment, revision=revision, machine=json)


@app.command()
def pause(session_id: SessionId, json: Json = False) -> None:
    """Let what runs end, and start nothing new."""
    from ekiden.cli import desk

    desk.change("pause", session_id, machine=json)


@app.command()
def resume(session_id: SessionId, json: Json = False) -> None:
    """Let a paused or failed session go on, on any worker (here: ekiden resume ID)."""
    from ekiden.cli import desk

    desk.change("resume", session_id, machine=json)


@app.command()
def cancel(session_id: SessionId, json: Json = False) -> None:
    """End a session for good; what it has is kept."""
    from ekiden.cli import desk

    desk.change("cancel", session_id, machine=json)


@app.command()
def export(
    session_id: SessionId,
    format_: Annotated[
        Format, typer.Option("--format", help="json: everything. md: the drafts.")
    ] = Format.JSON,
    output: Annotated[Path | None, typer.Option(help="A file; else stdout.")] = None,
) -> None:
    """Write all there is of a session as JSON, or its drafts as Markdown."""
    from ekiden.cli import desk

    desk.export(session_id, markdown=format_ is Format.MD, output=output)


reviews.register(app)
