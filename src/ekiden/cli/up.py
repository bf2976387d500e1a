"""``up``, ``serve``, ``worker`` and ``migrate``: what runs for long, and what it needs."""

from __future__ import annotations

from typing import Annotated

import typer

from ekiden.cli import exits

_UP_EPILOG = """\b
Then, with curl alone:
  BASE=http://127.0.0.1:8080/api/viral/cot-session
  curl -s $BASE/create -H 'Content-Type: application/json' -d '{"theme": "remote work"}'
  curl -s -X POST $BASE/ID/process-async
  curl -s $BASE/ID/progress
  curl -s -X POST $BASE/ID/proceed-next-phase
\b
On a PostgreSQL of your own:
  DATABASE_URL=postgresql://ekiden@db.example/ekiden ekiden up
\b
For other machines to reach it (a key of 16 characters or more is then required):
  EKIDEN_API_KEY=... ekiden up --host 0.0.0.0"""

_WORKER_EPILOG = """\b
More workers, on as many machines as there are:
  DATABASE_URL=postgresql://... ekiden worker
  DATABASE_URL=postgresql://... ekiden worker --flow my_flows:research
SIGTERM or Ctrl-C lets running steps end first; a second one stops at once."""

Host = Annotated[str | None, typer.Option(help="Where to listen; else EKIDEN_HOST.")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Else EKIDEN_PORT; 0 takes a free one.")
]
Flows = Annotated[
    list[str] | None,
    typer.Option("--flow", metavar="MODULE:NAME", help="A flow of your own; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=_UP_EPILOG, short_help="Start everything: database, API, workers.")(up)
    app.command()(serve)
    app.command(epilog=_WORKER_EPILOG)(worker)
    app.command()(migrate)


def up(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    flow: Flows = None,
) -> None:
    """Start everything: database, API and workers, each in a process of its own."""
    from ekiden.cli import supervisor

    exits.leave(supervisor.up(host=host, port=port, workers=workers, flows=flow or []))


def serve(
    host: Host = None,
    port: Port = None,
    flow: Flows = None,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the API alone. It runs no steps: workers do.

    It is told of flows of your own (--flow) for one thing: the replay that its pages offer.
    """
    from ekiden.cli import serving

    exits.leave(serving.serve(host=host, port=port, descriptor=fd, flows=flow or []))


def worker(flow: Flows = None) -> None:
    """Start a worker alone."""
    from ekiden.cli import working

    exits.leave(working.work(flow or []))


def migrate() -> None:
    """Bring the database's schema up to date. The other commands do so as well."""
    from ekiden.cli.compose import Database, run_async
    from ekiden.config import load_settings
    from ekiden.store.migrate import migrate as apply

    with Database(load_settings()) as database:
        applied = run_async(apply(database.dsn()))
    typer.echo("\n".join(f"Applied {name}" for name in applied) or "Up to date.")
