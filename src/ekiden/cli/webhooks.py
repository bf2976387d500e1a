"""``ekiden webhooks``: who is told when a session waits or ends, or something goes wrong."""

from __future__ import annotations

from typing import Annotated

import typer

_EPILOG = """\b
Tell a chat's bridge when something waits for a person:
  ekiden webhooks add https://example.org/hook --event session.waiting
\b
Tell somebody when steps fail, nobody works or a worker is lost (docs/alerts.md):
  ekiden webhooks add https://example.org/hook --event alert.raised --event alert.resolved
\b
What is sent is signed (Standard Webhooks); the secret is shown once, by add.
Not taken? It is sent again with growing pauses, and ekiden webhooks log says why."""

app = typer.Typer(
    help="Tell other systems when a session waits or ends, or something goes wrong.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where to send it: https://…")],
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="session.waiting, session.budget, session.completed, session.failed, "
            "alert.raised or alert.resolved; may be repeated. Else all."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Tell an address from now on; prints the secret that signs what is sent."""
    from ekiden.cli import hooks

    hooks.add(url, event or [], machine=json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List who is told, and how that goes."""
    from ekiden.cli import hooks

    hooks.show_list(machine=json)


@app.command()
def stop(
    webhook: Annotated[int, typer.Argument(metavar="N", help="Its number.")], json: Json = False
) -> None:
    """Tell somebody no more; what is still owed to them is dropped."""
    from ekiden.cli import hooks

    hooks.stop(webhook, machine=json)


@app.command()
def log(
    session: Annotated[str | None, typer.Option(help="Only of this session.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 20,
    json: Json = False,
) -> None:
    """List the newest deliveries and how their last try went."""
    from ekiden.cli import hooks

    hooks.log(session, limit=limit, machine=json)
