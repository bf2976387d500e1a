"""Lets a person change a JSON value in their editor, until it fits or they give up."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ekiden.errors import EkidenError, InputInvalid

_HELP = """\
# {what}. Lines that begin with # are left out.
# Save and close to keep your changes; empty the file, or change nothing, to leave it as it is.
"""
_WRONG = """\
#
# That does not fit:
{problems}
"""


def editor() -> list[str]:
    """Return the command of the person's editor.

    Raises:
        EkidenError: there is none; says how to name one.
    """
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named:
        return shlex.split(named)
    for known in ("sensible-editor", "nano", "vi"):
        if shutil.which(known):
            return [known]
    raise EkidenError("There is no editor. Name one: export EDITOR=nano")


def edit(value: Any, *, what: str, again: str, keep: Callable[[Any], None]) -> bool:
    """Open a value in the editor and keep what comes back; reopen it while it does not fit.

    Args:
        value: JSON.
        what: how people call it.
        again: the command that takes what was typed from a file (``--file``).
        keep: stores the new value.

    Returns:
        Whether anything was kept: not when it was left unchanged or emptied.

    Raises:
        EkidenError: the editor or ``keep`` failed; what was typed is in the file it names.
    """
    before = json.dumps(value, ensure_ascii=False, indent=2).encode()
    with tempfile.TemporaryDirectory(prefix="ekiden-") as folder:
        file = Path(folder) / "output.json"
        try:
            return _until_it_fits(file, before, what, keep)
        except (Exception, KeyboardInterrupt) as error:
            typed = _without_comments(file.read_bytes()) if file.exists() else b""
            if typed in {b"", before}:
                raise
            name = _saved(typed)
            kept = f"What you typed is in {name}. Go on with it: {again} --file {shlex.quote(name)}"
            if not isinstance(error, EkidenError):
                why = str(error) or type(error).__name__
                raise EkidenError(f"{what} was not stored: {why}. {kept}") from error
            error.args = (f"{error.message} {kept}",)
            raise


def _until_it_fits(file: Path, before: bytes, what: str, keep: Callable[[Any], None]) -> bool:
    # Bytes, as the editor wrote them: text would be split where JSON is not, as at U+2028.
    text, problems = before, ""
    while True:
        file.write_bytes((_HELP.format(what=what) + problems).encode() + text + b"\n")
        _run(file)
        text = _without_comments(file.read_bytes())
        if not text or text == before:
            return False
        try:
            keep(json.loads(text))
        except ValueError as error:
            problems = _WRONG.format(problems=f"#   it is not JSON: {error}")
        except InputInvalid as error:
            lines = [f"#   {name or 'it'}: {said}" for name, said in error.problems]
            problems = _WRONG.format(problems="\n".join(lines) or f"#   {error.message}")
        else:
            return True


def _run(file: Path) -> None:
    command = [*editor(), str(file)]
    try:
        code = subprocess.call(command)  # noqa: S603 - the person's own editor
    except OSError as error:
        raise EkidenError(f"The editor {command[0]!r} cannot be run: {error.strerror}") from None
    if code:
        raise EkidenError(f"The editor {command[0]!r} ended with code {code}; nothing was changed.")


def _without_comments(text: bytes) -> bytes:
    return b"\n".join(line for line in text.splitlines() if not line.startswith(b"#")).strip()


def _saved(typed: bytes) -> str:
    """Write it to a file that stays; return its name."""
    descriptor, name = tempfile.mkstemp(prefix="ekiden-", suffix=".json")
    with os.fdopen(descriptor, "wb") as file:
        file.write(typed + b"\n")
    return name
