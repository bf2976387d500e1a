"""What the pages have done: commands of this program, each as a process of its own.

So a flow's code never runs where pages are served, and a page says what the command says.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from ekiden.cli.diagnosis import configuration
from ekiden.config import Settings
from ekiden.errors import Conflict, EkidenError
from ekiden.redaction import redact

_REPLAY = 60.0  # seconds it may take
_CHECK = 120.0
_LONGEST = 500  # characters of why it failed


class Commands:
    """Implements ``ekiden.api.tools.Tools``.

    Args:
        settings: what the server runs with.
        references: flows beyond the installed ones, as ``--flow`` takes them.
    """

    def __init__(self, settings: Settings, references: Sequence[str]) -> None:
        self.configuration = configuration(settings)
        self._flows = [word for reference in references for word in ("--flow", reference)]
        self._replaying, self._checking = asyncio.Lock(), asyncio.Lock()

    async def replay(self, session_id: str) -> dict[str, Any]:
        """Run ``ekiden sessions replay``."""
        words = ("sessions", "replay", session_id, *self._flows)
        return await _run(self._replaying, words, patience=_REPLAY)

    async def check(self, *, providers: bool) -> dict[str, Any]:
        """Run ``ekiden doctor``."""
        words = ("doctor", *(["--providers"] if providers else []))
        return await _run(self._checking, words, patience=_CHECK)


async def _run(lock: asyncio.Lock, words: Sequence[str], *, patience: float) -> dict[str, Any]:
    if lock.locked():
        raise Conflict("Somebody has just started the same. Try again when it is done.")
    async with lock:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ekiden.cli", *words, "--json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(patience):
                out, err = await process.communicate()
        except TimeoutError:
            raise EkidenError(f"It took longer than {patience:g} s and was stopped.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    # Its exit code says what it found, not whether it could look: what it said does.
    try:
        # Its last line: before it a flow may have printed what it likes.
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        lines = err.decode("utf-8", "replace").strip().splitlines()
        why = redact(lines[-1].removeprefix("ekiden: "))[:_LONGEST] if lines else "It said nothing."
        raise EkidenError(why) from None
    return told
