"""What ``ekiden sources`` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import typer

from ekiden.cli.compose import Database, open_store, run_async
from ekiden.cli.words import clean, table, to_json
from ekiden.config import load_settings
from ekiden.errors import NotFound
from ekiden.search.feeds import add_feed, is_feed_address
from ekiden.search.folders import FolderReport, add_folder
from ekiden.store.documents import Documents

T = TypeVar("T")

_SHOWN = 10  # skipped files named one by one


def add(source: str, *, machine: bool) -> None:
    """Add a folder or a feed, or bring it up to date."""

    def adding(documents: Documents) -> Awaitable[FolderReport]:
        if is_feed_address(source):
            return add_feed(documents, source)
        return add_folder(documents, Path(source))

    report = _with_documents(adding)
    skipped = [{"path": str(s.path), "reason": s.reason} for s in report.skipped]
    if machine:
        typer.echo(
            to_json(
                {
                    "source": report.source,
                    "documents": report.documents,
                    "written": report.written,
                    "removed": report.removed,
                    "skipped": skipped,
                }
            )
        )
        return
    typer.echo(_told(report))
    for entry in skipped[:_SHOWN]:
        typer.echo(clean(f"  skipped {entry['path']}: {entry['reason']}"), err=True)
    if len(skipped) > _SHOWN:
        typer.echo(f"  skipped {len(skipped) - _SHOWN} more (all of them: --json)", err=True)


def _told(report: FolderReport) -> str:
    return clean(
        f"{report.source}: {report.documents:,} documents; {report.written:,} passages new or "
        f"changed, {report.removed:,} documents gone"
    )


def show(*, machine: bool) -> None:
    """List the sources."""
    counts = _with_documents(lambda documents: documents.counts())
    if machine:
        typer.echo(to_json([{"source": s, "documents": n} for s, n in counts.items()]))
    elif counts:
        rows = [[source, f"{count:,}"] for source, count in sorted(counts.items())]
        typer.echo("\n".join(table(["SOURCE", "DOCUMENTS"], rows)))
    else:
        typer.echo("No documents yet. Add some: ekiden sources add PATH")


def remove(source: str) -> None:
    """Remove a source."""
    # As it is listed; else as the path that it was added with.
    names = dict.fromkeys((source, str(Path(source).expanduser().resolve())))

    async def removing(documents: Documents) -> int:
        for name in names:
            if name in await documents.counts():
                return await documents.remove(name)
        raise NotFound(f"There is no source {source!r}. See: ekiden sources list")

    typer.echo(f"Removed {_with_documents(removing):,} documents.")


def _with_documents(action: Callable[[Documents], Awaitable[T]]) -> T:
    settings = load_settings()

    async def main(database: Database) -> Any:
        async with open_store(database) as (pool, _):
            return await action(Documents(pool, database.dsn()))

    with Database(settings) as database:
        result: T = run_async(main(database))
        return result
