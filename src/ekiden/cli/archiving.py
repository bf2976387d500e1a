"""What ``ekiden sessions archive`` and ``unarchive`` do."""

from __future__ import annotations

import typer

from ekiden.cli import exits
from ekiden.cli.compose import actor
from ekiden.cli.desk import with_sessions
from ekiden.cli.words import to_json
from ekiden.store.archive import MOST_AT_ONCE


def put(session_ids: list[str], *, back: bool, machine: bool) -> None:
    """Put sessions away or bring them back; exit code 1 when one of them refused."""
    if len(session_ids) > MOST_AT_ONCE:
        exits.usage(f"at most {MOST_AT_ONCE} sessions at once")
    done = with_sessions(lambda s: s.archive.put(session_ids, actor=actor(), back=back))
    if machine:
        typer.echo(
            to_json(
                [
                    {"sessionId": p.id, "archived": p.archived,
                     "refused": p.refused.message if p.refused else None}
                    for p in done
                ]
            )
        )  # fmt: skip
    else:
        for one in done:
            now = "archived" if one.archived else "in the lists"
            typer.echo(one.refused.message if one.refused else f"Session {one.id} is {now}.")
    if any(one.refused for one in done):
        exits.leave(exits.FAILED)
