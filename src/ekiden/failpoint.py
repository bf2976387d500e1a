"""Named places where a process can be made to die, for the fault suite.

``EKIDEN_FAILPOINT=commit.sent`` ends the process at once, as kill -9 would, the first time it gets
there; ``commit.sent:EXECUTE`` only in that step, ``commit.sent:EXECUTE:2`` only in phase 2. With
``EKIDEN_FAILPOINT_DOES=freeze`` it stops there instead, as SIGSTOP would, until it is sent SIGCONT;
it does so once. Without the variable a failpoint costs one comparison.
"""

from __future__ import annotations

import asyncio
import os
import signal

EXIT_CODE = 86

NAMES = (
    "claim.before",  # about to claim
    "claim.after",  # claimed, nothing started yet
    "call.before",  # about to ask the provider
    "call.midstream",  # the first text of the answer has come
    "call.answered",  # the whole answer is in memory and nowhere else
    "call.stored",  # it is in the ledger, nobody has read it yet
    "commit.before",  # the step has its result, nothing sent
    "commit.sent",  # the hand-off is on its way, its answer is not here
    "commit.after",  # the hand-off is durable, nobody was told
    "rescue.before",  # a worker is known to be dead
    "rescue.sent",  # its rescue is on its way
    "review.before",  # a decision holds the session's lock
    "review.after",  # it is durable, nobody was told
)


def _parse(text: str) -> tuple[str, str, str]:
    name, _, rest = text.partition(":")
    step, _, phase = rest.partition(":")
    if name and name not in NAMES:
        raise SystemExit(
            f"EKIDEN_FAILPOINT: there is no failpoint {name!r}. Known: {', '.join(NAMES)}"
        )
    return name, step, phase


_NAME, _STEP, _PHASE = _parse(os.environ.get("EKIDEN_FAILPOINT", ""))
_FREEZES = os.environ.get("EKIDEN_FAILPOINT_DOES") == "freeze"


def reach(name: str, step: str = "", phase: int = 0) -> None:
    """Die here, if this is the place."""
    if name == _NAME and _fits(step, phase):
        _end()


def reach_soon(name: str, step: str = "", phase: int = 0) -> None:
    """Die as soon as what the running coroutine sends next has left, before an answer is read.

    Who freezes does so before that: what it sends when it wakes is late.
    """
    if name == _NAME and _fits(step, phase):
        if _FREEZES:
            _end()
            return
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, _end)


def _end() -> None:
    global _NAME  # noqa: PLW0603 - who was frozen here goes on
    if not _FREEZES:
        os._exit(EXIT_CODE)
    _NAME = ""
    os.kill(os.getpid(), signal.SIGSTOP)


def _fits(step: str, phase: int) -> bool:
    return _STEP in {"", step} and _PHASE in {"", str(phase)}
