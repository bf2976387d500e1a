"""``ekiden sources``: what is searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_EPILOG = """\b
Let sessions search your notes; the same command again brings them up to date:
  ekiden sources add ~/notes
  ekiden sources list"""

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]

app = typer.Typer(
    help="What sessions search: folders of yours, and the demo corpus.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="A folder or file: .md, .txt, .html.")],
    json: Json = False,
) -> None:
    """Add a folder, or bring it up to date."""
    from ekiden.cli import documents

    documents.add(path, machine=json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the sources, with how many documents each has."""
    from ekiden.cli import documents

    documents.show(machine=json)


@app.command()
def remove(
    source: Annotated[str, typer.Argument(help="As 'sources list' shows it, or the path.")],
) -> None:
    """Remove a source and all its documents. The files themselves stay."""
    from ekiden.cli import documents

    documents.remove(source)
