"""What the pages can have done by a program of its own, beside the process that serves them.

Replay runs steps, and a check asks providers: the API does neither. Whoever assembles the app gives
it these, as it gives it the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Tools(Protocol):
    """Programs that a person starts from a page. Each runs once at a time.

    Raises:
        Conflict: it runs already.
        EkidenError: it could not do it; the message says why.
    """

    @property
    def configuration(self) -> Sequence[dict[str, str]]:
        """Every setting: ``name``, ``value`` (never a secret) and ``from``, where it comes from."""

    async def replay(self, session_id: str) -> dict[str, Any]:
        """Run a session again on its recording; return what ``sessions replay --json`` says."""

    async def check(self, *, providers: bool) -> dict[str, Any]:
        """Look at this machine, or at its providers too; return what ``doctor --json`` says."""
