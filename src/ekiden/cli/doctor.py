"""``ekiden doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from ekiden.cli import exits


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="What is set, and what is wrong here.")(doctor)


def doctor(
    providers: Annotated[
        bool,
        typer.Option(
            "--providers",
            help="Also make one tiny call to each model and search engine that is set up, and say "
            "what works, how fast and for how much. It may cost a fraction of a cent each.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say what is set, from where, and what is wrong with this machine."""
    from ekiden.cli import diagnosis

    exits.leave(diagnosis.report(machine=json, providers=providers))
