"""``ekiden sources``: what is searched."""

from __future__ import annotations

from typing import Annotated

import typer

_EPILOG = """\b
Let sessions search your notes; the same command again brings them up to date:
  ekiden sources add ~/notes
  ekiden sources add https://example.org/feed.xml
  ekiden sources list"""

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]

app = typer.Typer(
    help="What sessions search: folders and feeds of yours, and the demo corpus.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder or file (.md, .txt, .html, .pdf, .docx), or the address of an RSS or "
            "Atom feed."
        ),
    ],
    json: Json = False,
) -> None:
    """Add a folder or a feed, or bring it up to date."""
    from ekiden.cli import documents

    documents.add(source, machine=json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the sources, with how many documents each has."""
    from ekiden.cli import documents

    documents.show(machine=json)


@app.command()
def remove(
    source: Annotated[str, typer.Argument(help="As 'sources list' shows it, or the path.")],
    json: Json = False,
) -> None:
    """Remove a source and all its documents from what is searched. Your files stay."""
    from ekiden.cli import documents

    documents.remove(source, machine=json)
