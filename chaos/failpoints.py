"""The cells of the matrix: every failpoint × step kind × phase edge, as far as each applies.

The edges are the first phase, the last one, and one without EXECUTE; the chaos flow has one of
each. A step's end is told apart by what follows it: the next step, a gate, or the next phase.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos import flows
from ekiden import failpoint

_CALLS = ("call.before", "call.midstream", "call.answered", "call.stored")
_COMMITS = ("commit.before", "commit.sent", "commit.after")
_RESCUES = ("rescue.before", "rescue.sent")
_REVIEWS = ("review.before", "review.after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One death, and what it happens in the middle of."""

    failpoint: str
    step: str = ""  # empty: the failpoint knows no step
    phase: int = 0
    gates: bool = False  # a person approves between phases
    held: bool = False  # a person starts each step, so each is claimed from the queue
    kept: bool = False  # the provider keeps its answers: they are fetched, not paid for again
    frozen: bool = False  # it does not die: it wakes when others have its tasks, and goes on
    by: str = ""  # review: who dies over the decision, "cli" or "api"

    @property
    def armed(self) -> str:
        """The value of EKIDEN_FAILPOINT."""
        if self.failpoint.startswith(("rescue.", "review.")):
            return self.failpoint  # step and phase say where the session is, not the process
        return ":".join(str(part) for part in (self.failpoint, self.step, self.phase or "") if part)

    @property
    def name(self) -> str:
        """The cell in words."""
        place = f" {self.step or 'gate'} {self.phase}" if self.phase else ""
        flags = ("gates", "held", "kept", "frozen")
        more = [flag for flag in flags if getattr(self, flag)] + [self.by] * bool(self.by)
        return f"{self.failpoint}{place}" + (f" ({', '.join(more)})" if more else "")


def all_cells() -> list[Cell]:
    """Return the whole matrix."""
    cells = [Cell(failpoint="claim.before")]
    for phase, step in flows.PLACES:
        cells.append(Cell(failpoint="claim.after", step=step, phase=phase, held=True))
        cells += [Cell(failpoint=name, step=step, phase=phase) for name in _CALLS + _COMMITS]
        cells += [
            Cell(failpoint=name, step=step, phase=phase, kept=True)
            for name in ("call.midstream", "call.answered")
        ]
        cells += [
            Cell(failpoint=name, step=step, phase=phase, frozen=True)
            for name in ("call.answered", *_COMMITS)
        ]
        if step == "INTEGRATE" and phase < flows.PHASES:
            cells += [Cell(failpoint=name, step=step, phase=phase, gates=True) for name in _COMMITS]
    for phase, step in ((1, "THINK"), (1, "EXECUTE"), (2, "INTEGRATE"), (3, "INTEGRATE")):
        cells += [Cell(failpoint=name, step=step, phase=phase) for name in _RESCUES]
    for gate in range(1, flows.PHASES):
        for by in ("cli", "api"):
            cells += [Cell(failpoint=name, phase=gate, gates=True, by=by) for name in _REVIEWS]
    return cells


def some_cells(seed: int, more: int = 6) -> list[Cell]:
    """Return one cell of every failpoint, a zombie's, and some more; which ones, the seed says."""
    dice = random.Random(seed)
    cells = all_cells()
    dice.shuffle(cells)
    chosen = [next(c for c in cells if c.failpoint == name) for name in failpoint.NAMES]
    zombies = [c for c in cells if c.frozen and c.failpoint == "commit.sent" and c not in chosen]
    chosen.append(zombies[0])
    return chosen + [cell for cell in cells if cell not in chosen][:more]
