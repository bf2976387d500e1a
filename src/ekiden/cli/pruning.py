"""What ``ekiden prune`` does."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import typer
from rich.console import Console

from ekiden.cli.compose import Database, open_store, run_async
from ekiden.cli.words import to_json
from ekiden.config import load_settings
from ekiden.store.prune import Pruned, count_prunable, prune


def prune_sessions(days: int, *, dry_run: bool, yes: bool, machine: bool) -> None:
    """Delete what ended so many days ago, once that is confirmed."""
    before = datetime.now(UTC) - timedelta(days=days)
    with Database(load_settings()) as database:
        count = run_async(_count(database, before))
        if dry_run:
            _tell(Pruned(sessions=count, tasks=0), days, dry_run=True, machine=machine)
            return
        if count and not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter(
                    f"{_some(count, 'session')} would be deleted, and nobody is there to be asked: "
                    "add --yes, or --dry-run to only count."
                )
            typer.confirm(
                f"Delete {_some(count, 'session')} that ended more than {days} days ago, for good?",
                abort=True,
                err=True,
            )
        pruned = (
            run_async(_prune(database, before, count)) if count else Pruned(sessions=0, tasks=0)
        )
    _tell(pruned, days, dry_run=False, machine=machine)


async def _count(database: Database, before: datetime) -> int:
    async with open_store(database) as (pool, _):
        return await count_prunable(pool, database.dsn(), before=before)


async def _prune(database: Database, before: datetime, count: int) -> Pruned:
    console = Console(stderr=True)
    async with open_store(database) as (pool, _):
        with console.status("") if console.is_terminal else nullcontext() as status:

            def progress(so_far: Pruned) -> None:
                if status is not None:
                    status.update(f"{so_far.sessions:,} of {_some(count, 'session')}")

            return await prune(pool, database.dsn(), before=before, progress=progress)


def _tell(pruned: Pruned, days: int, *, dry_run: bool, machine: bool) -> None:
    if machine:
        found = {"sessions": pruned.sessions, "dryRun": dry_run}
        typer.echo(to_json(found if dry_run else found | {"tasks": pruned.tasks}))
    elif not pruned.sessions:
        typer.echo(f"No session ended more than {days} days ago.")
    elif dry_run:
        typer.echo(f"{_some(pruned.sessions, 'session')} would be deleted.")
    else:
        typer.echo(
            f"Deleted {_some(pruned.sessions, 'session')} with {_some(pruned.tasks, 'task')}."
        )


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
