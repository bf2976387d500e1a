"""A random walk through the store, held against the pure machine at every step.

Sessions of several shapes, workers that claim, die, come late and carry stale tokens, people who
decide at any time; and any two of these at once on one session, where the outcome must be that of
one order or the other. EKIDEN_STATEFUL_EXAMPLES sets how many walks (60 unless told).
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ekiden.core.machine import SessionEvent, session_after
from ekiden.core.model import SessionState, TaskState, WorkerState
from tests.store.driver import Call, Driver, on_model, open_driver
from tests.store.model import LEASE, SHAPES, Done, Impossible, Model, Place, Shape, Token

EXAMPLES = int(os.environ.get("EKIDEN_STATEFUL_EXAMPLES", "60"))
# Shrinking a failure takes minutes; a first look does not need it.
PHASES = [p for p in Phase if p is not Phase.shrink or "EKIDEN_NO_SHRINK" not in os.environ]
ALL = tuple(SHAPES)
KNOWS = {"A": ALL, "B": ALL, "C": ("fans",)}  # which flows a worker knows, by its first letter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def of(pick: Callable[[StoreMachine], list[Any]]) -> st.SearchStrategy[Any]:
    """Draw from what the machine holds at this moment."""
    return st.runner().flatmap(lambda machine: st.sampled_from(pick(machine)))


sessions = of(lambda m: list(m.model.sessions))
live_sessions = of(lambda m: m.live())
running = of(lambda m: m.held())
any_token = of(lambda m: m.tokens)
workers = of(lambda m: list(m.model.workers))
living = of(lambda m: m.alive())
rooms = st.integers(0, 3)
items = st.integers(0, 4)
keys = st.sampled_from([None, None, "k1", "k2"])


def some(predicate: Callable[[StoreMachine], Any]) -> Any:
    return precondition(lambda self: bool(predicate(self)))


class StoreMachine(RuleBasedStateMachine):
    """Both sides of the comparison, and the rules that move them."""

    def __init__(self, driver: Driver, run: Run) -> None:
        super().__init__()
        self.driver = driver
        self.run_ = run
        self.model = Model()
        self.tokens: list[Token] = []  # every attempt there ever was

    # -- what there is ------------------------------------------------------------------------

    def live(self) -> list[str]:
        return [
            name
            for name, session in self.model.sessions.items()
            if session_after(session.status, SessionEvent.CANCEL) is not None
        ]

    def held(self) -> list[Token]:
        return [Token(task.place, task.attempt) for task in self.model.running()]

    def alive(self) -> list[str]:
        return [n for n, w in self.model.workers.items() if w.state is WorkerState.ALIVE]

    def at(self, *statuses: SessionState) -> list[str]:
        return [n for n, s in self.model.sessions.items() if s.status in statuses]

    # -- both sides ---------------------------------------------------------------------------

    def do(self, name: str, *arguments: Any) -> None:
        """Do it to both and want the same answer."""
        call = Call(name, arguments)
        answered = self.run_(self.driver.do(call))
        expected = on_model(self.model, call, answered, self.driver.task_ids)
        assert answered == expected, f"{call}: the store answered {answered}, not {expected}"
        self.compare()

    def batch(self, done: list[Done]) -> tuple[tuple[Done, Any], ...]:
        return tuple((d, self.model.sessions[d.token.place.session]) for d in done)

    def calls_on(self, name: str) -> list[Call]:
        """Return everything that can be done to this session now, for a race."""
        session = self.model.sessions[name]
        calls = [Call(verb, (name,)) for verb in ("start", "pause", "resume", "cancel")]
        calls += [Call("approve", (name, None, key)) for key in (None, "k1")]
        if session.status is SessionState.AWAITING_REVIEW:
            calls += [Call("approve", (name, revision, None)) for revision in (0, 1)]
        mine = [token for token in self.held() if token.place.session == name]
        for token in mine:
            worker = self.model.tasks[token.place].worker
            for room in (0, 2):
                done = self.batch([Done(token, 2, room)])
                calls.append(Call("complete", (worker, done)))
            calls += [Call("retry", (token, 0)), Call("retry", (token, 5))]
            calls += [Call(verb, (token,)) for verb in ("fail", "release", "deliver")]
        if len(mine) > 1:
            done = self.batch([Done(token, 2, 1) for token in mine])
            calls.append(Call("complete", ("A", done)))
        if dead := tuple(sorted(self.model.dead())):
            calls.append(Call("rescue", (dead,)))
        calls += [Call("claim", (worker, KNOWS[worker[0]], 2, None)) for worker in self.alive()]
        return calls

    # -- the rules ----------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.run_(self.driver.begin())
        for worker in KNOWS:
            self.do("hello", worker)

    @some(lambda self: len(self.alive()) < 2)
    @rule(knows=st.sampled_from(list(KNOWS)))
    def hello(self, knows: str) -> None:
        self.do("hello", f"{knows}{len(self.model.workers)}")

    @some(lambda self: len(self.model.sessions) < 4)
    @rule(
        shape=st.sampled_from(list(SHAPES.values())),
        auto_steps=st.booleans(),
        auto_phases=st.booleans(),
        start=st.booleans(),
    )
    def create(self, shape: Shape, auto_steps: bool, auto_phases: bool, start: bool) -> None:
        name = f"s{len(self.model.sessions) + 1}"
        self.do("create", name, shape, auto_steps, auto_phases, start)

    @some(lambda self: self.at(SessionState.RUNNING))
    @rule(session=of(lambda m: m.at(SessionState.RUNNING)))
    def start(self, session: str) -> None:
        self.do("start", session)

    @some(lambda self: self.model.due(ALL))
    @rule(
        worker=workers, limit=st.integers(1, 4), only=st.none() | sessions,
    )  # fmt: skip
    def claim(self, worker: str, limit: int, only: str | None) -> None:
        self.do("claim", worker, KNOWS[worker[0]], limit, only)

    @some(lambda self: self.held())
    @rule(token=running, items=items, room=rooms)
    def complete(self, token: Token, items: int, room: int) -> None:
        worker = self.model.tasks[token.place].worker
        self.do("complete", worker, self.batch([Done(token, items, room)]))

    @some(lambda self: len(self.held()) > 1)
    @rule(
        worker=workers,
        batch=st.lists(
            st.builds(Done, running | any_token, items, rooms),
            min_size=1, max_size=6, unique_by=lambda done: done.token.place,
        ),
    )  # fmt: skip
    def complete_batch(self, worker: str, batch: list[Done]) -> None:
        self.do("complete", worker, self.batch(batch))

    @some(lambda self: self.held())
    @rule(token=running, delay=st.sampled_from([0, 0, 5, 60]))
    def retry(self, token: Token, delay: int) -> None:
        self.do("retry", token, delay)

    @some(lambda self: self.held())
    @rule(token=running, verb=st.sampled_from(["fail", "release", "deliver"]))
    def end_otherwise(self, token: Token, verb: str) -> None:
        self.do(verb, token)

    @some(lambda self: self.tokens)
    @rule(token=any_token, verb=st.sampled_from(["retry", "fail", "release", "deliver"]))
    def end_perhaps_late(self, token: Token, verb: str) -> None:
        self.do(verb, token, *((0,) if verb == "retry" else ()))

    @some(lambda self: self.alive())
    @rule(worker=workers)
    def renew(self, worker: str) -> None:
        self.do("renew", worker)

    @some(lambda self: self.alive())
    @rule(worker=living)
    def die(self, worker: str) -> None:
        """All but this worker renew; its lease is over."""
        self.pass_time(LEASE - 1)
        for other in self.alive():
            if other != worker:
                self.do("renew", other)
        self.pass_time(1)

    @rule(seconds=st.sampled_from([1, 5, 60]))
    def pass_time(self, seconds: int) -> None:
        self.model.now += seconds
        self.run_(self.driver.set_time(self.model.now))

    @some(lambda self: self.model.dead())
    @rule()
    def rescue(self) -> None:
        dead = self.run_(self.driver.dead())
        assert dead == self.model.dead()
        self.do("rescue", tuple(sorted(dead)))

    @some(lambda self: self.at(SessionState.AWAITING_REVIEW))
    @rule(
        session=of(lambda m: m.at(SessionState.AWAITING_REVIEW)),
        revision=st.sampled_from([None, 1, 1, 0]),
        key=keys,
    )
    def approve(self, session: str, revision: int | None, key: str | None) -> None:
        self.do("approve", session, revision, key)

    @some(lambda self: self.at(SessionState.PAUSED, SessionState.FAILED))
    @rule(session=of(lambda m: m.at(SessionState.PAUSED, SessionState.FAILED)))
    def resume(self, session: str) -> None:
        self.do("resume", session)

    @some(lambda self: self.model.sessions)
    @rule(
        session=sessions,
        verb=st.sampled_from(["pause", "pause", "pause", "resume", "start", "cancel", "approve"]),
    )
    def decide(self, session: str, verb: str) -> None:
        self.do(verb, session, *((None, None) if verb == "approve" else ()))

    @some(lambda self: self.live())
    @rule(data=st.data(), session=live_sessions)
    def race(self, data: st.DataObject, session: str) -> None:
        """Two at once, held up at the session until both have begun."""
        calls = st.sampled_from(self.calls_on(session))
        pair = data.draw(calls, label="first"), data.draw(calls, label="second")
        due = self.model.due(ALL)
        answers = self.run_(self.driver.race(*pair, session))
        if rescues := [call for call in pair if call.name == "rescue"]:
            # What a hand-off gives a worker while it is being rescued is left for the next look.
            self.run_(self.driver.do(rescues[0]))
        seen = self.run_(self.driver.seen())
        orders = [self.in_order(pair, answers, turn, rescues) for turn in ((0, 1), (1, 0))]
        for model in orders:
            if isinstance(model, Model) and model.seen() == seen:
                self.model = model
                break
        else:
            told = [o.seen() if isinstance(o, Model) else o for o in orders]
            raise AssertionError(differences(pair, answers, seen, told))
        if [call.name for call in pair] == ["claim", "claim"]:
            self.check_claims(pair, answers, due)
        self.compare()

    def in_order(
        self, pair: tuple[Call, Call], answers: tuple[Any, Any], turn: tuple[int, int],
        rescues: list[Call],
    ) -> Model | str:  # fmt: skip
        """Return the model after both in this order, or why that order is not what happened."""
        model = copy.deepcopy(self.model)
        for n in turn:
            try:
                expected = on_model(model, pair[n], answers[n], {})
            except Impossible as error:
                return str(error)
            if expected != answers[n] and pair[n].name != "rescue":
                return f"{pair[n]} answers {expected}, not {answers[n]}"
        if rescues:
            on_model(model, rescues[0], None, {})
        return model

    def check_claims(
        self, pair: tuple[Call, Call], answers: tuple[Any, Any], due: list[Place]
    ) -> None:
        """Two claims at once never share a task, and take no more and no less than they may."""
        one, two = answers
        assert not {c.place for c in one} & {c.place for c in two}
        knows = set(pair[0].arguments[1]) & set(pair[1].arguments[1])
        for call, answer in zip(pair, answers, strict=True):
            assert len(answer) <= call.arguments[2]
        for_both = [p for p in due if self.model.sessions[p.session].shape.name in knows]
        limits = sum(call.arguments[2] for call in pair)
        assert len(one) + len(two) >= min(len(for_both), limits)

    def compare(self) -> None:
        """Want all that is visible to be what the model says, and the model to make sense."""
        seen, expected = self.run_(self.driver.seen()), self.model.seen()
        assert seen == expected, differences("seen", "", seen, [expected])
        for token in self.held():
            if token not in self.tokens:
                self.tokens.append(token)
        self.check_model()

    def check_model(self) -> None:
        for name, session in self.model.sessions.items():
            tasks = [t for t in self.model.tasks.values() if t.place.session == name]
            live = [t for t in tasks if t.status in (TaskState.QUEUED, TaskState.RUNNING)]
            failed = [t for t in tasks if t.status is TaskState.FAILED]
            match session.status:
                case SessionState.RUNNING:
                    assert live
                    assert not failed
                case SessionState.PAUSED:
                    assert live
                    assert not any(t.queued for t in tasks)
                case SessionState.FAILED:
                    assert failed
                case _:
                    assert not live
                    assert not failed


def differences(what: Any, answers: Any, seen: dict[str, Any], orders: list[Any]) -> str:
    """Say what was done, and for each table only what differs."""
    lines = [f"{what} answered {answers}"]
    for order in orders:
        if isinstance(order, str):
            lines.append(f"not in one order: {order}")
            continue
        lines.append("not as the model says:")
        for table in order:
            if seen[table] == order[table]:
                continue
            if not isinstance(seen[table], dict):
                lines.append(f"  {table}: {seen[table]}, not {order[table]}")
                continue
            for key in sorted({*seen[table], *order[table]}, key=repr):
                is_, should = seen[table].get(key), order[table].get(key)
                if is_ != should:
                    lines.append(f"  {table} {key}: {is_}, not {should}")
    return "\n".join(lines)


@pytest.fixture
def run() -> Iterator[Run]:
    """One event loop for the whole test: hypothesis knows none."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.mark.timeout(120 + 3 * EXAMPLES)
def test_the_store_does_what_the_machine_says_whatever_happens_in_whatever_order(
    database: str, run: Run
):
    opening = open_driver(database)
    driver = run(opening.__aenter__())
    try:
        run_state_machine_as_test(
            lambda: StoreMachine(driver, run),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
                phases=PHASES,
            ),
        )
    finally:
        run(opening.__aexit__(None, None, None))
