"""The person at the terminal: what a gate or a stop shows, asks, and does."""

from __future__ import annotations

import asyncio
import os
import pydoc
import re
import sys
import termios
from decimal import Decimal, InvalidOperation
from typing import Any

from ekiden.cli import editing
from ekiden.cli.compose import actor
from ekiden.cli.view import View
from ekiden.cli.words import readable
from ekiden.core.budget import Limit, limit_of
from ekiden.core.model import Budget, Review, Reviewed, StepKind, Verb
from ekiden.core.refusals import place_in
from ekiden.errors import Conflict, EkidenError, InputInvalid
from ekiden.store.sessions import Sessions

EXCERPT = 12  # lines of an output that is passed without asking

_AT_GATE = (
    "[a]pprove, [e]dit, [r]eject with a note, [g]o back and run again, "
    "[o]pen the whole output, [q]uit: "
)
_OFFERED = re.compile(r"\[(\w)\](\w*)")  # an answer in a question: its letter, and the rest of it
_NOTE = "What should be different? (one line; empty: nothing) "
# Refusals that no second try mends: the gate is for somebody else.
_FOR_OTHERS = frozenset({"not-an-approver", "four-eyes", "approved-already"})
_HOW_MUCH = {
    Limit.COST: "Raise it to how many US dollars in all?",
    Limit.TOKENS: "Raise it to how many tokens in all?",
    Limit.PRICE: "How many tokens instead, in all?",
}


class Gate:
    """Asks the person, and takes the decision.

    Args:
        sessions: where the session is kept.
        view: where it is shown; paused while somebody is asked.
        session_id: which session.
    """

    def __init__(self, sessions: Sessions, view: View, session_id: str) -> None:
        self._sessions = sessions
        self._view = view
        self._session_id = session_id

    async def take(self, verb: Verb, **of: Any) -> Reviewed:
        """Take a decision in the name of who runs this."""
        review = Review(verb=verb, actor=actor(), **of)
        return await self._sessions.reviews.take(self._session_id, review)

    async def approve(self, revision: int, comment: str | None = None) -> bool:
        """Approve the revision that was looked at; False, and said, where others must."""
        try:
            done = await self.take(Verb.APPROVE, revision=revision, comment=comment)
        except Conflict as refused:
            if refused.kind not in _FOR_OTHERS:
                raise
            self._view.line(refused.message, "yellow")
            return False
        if done.missing:
            self._view.line(f"Your approval counts; {done.missing} more must approve.", "yellow")
        return not done.missing

    async def review(self, title: str, progress: dict[str, Any]) -> bool:
        """Show what waits at the gate and ask until something is decided; False to leave it."""
        output = await self.output(progress)
        lines = list(readable(output))
        self.excerpt(title, lines, max(EXCERPT, self._view.console.height - 9))
        if progress["complaint"]:
            self._view.line(f"  The flow's check: {progress['complaint']}", "yellow")
        seen = progress["revision"]
        while True:
            match await self._choose(_AT_GATE):
                case "a":
                    if await self.approve(seen):
                        return True
                case "e":
                    if await self._edit(output, progress["currentPhase"], seen):
                        return True
                    self._view.line("Nothing was changed.", "dim")
                case "r":
                    if note := await self._ask(_NOTE):
                        await self.take(Verb.REJECT, comment=note, revision=seen)
                        return True
                case "g":
                    if await self._go_back(progress):
                        return True
                case "o":
                    await asyncio.to_thread(pydoc.pager, "\n".join(lines))
                case _:
                    return False

    async def items(self, progress: dict[str, Any]) -> bool:
        """Ask what becomes of items that failed."""
        self._view.line(progress["waitingFor"]["message"], "yellow")
        asked = "[a]ccept what there is, [r]etry what failed, [q]uit: "
        match await self._choose(asked):
            case "a":
                await self.take(Verb.ACCEPT, seen=place_in(progress))
            case "r":
                await self.take(Verb.RETRY, seen=place_in(progress))
            case _:
                return False
        return True

    async def budget(self, progress: dict[str, Any]) -> bool:
        """Ask for more of what ran out; what else limits the session stays."""
        stop = progress["stop"] or {}
        limit = limit_of(stop)
        self._view.line(progress["waitingFor"]["message"], "yellow")
        while said := await self._ask(f"{_HOW_MUCH[limit]} (empty: leave it) "):
            try:
                new = _budget(said, limit)
            except (InvalidOperation, ValueError):
                self._view.line(f"  {said!r} is no such number.", "yellow")
                continue
            # Where the price is not known, dollars would stop it again: tokens take their place.
            keep = limit is not Limit.PRICE
            await self.take(Verb.BUDGET, phase=stop.get("ofPhase", 0), budget=new, keep=keep)
            return True
        return False

    async def start(self, progress: dict[str, Any]) -> bool:
        """Ask whether a held step may start."""
        where = f"phase {progress['currentPhase']} {progress['currentStep']}"
        if await self._choose(f"Start {where}? [y]es, [q]uit: ") != "y":
            return False
        await self._sessions.start(self._session_id, seen=place_in(progress))
        return True

    async def output(self, progress: dict[str, Any]) -> Any:
        """Return the output that waits at the gate."""
        revisions = await self._sessions.revisions(self._session_id)
        standing = next((r for r in revisions if r.id == progress["revision"]), None)
        return standing.output if standing else None

    def excerpt(self, title: str, lines: list[str], room: int = EXCERPT) -> None:
        """Show a title and the first lines of an output."""
        self._view.line("")
        self._view.line(title, "bold cyan")
        for line in lines[:room]:
            self._view.line(f"  {line}")
        if len(lines) > room:
            self._view.line(f"  … {len(lines) - room} more lines", "dim")

    async def _edit(self, output: Any, phase: int, seen: int) -> bool:
        loop = asyncio.get_running_loop()

        def keep(value: Any) -> None:
            # Called in the editor's thread: the store lives in this loop.
            taking = self.take(Verb.EDIT, output=value, phase=phase, revision=seen)
            asyncio.run_coroutine_threadsafe(taking, loop).result()

        def work() -> bool:
            try:
                return editing.edit(
                    output,
                    what=f"The output of phase {phase}",
                    again=f"ekiden sessions edit {self._session_id} --phase {phase}",
                    keep=keep,
                )
            except Conflict:
                raise  # somebody else has decided meanwhile: look again
            except EkidenError as error:
                # Said in the editor's thread: Ctrl-C ends the waiting for it, not the editor.
                self._view.line(error.message, "yellow")
                return False

        return await asyncio.to_thread(work)

    async def _go_back(self, progress: dict[str, Any]) -> bool:
        """Ask where to, say what that would touch, and do it."""
        current = progress["currentPhase"]
        said = await self._ask(f"To which phase, 1 to {current}? (empty: to none) ")
        if not said.isdecimal() or not 1 <= int(said) <= current:
            return False
        phase = int(said)
        kinds = [s["step"] for s in progress["phases"][phase - 1]["steps"]]
        step = (await self._ask(f"From which step: {', '.join(kinds)}? (empty: THINK) ")).upper()
        if step and step not in kinds:
            self._view.line(f"  Phase {phase} has no step {step}.", "yellow")
            return False
        stale, kept = await self._sessions.reviews.would_be_stale(self._session_id, phase)
        touched = f" So would {_phases(stale)}." if stale else ""
        spared = f" {_phases(kept).capitalize()} would be kept." if kept else ""
        self._view.line(f"  Phase {phase} would run again.{touched}{spared}")
        if await self._choose("Do it? [y]es, [n]o: ") != "y":
            return False
        try:
            await self.take(Verb.RERUN, phase=phase, step=StepKind(step or "THINK"))
        except InputInvalid as error:
            self._view.line(error.message, "yellow")
            return False
        return True

    async def _choose(self, question: str) -> str:
        """Ask until the answer is one that the question offers; the end of the input is 'q'."""
        answers = {"q": "q"}
        for letter, rest in _OFFERED.findall(question):
            answers |= {letter: letter, letter + rest: letter}
        while True:
            said = (await self._ask(question, end="q")).lower()
            if said in answers:
                return answers[said]

    async def _ask(self, question: str, end: str = "") -> str:
        """Ask and return the line; ``end`` at the end of the input."""
        # What was typed before a question was seen is no answer to it; nor is the rest of a paste.
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
        self._view.console.print(question, end="", markup=False, highlight=False)
        line = await _read_line()
        if line is None:
            self._view.line("")
            return end
        return line.strip()


def _budget(said: str, limit: Limit) -> Budget:
    """Return the limit that somebody typed.

    Raises:
        ValueError: it is none; or InvalidOperation.
    """
    amount = Decimal(said) if limit is Limit.COST else Decimal(int(said))
    if not amount.is_finite() or amount < 0:
        raise ValueError(said)
    if limit is Limit.COST:
        return Budget(max_cost_usd=amount)
    return Budget(max_tokens=int(amount))


def _phases(numbers: list[int]) -> str:
    return ("phase " if len(numbers) == 1 else "phases ") + ", ".join(map(str, numbers))


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
