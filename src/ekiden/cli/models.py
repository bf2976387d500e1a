"""``ekiden models``: the model that comes along."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="The embedded model.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@app.callback()
def _group() -> None:
    pass


@app.command()
def pull() -> None:
    """Fetch the embedded model (98 MB) now, so that no session has to wait for it."""
    from rich.console import Console

    from ekiden.cli.view import make_view
    from ekiden.config import load_settings
    from ekiden.providers.models import pull_embedded_model

    settings = load_settings()
    view = make_view(Console(stderr=True))
    with view.running():
        path = pull_embedded_model(settings.home, view.download)
    typer.echo(path)
