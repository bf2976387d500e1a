"""The words in which the store is talked about: flows, places, attempts, answers."""

from __future__ import annotations

from typing import NamedTuple

from ekiden.core.model import StepKind

_T, _E, _I = StepKind.THINK, StepKind.EXECUTE, StepKind.INTEGRATE


class Shape(NamedTuple):
    """A flow, as far as the store can tell: the steps of its phases, and which of them fan out."""

    name: str
    phases: tuple[tuple[StepKind, ...], ...]
    fans_out: frozenset[int] = frozenset()

    def __repr__(self) -> str:
        return self.name

    def kinds(self, phase: int) -> tuple[StepKind, ...]:
        return self.phases[phase - 1]


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("short", ((_T, _I),)),
        Shape("fans", ((_T, _E, _I), (_T, _I)), frozenset({1})),
        Shape("long", ((_T, _I), (_T, _E, _I), (_T, _E, _I)), frozenset({3})),
    )
}


class Place(NamedTuple):
    """Which task: the store may hold one at each place, whatever its id."""

    session: str
    phase: int
    generation: int
    step: StepKind
    item: int

    def __repr__(self) -> str:
        return f"{self.session}/{self.phase}.{self.step}[{self.item}]"


class Token(NamedTuple):
    """One attempt of a task, as a worker holds it."""

    place: Place
    attempt: int

    def __repr__(self) -> str:
        return f"{self.place!r}#{self.attempt}"


class Done(NamedTuple):
    """One finished attempt of a batch."""

    token: Token
    items: int  # what each() makes, where this THINK is followed by a fan-out
    room: int  # how many of the next tasks the worker takes at once

    def __repr__(self) -> str:
        return f"{self.token!r}→{self.items}/{self.room}"


class Claimed(NamedTuple):
    """A task as a claim gives it."""

    place: Place
    attempt: int
    budget_from: int
    delivered: bool


class Handed(NamedTuple):
    """What a hand-off answers: positions in the batch, and the places handed on at each."""

    accepted: frozenset[int]
    following: dict[int, frozenset[Place]]
    left_queued: bool
