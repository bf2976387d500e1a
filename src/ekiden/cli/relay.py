"""Runs one session here, with its worker in this process, to its end or to where a person acts."""

from __future__ import annotations

import asyncio
import os
import pydoc
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ekiden.cli import exits
from ekiden.cli.compose import actor
from ekiden.cli.follow import Follower, is_at_rest
from ekiden.cli.view import View
from ekiden.cli.words import readable
from ekiden.errors import Conflict
from ekiden.store.sessions import Sessions
from ekiden.worker.worker import Worker

_EXCERPT = 12  # lines of an output that is passed without asking


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

    async def run(self) -> dict[str, Any]:
        """Return the progress once the session is at rest and nobody here moves it on."""
        async for seen in self._follower.changes():
            self._view.show(seen)
            if is_at_rest(seen.progress) and not await self._act(seen.progress):
                return seen.progress
        raise AssertionError("changes() has no end")

    async def _act(self, progress: dict[str, Any]) -> bool:
        """Move the session on if that is wanted; False leaves it where it is."""
        waiting = progress["waitingFor"] or {}
        try:
            match waiting.get("kind"):
                case "review":
                    return await self._at_gate(progress)
                case "process-async":
                    return await self._at_held_step(progress)
        except Conflict:
            return True  # somebody else acted meanwhile: look again
        return False

    async def _at_gate(self, progress: dict[str, Any]) -> bool:
        phase = progress["phases"][progress["currentPhase"] - 1]
        title = f"Gate {phase['phase']} of {len(progress['phases']) - 1}: {phase['title']}"
        if self._manner.auto_approve:
            self._excerpt(f"{title} — passed (--auto-approve)", await self._output(progress))
            await self._approve(progress, "--auto-approve")
            return True
        if not self._manner.ask:
            return False
        self._view.pause()
        output = await self._output(progress)
        room = max(12, self._view.console.height - 8)
        self._excerpt(title, output, room)
        choice = await self._choose("Approve? [y]es, [o]pen the whole output, [q]uit: ", "yoq")
        while choice == "o":
            await asyncio.to_thread(pydoc.pager, "\n".join(output))
            choice = await self._choose("Approve? [y]es, [o]pen again, [q]uit: ", "yoq")
        if choice == "y":
            await self._approve(progress, None)
        self._view.resume()
        return choice == "y"

    async def _at_held_step(self, progress: dict[str, Any]) -> bool:
        where = f"phase {progress['currentPhase']} {progress['currentStep']}"
        if not self._manner.auto_approve:
            if not self._manner.ask:
                return False
            self._view.pause()
            choice = await self._choose(f"Start {where}? [y]es, [q]uit: ", "yq")
            self._view.resume()
            if choice != "y":
                return False
        await self._sessions.start(self._session_id)
        return True

    async def _output(self, progress: dict[str, Any]) -> list[str]:
        """Return the lines of the output that waits at the gate."""
        revisions = await self._sessions.revisions(self._session_id)
        standing = next((r for r in revisions if r.id == progress["revision"]), None)
        return list(readable(standing.output)) if standing else []

    async def _approve(self, progress: dict[str, Any], comment: str | None) -> None:
        # The revision that was shown, and no other.
        await self._sessions.approve(
            self._session_id, actor=actor(), comment=comment, revision=progress["revision"]
        )

    def _excerpt(self, title: str, output: list[str], room: int = _EXCERPT) -> None:
        self._view.line("")
        self._view.line(title, "bold cyan")
        for line in output[:room]:
            self._view.line(f"  {line}")
        if len(output) > room:
            self._view.line(f"  … {len(output) - room} more lines", "dim")

    async def _choose(self, question: str, choices: str) -> str:
        """Ask until one of the letters is the answer; the end of the input is 'q'."""
        while True:
            self._view.console.print(question, end="", markup=False, highlight=False)
            line = await _read_line()
            if line is None:
                self._view.line("")
                return "q"
            if (answer := line.strip().lower()[:1]) and answer in choices:
                return answer


async def _read_line() -> str | None:
    """Read a line from the terminal while the loop goes on; None at its end."""
    # Not in a thread: a thread that waits for a person cannot be stopped by Ctrl-C.
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    descriptor = sys.stdin.fileno()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
        return os.read(descriptor, 4096).decode(errors="replace") or None
    finally:
        loop.remove_reader(descriptor)


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
