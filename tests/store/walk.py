"""What can happen next, as far as a model has come: sensible things often, the others too."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ekiden.core.machine import SessionEvent, session_after
from ekiden.core.model import SessionState, WorkerState
from tests.store.model import LEASE, Model
from tests.store.shapes import SHAPES, Done, Token

ALL = tuple(SHAPES)
KNOWS = {"A": ALL, "B": ALL, "C": ("fans",)}  # which flows a worker knows, by its first letter


class Call(NamedTuple):
    """One operation, to be done to the model and to the store."""

    name: str
    arguments: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))})"


class Walk:
    """A model, and every attempt there ever was."""

    def __init__(self) -> None:
        self.model = Model()
        self.tokens: list[Token] = []

    def held(self) -> list[Token]:
        return [Token(task.place, task.attempt) for task in self.model.running()]

    def alive(self) -> list[str]:
        return [n for n, w in self.model.workers.items() if w.state is WorkerState.ALIVE]

    def live(self) -> list[str]:
        """Return the sessions that have not ended."""
        return [
            name
            for name, session in self.model.sessions.items()
            if session_after(session.status, SessionEvent.CANCEL) is not None
        ]

    # -- kinds of things: each returns what of it is possible now -----------------------------

    def creations(self) -> list[Call]:
        if len(self.live()) == 3:
            return []
        name = f"s{len(self.model.sessions) + 1}"
        options = product(SHAPES.values(), (True, True, False), (True, False), (True, True, False))
        return [Call("create", (name, *of)) for of in options]

    def claims(self) -> list[Call]:
        return [
            Call("claim", (worker, KNOWS[worker[0]], limit, only))
            for worker in self.alive()
            for limit, only in ((4, None), (1, None), (2, min(self.model.sessions, default=None)))
            if self.model.due(KNOWS[worker[0]])
        ]

    def completions(self) -> list[Call]:
        return [call for token in self.held() for call in self._completions(token)]

    def mishaps(self) -> list[Call]:
        """Return how attempts end that do not succeed."""
        return [call for token in self.held() for call in _ends(token)]

    def too_late(self) -> list[Call]:
        return self._late(self._stale())

    def zombies(self) -> list[Call]:
        """Return what attempts do whose task runs again, under another one: the fence is all."""
        running = {token.place for token in self.held()}
        return self._late([token for token in self._stale() if token.place in running])

    def decisions(self) -> list[Call]:
        """Return what a person can do, sensible or not."""
        ended = [name for name in self.model.sessions if name not in self.live()]
        return [call for name in (*self.live(), *ended[:1]) for call in self._decisions(name)]

    def endings(self) -> list[Call]:
        """Return the end of a session that was worth something."""
        worth = [n for n in self.live() if sum(p.session == n for p in self.model.tasks) > 2]
        return [Call("cancel", (name,)) for name in worth]

    def deaths(self) -> list[Call]:
        holding = {task.worker for task in self.model.running()}
        return [Call("die", (worker,)) for worker in self.alive() if worker in holding]

    def rescues(self) -> list[Call]:
        """Return what follows a death: its rescue, or a worker that was only slow."""
        dead = tuple(sorted(self.model.dead()))
        return [Call("rescue", (dead,)), *(Call("renew", (w,)) for w in dead)] if dead else []

    def arrivals(self) -> list[Call]:
        number = len(self.model.workers)
        return [Call("hello", (f"{w}{number}",)) for w in KNOWS] if len(self.alive()) < 3 else []

    def waits(self) -> list[Call]:
        later = any(task.available_at > self.model.now for task in self.model.tasks.values())
        return [Call("pass_time", (5,))] if later else []

    def sibling_pairs(self) -> list[Call]:
        """Return two tasks of one step that are completed at once."""
        pairs = permutations(self.held(), 2)
        return [
            Call("race", (one.place.session, self._completions(one)[0], self._completions(two)[0]))
            for one, two in pairs
            if one.place.session == two.place.session
        ]

    def doubled(self) -> list[Call]:
        """Return the same thing done twice at once, as by two clicks or a repeated request."""
        once = self.completions() + self.mishaps() + self.decisions()
        return [Call("race", (_session_of(call), call, call)) for call in once]

    def all_on(self, name: str) -> list[list[Call]]:
        """Return everything that can be done to one session now, kind by kind."""
        mine = [token for token in self.held() if token.place.session == name]
        everyone = [Call("complete", ("A", tuple(Done(t, 2, 1) for t in mine)))]
        kinds = [
            [call for token in mine for call in self._completions(token)],
            everyone if len(mine) > 1 else [],
            [call for token in mine for call in _ends(token)],
            self._late([token for token in self._stale() if token.place.session == name]),
            self._decisions(name),
            [Call(verb, (name,)) for verb in ("pause", "resume", "cancel")],
            [call for call in self.rescues() if call.name == "rescue"],
            self.claims(),
        ]
        return [kind for kind in kinds if kind]

    def _stale(self) -> list[Token]:
        held = self.held()
        return [token for token in self.tokens if token not in held]

    def _late(self, stale: list[Token]) -> list[Call]:
        late = [Call("complete", ("A", (Done(token, 2, 1),))) for token in stale]
        return late + [call for token in stale for call in _ends(token)]

    def _completions(self, token: Token) -> list[Call]:
        session = self.model.sessions[token.place.session]
        fans_out = session.follows(token.place, 2)[1] is not None
        worker = self.model.tasks[token.place].worker
        return [
            Call("complete", (worker, (Done(token, items, room),)))
            for items in ((2, 3, 0, 1) if fans_out else (1,))
            for room in (1, 0, 2)
        ]

    def _decisions(self, name: str) -> list[Call]:
        calls = [Call(verb, (name,)) for verb in ("start", "pause", "resume")]
        calls.append(Call("approve", (name, None, "k1")))
        match self.model.sessions[name].status:
            case SessionState.AWAITING_REVIEW:
                seen = [(1, None), (None, None), (0, None), (1, "k1"), (1, "k2")]
                calls += [Call("approve", (name, *of)) for of in seen]
            case SessionState.PAUSED | SessionState.FAILED:
                calls += [Call("resume", (name,))] * 6
        return calls


def _session_of(call: Call) -> str:
    """Return the session that a call is about."""
    of = call.arguments[1][0].token if call.name == "complete" else call.arguments[0]
    return of.place.session if isinstance(of, Token) else str(of)


def _ends(token: Token) -> list[Call]:
    ends = [Call("retry", (token, 0)), Call("retry", (token, 5))]
    return ends + [Call(verb, (token,)) for verb in ("fail", "release", "deliver")]


# How often each kind of thing shall happen while it can.
_OFTEN: dict[Callable[[Walk], list[Call]], int] = {
    Walk.claims: 8, Walk.completions: 8, Walk.creations: 3, Walk.rescues: 6, Walk.decisions: 3,
    Walk.waits: 2, Walk.mishaps: 3, Walk.deaths: 3, Walk.too_late: 1, Walk.zombies: 4,
    Walk.endings: 1, Walk.arrivals: 1, Walk.sibling_pairs: 4, Walk.doubled: 2,
}  # fmt: skip


def of(pick: Callable[[Any], Any]) -> st.SearchStrategy[Any]:
    """Draw from what the state machine's walk holds at this moment."""
    return st.runner().flatmap(lambda machine: st.sampled_from(pick(machine.walk)))


_DRAWN = {kind: of(kind) for kind in _OFTEN}


def _kinds(walk: Walk) -> list[st.SearchStrategy[Call]]:
    kinds = [_DRAWN[kind] for kind, n in _OFTEN.items() if kind(walk) for _ in range(n)]
    if len(walk.held()) > 1:
        kinds += [_BATCH] * 3
    if walk.live():
        kinds += [_RACE] * 4
    return kinds


# Several completions in one statement, of several sessions, some with tokens long worthless.
_BATCH = st.lists(
    st.builds(
        Done,
        st.one_of(of(Walk.held), of(Walk.held), of(lambda walk: walk.tokens)),
        st.integers(0, 4),
        st.integers(0, 3),
    ),
    min_size=2, max_size=6, unique_by=lambda done: done.token.place,
).map(lambda batch: Call("complete", ("B", tuple(batch))))  # fmt: skip


def _one_on(name: str) -> st.SearchStrategy[Call]:
    return of(lambda walk: walk.all_on(name)).flatmap(st.sampled_from)


# Two things at once on one session.
_RACE = of(Walk.live).flatmap(
    lambda name: st.builds(
        lambda one, two: Call("race", (name, one, two)), _one_on(name), _one_on(name)
    )
)

ANYTHING: st.SearchStrategy[Call] = of(_kinds).flatmap(lambda kind: kind)
assert LEASE > 5  # no one dies of waiting
