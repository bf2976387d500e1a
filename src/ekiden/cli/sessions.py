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
Take the posts away, and clear the table:
  ekiden sessions export ID --format md --output posts.md
  ekiden sessions archive ID"""

_REPLAY_EPILOG = """\b
You changed a prompt or a check. What would it change in a session that you know?
  ekiden sessions replay ID
\b
The same elsewhere, without its database:
  ekiden sessions export ID --format recording --output bug.json
  ekiden sessions replay bug.json
  ekiden sessions import bug.json
\b
Exit codes: 0 everything as it was, 1 something differs."""

app = typer.Typer(
    help="Look at sessions and decide. Works whether or not a server runs.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

SessionId = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]
SessionIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of sessions.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class Format(StrEnum):
    """What ``export`` writes."""

    JSON = "json"
    MD = "md"
    RECORDING = "recording"


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
    archived: Annotated[
        bool, typer.Option("--archived", help="Those that are archived, and no others.")
    ] = False,
    json: Json = False,
) -> None:
    """List sessions, newest first, without those that are archived."""
    from ekiden.cli import desk

    desk.show_list(status=status, flow=flow, archived=archived, limit=limit, machine=json)


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
    from ekiden.cli import deciding

    deciding.approve(session_id, comment=comment, revision=revision, machine=json)


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
def archive(session_ids: SessionIds, json: Json = False) -> None:
    """Put finished sessions away: lists and counts leave them out until asked (list --archived).

    They stay as they are. Resume, edit and rerun bring one back by themselves.
    """
    from ekiden.cli import archiving

    archiving.put(session_ids, back=False, machine=json)


@app.command()
def unarchive(session_ids: SessionIds, json: Json = False) -> None:
    """Bring archived sessions back to the lists."""
    from ekiden.cli import archiving

    archiving.put(session_ids, back=True, machine=json)


@app.command()
def export(
    session_id: SessionId,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="json: everything people see. md: the drafts. recording: what replay needs.",
        ),
    ] = Format.JSON,
    output: Annotated[Path | None, typer.Option(help="A file; else stdout.")] = None,
) -> None:
    """Write all there is of a session as JSON, its drafts as Markdown, or a recording of it."""
    from ekiden.cli import desk

    desk.export(session_id, form=format_, output=output)


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Made by export --format recording.")
    ],
    json: Json = False,
) -> None:
    """Bring a recorded session into this database, under its own id.

    Nothing of it runs before you resume it or pass its gate. One that was running when it was
    recorded is refused.
    """
    from ekiden.cli import desk

    desk.import_(file, machine=json)


@app.command(epilog=_REPLAY_EPILOG, short_help="Run a session again offline; say what differs.")
def replay(
    session: Annotated[
        str, typer.Argument(metavar="ID|FILE", help="A session's id, or a recording of one.")
    ],
    flow: Annotated[
        list[str] | None,
        typer.Option("--flow", metavar="MODULE:NAME", help="A flow of your own."),
    ] = None,
    json: Json = False,
) -> None:
    """Run a session's steps again with today's code on its recorded calls.

    No network, no key, no cost, and the session stays as it is. Says where today's code would ask
    something else, return something else, or fail.
    """
    from ekiden.cli import exits, replaying

    exits.leave(replaying.replay(session, flow or [], machine=json))


reviews.register(app)
