"""A random walk through the store, held against the pure machine at every step.

Sessions of several shapes, workers that claim, die, come late and carry stale tokens, people who
decide at any time; and any two of these at once on one session, where the outcome must be that of
one order or the other. EKIDEN_STATEFUL_EXAMPLES sets how many walks.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.store.driver import Driver, open_driver
from tests.store.model import LEASE, Impossible, Model
from tests.store.shapes import Place
from tests.store.walk import ALL, ANYTHING, KNOWS, Call, Walk

EXAMPLES = int(os.environ.get("EKIDEN_STATEFUL_EXAMPLES", "100"))

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class StoreMachine(RuleBasedStateMachine):
    """Does whatever happens to both sides, and compares them."""

    def __init__(self, driver: Driver, run: Run) -> None:
        super().__init__()
        self.driver = driver
        self.wait = run
        self.walk = Walk()

    @initialize()
    def begin(self) -> None:
        self.wait(self.driver.begin())
        for worker in KNOWS:
            self.do(Call("hello", (worker,)))

    # One rule: of several, hypothesis would leave some out of each walk, and so get nowhere.
    @rule(call=ANYTHING)
    def then(self, call: Call) -> None:
        own = {"die": self.die, "pass_time": self.pass_time, "race": self.race}
        if call.name in own:
            own[call.name](*call.arguments)
        else:
            self.do(call)

    def do(self, call: Call) -> None:
        """Do it to both and want the same answer, and the same to be seen."""
        model = self.walk.model
        if call.name == "rescue":
            assert self.wait(self.driver.dead()) == model.dead()
        answered = self.wait(self.driver.do(call))
        expected = on_model(model, call, answered, self.driver.task_ids)
        assert answered == expected, f"{call}: the store answered {answered}, not {expected}"
        self.compare()

    def die(self, worker: str) -> None:
        """All but this worker renew; its lease is over."""
        self.pass_time(LEASE - 1)
        for other in self.walk.alive():
            if other != worker:
                self.do(Call("renew", (other,)))
        self.pass_time(1)

    def pass_time(self, seconds: int) -> None:
        self.walk.model.now += seconds
        self.wait(self.driver.set_time(self.walk.model.now))

    def race(self, session: str, *pair: Call) -> None:
        """Do two things at once, held up at their session until both have begun."""
        due = self.walk.model.due(ALL)
        answers = self.wait(self.driver.race(*pair, session=session))
        rescues = [call for call in pair if call.name == "rescue"]
        for again in rescues[:1]:
            # What a hand-off gives a worker while it is being rescued is left for the next look.
            self.wait(self.driver.do(again))
        seen = self.wait(self.driver.seen())
        outcomes = [
            in_order(self.walk.model, [(pair[n], answers[n]) for n in turn], rescues[:1])
            for turn in ((0, 1), (1, 0))
        ]
        for outcome in outcomes:
            if isinstance(outcome, Model) and outcome.seen() == seen:
                self.walk.model = outcome
                break
        else:
            raise AssertionError(differences(f"{pair} answered {answers}", seen, outcomes))
        if [call.name for call in pair] == ["claim", "claim"]:
            check_claims(self.walk.model, pair, answers, due)
        self.compare()

    def compare(self) -> None:
        """Want all that is visible to be what the model says, and the model to make sense."""
        model = self.walk.model
        seen = self.wait(self.driver.seen())
        assert seen == model.seen(), differences("", seen, [model])
        model.check()
        for token in self.walk.held():
            if token not in self.walk.tokens:
                self.walk.tokens.append(token)


def on_model(model: Model, call: Call, answered: Any, ids: dict[Place, int] | None) -> Any:
    """Do a call to the model and return what the store must answer.

    A claim beside something else passes over what that one holds: then there are no ``ids`` to
    order it by, and whatever it took is taken for granted as long as it was due.
    """
    if call.name != "claim":
        return getattr(model, call.name)(*call.arguments)
    worker, knows, limit, only = call.arguments
    if ids is None:
        return model.claim(worker, [task.place for task in answered])
    due = [place for place in model.due(knows) if only in (None, place.session)]
    due.sort(key=lambda place: (model.tasks[place].available_at, ids[place]))
    return model.claim(worker, due[:limit])


def in_order(
    before: Model, answers: Sequence[tuple[Call, Any]], again: Sequence[Call]
) -> Model | str:
    """Return the model after these, one after the other, or why that is not what happened."""
    model = copy.deepcopy(before)
    for call, answer in answers:
        try:
            expected = on_model(model, call, answer, None)
        except Impossible as error:
            return str(error)
        if expected != answer and call.name != "rescue":
            return f"{call} answers {expected}, not {answer}"
    for call in again:
        on_model(model, call, None, None)
    return model


def check_claims(
    model: Model, pair: Sequence[Call], answers: tuple[Any, Any], due: list[Place]
) -> None:
    """Two claims at once never share a task, and together take no less than one after the other."""
    one, two = answers
    assert not {c.place for c in one} & {c.place for c in two}
    (_, knows, limit, only), (_, also_knows, also_limit, also_only) = (c.arguments for c in pair)
    for_both = [
        place
        for place in due
        if model.sessions[place.session].shape.name in {*knows} & {*also_knows}
        and {only, also_only} <= {None, place.session}
    ]
    assert len(one) + len(two) >= min(len(for_both), limit + also_limit)


def differences(what: str, seen: dict[str, Any], outcomes: Sequence[Model | str]) -> str:
    """Say what is seen where a model says otherwise."""
    lines = [what]
    for outcome in outcomes:
        if isinstance(outcome, str):
            lines.append(f"not in one order: {outcome}")
            continue
        lines.append("not as the model says:")
        for table, expected in outcome.seen().items():
            here, there = dict(seen[table]), dict(expected)
            for key in sorted({*here, *there}, key=repr):
                if here.get(key) != there.get(key):
                    lines.append(f"  {table} {key}: {here.get(key)}, not {there.get(key)}")
    return "\n".join(lines)


@pytest.fixture
def machine(database: str) -> Iterator[Callable[[], StoreMachine]]:
    """Makes state machines on one database and in one event loop: hypothesis knows none."""
    with asyncio.Runner() as runner:
        opening = open_driver(database)
        driver = runner.run(opening.__aenter__())
        try:
            yield lambda: StoreMachine(driver, runner.run)
        finally:
            runner.run(opening.__aexit__(None, None, None))


@pytest.mark.timeout(120 + 3 * EXAMPLES)
def test_the_store_does_what_the_machine_says_whatever_happens_in_whatever_order(
    machine: Callable[[], StoreMachine],
):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )
