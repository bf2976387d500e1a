"""Runs one session here, with its worker in this process, to its end or to where a person acts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ekiden.cli import exits
from ekiden.cli.follow import Follower, is_at_rest
from ekiden.cli.gate import Gate
from ekiden.cli.view import View
from ekiden.cli.words import readable
from ekiden.errors import Conflict
from ekiden.store.sessions import Sessions
from ekiden.worker.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How people take part."""

    auto_approve: bool = False  # gates are passed without asking
    ask: bool = False  # there is someone at the terminal to ask


class Relay:
    """Follows a session and acts for the person at the terminal where it waits for one."""

    def __init__(
        self, sessions: Sessions, follower: Follower, view: View, manner: Manner, session_id: str
    ) -> None:
        self._sessions = sessions
        self._follower = follower
        self._view = view
        self._manner = manner
        self._session_id = session_id
        self._gate = Gate(sessions, view, session_id)

    async def run(self) -> dict[str, Any]:
        """Return the progress once the session is at rest and nobody here moves it on."""
        async for seen in self._follower.changes():
            self._view.show(seen)
            if is_at_rest(seen.progress) and not await self._act(seen.progress):
                return seen.progress
        raise AssertionError("changes() has no end")

    async def _act(self, progress: dict[str, Any]) -> bool:
        """Move the session on if that is wanted; False leaves it where it is."""
        kind = (progress["waitingFor"] or {}).get("kind")
        try:
            if self._manner.auto_approve:
                return await self._pass(kind, progress)
            if not self._manner.ask or kind not in {"review", "process-async", "items", "budget"}:
                return False
            self._view.pause()
            acted = await self._asked(kind, progress)
            if acted:
                self._view.resume()
            return acted
        except Conflict as refused:
            if not self._manner.auto_approve:
                self._view.line(refused.message, "yellow")
            return True  # somebody else acted meanwhile: look again

    async def _pass(self, kind: str | None, progress: dict[str, Any]) -> bool:
        """Let the session go on unasked, where only a yes was missing."""
        if kind == "process-async":
            await self._sessions.start(self._session_id)
            return True
        if kind != "review":
            return False  # money and failures are decided by people
        shown = list(readable(await self._gate.output(progress)))
        # The revision that is shown, and no other.
        if not await self._gate.approve(progress["revision"], "--auto-approve"):
            return False
        self._gate.excerpt(f"{_title(progress)} — passed (--auto-approve)", shown)
        return True

    async def _asked(self, kind: str, progress: dict[str, Any]) -> bool:
        match kind:
            case "review":
                return await self._gate.review(_title(progress), progress)
            case "items":
                return await self._gate.items(progress)
            case "budget":
                return await self._gate.budget(progress)
            case _:
                return await self._gate.start(progress)


def _title(progress: dict[str, Any]) -> str:
    phase = progress["phases"][progress["currentPhase"] - 1]
    return f"Gate {phase['phase']} of {len(progress['phases']) - 1}: {phase['title']}"


class Interrupt:
    """Ctrl-C and SIGTERM: the first asks to stop, the second stops at once.

    Stopping at once is safe: it is what kill -9 does, and what a rescue is for.
    """

    def __init__(self, *, first: Callable[[], None], second: Callable[[], None]) -> None:
        self._first = first
        self._second = second
        self.asked = asyncio.Event()
        self.code = exits.INTERRUPTED
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._hear, number)

    def _hear(self, number: int) -> None:
        self.code = 128 + number
        if self.asked.is_set():
            self._second()
            sys.stderr.flush()
            os._exit(self.code)
        self._first()
        self.asked.set()


async def run_here(
    relay: Relay, worker: Worker | None, interrupt: Interrupt
) -> dict[str, Any] | int:
    """Run the relay beside the worker; return the last progress, or the code of an interrupt.

    Raises:
        EkidenError: the worker could not start, or the session could not be followed.
    """
    following = asyncio.create_task(relay.run(), name="relay")
    stopping = asyncio.create_task(interrupt.asked.wait(), name="interrupt")
    working = None if worker is None else asyncio.create_task(worker.run(), name="worker")
    try:
        waited = {following, stopping} | ({working} if working else set())
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            return following.result()
        if working is not None and working.done():
            await working  # raises what ended it
        return interrupt.code
    finally:
        following.cancel()
        stopping.cancel()
        if worker is not None and working is not None:
            worker.stop()
        await asyncio.gather(following, stopping, *filter(None, [working]), return_exceptions=True)
