"""``ekiden``: the root command, and how every error becomes one line and an exit code.

Only what ``--help`` needs is imported here and at the top of the command modules; everything else
is imported by the command that was asked for. A test holds that.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ekiden import __version__
from ekiden.cli import (
    doctor,
    models,
    prune,
    run,
    sessions,
    sources,
    step,
    top,
    up,
    verify,
    webhooks,
)
from ekiden.cli.exits import code_of
from ekiden.errors import EkidenError

_EPILOG = """\b
Try it now, without a server and without a key:
  ekiden demo
\b
Run a session here; it stops at each gate and asks:
  ekiden run viral --theme "remote work"
\b
Or start everything (database, API, worker) and use HTTP:
  ekiden up
\b
What is set, and what is wrong with this machine:
  ekiden doctor
\b
Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 stopped at a gate."""

app = typer.Typer(
    name="ekiden",
    help="Durable, staged LLM pipelines on PostgreSQL, with a person at every gate.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: instant, and the same in every terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ekiden {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


run.register(app)
step.register(app)
top.register(app)
up.register(app)
app.add_typer(sessions.app, name="sessions")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(sources.app, name="sources")
app.add_typer(models.app, name="models")
doctor.register(app)
verify.register(app)
prune.register(app)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show becomes a question mark, never a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except EkidenError as error:
        typer.echo(f"ekiden: {error.message}", err=True)
        sys.exit(code_of(error))
