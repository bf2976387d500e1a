"""What the exit codes mean, and which error ends with which."""

from __future__ import annotations

from typing import NoReturn

import typer

from ekiden.errors import EkidenError, FlowError, InputInvalid, SettingsError

COMPLETED = 0  # the session completed; the command did what it was asked
FAILED = 1  # a step failed for good, the session was cancelled, or the command could not be done
USAGE = 2  # a setting, an option or an input is wrong: nothing was started
STOPPED = 3  # the session waits for a person: at a gate, paused, or held
INTERRUPTED = 130  # Ctrl-C


def code_of(error: EkidenError) -> int:
    """Return the exit code an error ends the command with."""
    wrong_use = (SettingsError, InputInvalid, FlowError)
    return USAGE if isinstance(error, wrong_use) else FAILED


def leave(code: int) -> NoReturn:
    """End the command with this exit code."""
    raise typer.Exit(code)


def usage(message: str) -> NoReturn:
    """End the command because it was called wrongly."""
    typer.echo(f"ekiden: {message}", err=True)
    leave(USAGE)
