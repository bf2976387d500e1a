"""What ``ekiden sources`` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
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
from ekiden.store.feeds import FeedLine, Feeds

T = TypeVar("T")

_BY_HAND = 365 * 86_400  # seconds: a feed that is not fetched by itself is due when that is over
_SHOWN = 10  # skipped files named one by one


def add(source: str, *, machine: bool) -> None:
    """Add a folder or a feed, or bring it up to date."""
    again = timedelta(seconds=load_settings().feed_interval or _BY_HAND)

    async def adding(documents: Documents, feeds: Feeds) -> FolderReport:
        if not is_feed_address(source):
            return await add_folder(documents, Path(source))
        report = await add_feed(documents, source)
        await feeds.add(source, again)
        return report

    report = _with_sources(adding)
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

    async def looking(
        documents: Documents, feeds: Feeds
    ) -> tuple[dict[str, int], dict[str, FeedLine]]:
        return await documents.counts(), {feed.source: feed for feed in await feeds.lines()}

    counts, feeds = _with_sources(looking)
    counts = {**dict.fromkeys(feeds, 0), **counts}
    if machine:
        typer.echo(to_json([_source(s, n, feeds.get(s)) for s, n in sorted(counts.items())]))
    elif counts:
        rows = [[s, f"{n:,}", clean(_feed(feeds.get(s)))] for s, n in sorted(counts.items())]
        typer.echo("\n".join(table(["SOURCE", "DOCUMENTS", "FETCHED"], rows)))
    else:
        typer.echo("No documents yet. Add some: ekiden sources add PATH")


def _source(source: str, count: int, feed: FeedLine | None) -> dict[str, Any]:
    told: dict[str, Any] = {"source": source, "documents": count}
    if feed is not None:
        told["feed"] = {
            "fetchedAt": feed.fetched_at,
            "nextAt": feed.available_at,
            "failures": feed.failures,
            "error": feed.error,
        }
    return told


def _feed(feed: FeedLine | None) -> str:
    """Return when a feed was fetched and will be, or what is wrong with it, in words."""
    if feed is None:
        return ""
    fetched = "not yet" if feed.fetched_at is None else f"{feed.fetched_at:%Y-%m-%d %H:%M}"
    again = f"again {feed.available_at:%Y-%m-%d %H:%M} UTC"
    return f"{fetched}, {again}" + (f"; {feed.error}" if feed.error else "")


def remove(source: str, *, machine: bool) -> None:
    """Remove a source."""
    # As it is listed; else as the path that it was added with.
    names = dict.fromkeys((source, str(Path(source).expanduser().resolve())))

    async def removing(documents: Documents, feeds: Feeds) -> tuple[str, int]:
        known = {*await documents.counts(), *(feed.source for feed in await feeds.lines())}
        for name in names:
            if name in known:
                return name, await documents.remove(name)
        raise NotFound(f"There is no source {source!r}. See: ekiden sources list")

    name, removed = _with_sources(removing)
    if machine:
        typer.echo(to_json({"source": name, "removed": removed}))
        return
    typer.echo(f"Removed {removed:,} documents.")


def _with_sources(action: Callable[[Documents, Feeds], Awaitable[T]]) -> T:
    settings = load_settings()

    async def main(database: Database) -> Any:
        async with open_store(database) as (pool, _):
            dsn = database.dsn()
            return await action(Documents(pool, dsn), Feeds(pool, dsn))

    with Database(settings) as database:
        result: T = run_async(main(database))
        return result
