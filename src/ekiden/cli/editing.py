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


def edit(value: Any, *, what: str, keep: Callable[[Any], None]) -> bool:
    """Open a value in the editor and keep what comes back; reopen it while it does not fit.

    Args:
        value: JSON.
        what: how people call it.
        keep: stores the new value.

    Returns:
        Whether anything was kept: not when it was left unchanged or emptied.

    Raises:
        EkidenError: the editor could not be run; what was typed is in the file it names.
    """
    with tempfile.TemporaryDirectory(prefix="ekiden-") as folder:
        file = Path(folder) / "output.json"
        text, problems = json.dumps(value, ensure_ascii=False, indent=2), ""
        before = text
        while True:
            file.write_text(_HELP.format(what=what) + problems + text + "\n", "utf-8")
            _run(file)
            text = _without_comments(file.read_text("utf-8"))
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


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()
