"""What ``ekiden webhooks`` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

import typer

from ekiden.cli import exits
from ekiden.cli.compose import Database, open_store, run_async
from ekiden.cli.words import ago, camel, table, to_json
from ekiden.config import load_settings
from ekiden.errors import NotFound
from ekiden.store.errands import EVENTS, Errands

T = TypeVar("T")


def add(url: str, events: list[str], *, machine: bool) -> None:
    """Make a webhook known and print its secret."""
    from ekiden.worker.webhooks import new_secret

    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        exits.usage(f"{url}: an address begins with https:// (or http:// on your own network)")
    if unknown := [event for event in events if event not in EVENTS]:
        exits.usage(f"--event {unknown[0]}: must be one of {', '.join(EVENTS)}")
    secret = new_secret()
    number = _with_errands(lambda e: e.add_webhook(url, secret, events or EVENTS))
    if machine:
        typer.echo(to_json({"id": number, "url": url, "secret": secret}))
        return
    typer.echo(f"Webhook {number} is told of {', '.join(events or EVENTS)}.")
    typer.echo(f"Its secret, shown this once: {secret}")


def show_list(*, machine: bool) -> None:
    """Print who is told."""
    found = _with_errands(lambda e: e.webhooks())
    if machine:
        typer.echo(to_json(camel(found)))
        return
    if not found:
        typer.echo("Nobody is told. Add somebody: ekiden webhooks add https://…")
        return
    rows = [
        [
            str(w.id),
            "stopped" if w.stopped_at else "told",
            f"{w.delivered} taken, {w.waiting} on their way, {w.failed} given up",
            w.url,
            " ".join(w.events),
        ]
        for w in found
    ]
    typer.echo("\n".join(table(["N", "STATE", "DELIVERIES", "URL", "EVENTS"], rows)))


def stop(webhook: int, *, machine: bool) -> None:
    """Tell somebody no more."""
    if not _with_errands(lambda e: e.stop_webhook(webhook)):
        raise NotFound(f"There is no webhook {webhook} that is told: ekiden webhooks list")
    if machine:
        typer.echo(to_json({"id": webhook, "stopped": True}))
        return
    typer.echo(f"Webhook {webhook} is told no more.")


def log(session: str | None, *, limit: int, machine: bool) -> None:
    """Print the newest deliveries."""
    found = _with_errands(lambda e: e.deliveries(session, limit=limit))
    if machine:
        typer.echo(to_json(camel(found)))
        return
    if not found:
        typer.echo("Nothing was sent.")
        return
    rows = [
        [
            ago(d.created_at, datetime.now(UTC)),
            d.event,
            d.status,
            str(d.attempt),
            str(d.http_status or ""),
            d.error or "",
            d.session_id or f"alert {d.alert_id}",
        ]
        for d in found
    ]
    head = ["WHEN", "EVENT", "STATUS", "TRIES", "HTTP", "ERROR", "ABOUT"]
    typer.echo("\n".join(table(head, rows)))


def _with_errands(do: Callable[[Errands], Awaitable[T]]) -> T:
    async def main(database: Database) -> T:
        async with open_store(database) as (pool, _):
            return await do(Errands(pool, database.dsn()))

    with Database(load_settings()) as database:
        return run_async(main(database))
