"""A random walk of people over a session: every verb in every state, and work in between.

After each step the machine's answer is compared, every invariant of ``ekiden verify`` is judged,
and what would run again is held against what the phases depend on. What no walk came to is an
error, too.
EKIDEN_STATEFUL_EXAMPLES sets how many walks.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from ekiden.core.gates import stale_after
from ekiden.core.machine import SessionEvent, decide, session_after
from ekiden.core.model import Budget, ClaimedTask, Options, Review, SessionState, StepKind, Verb
from ekiden.errors import Conflict
from ekiden.store.tasks import Completion
from ekiden.store.verify import verify
from tests.store.helpers import ERROR, Relay, open_relay

SAME = "EKIDEN_STATEFUL_EXAMPLES" not in os.environ  # the same walks each time
EXAMPLES = max(5, int(os.environ.get("EKIDEN_STATEFUL_EXAMPLES", "64")) // 4)

_T, _E, _I = StepKind.THINK, StepKind.EXECUTE, StepKind.INTEGRATE
STEPS = {1: (_T, _E, _I), 2: (_T, _I), 3: (_T, _E, _I), 4: (_T, _I)}
READS = {1: set(), 2: {1}, 3: {1}, 4: {3}}  # 2 and 3 stand side by side
ITEMS = 3
GOES_ON_WITH = 0.6  # of three items one may fail
FLOW = "walked"

_EVENT = {
    Verb.APPROVE: SessionEvent.APPROVE, Verb.EDIT: SessionEvent.EDIT,
    Verb.REJECT: SessionEvent.REJECT, Verb.RERUN: SessionEvent.RERUN,
    Verb.ACCEPT: SessionEvent.ACCEPT,
}  # fmt: skip


class Walker:
    """One session, a worker by hand, and what a person does."""

    def __init__(self, relay: Relay, flow_id: int) -> None:
        self.relay = relay
        self.flow_id = flow_id
        self.session = ""
        self.held: list[ClaimedTask] = []
        self.seen: Counter[str] = Counter()  # what the walks came to

    async def begin(self) -> None:
        self.session, _ = await self.relay.sessions.create(
            FLOW, title="walk", input={}, options=Options(), start=True
        )
        self.held = []

    async def status(self) -> SessionState:
        return SessionState((await self.relay.sessions.get(self.session)).status)

    async def runs(self) -> dict[int, int]:
        """Return the newest generation of each phase that was begun."""
        rows = await self.relay.rows(
            "SELECT phase, max(generation) FROM ekiden.phase_runs WHERE session_id = $1"
            " GROUP BY phase",
            self.session,
        )
        return dict(rows)

    async def claim(self) -> None:
        claimed = await self.relay.tasks.claim(self.relay.worker, [self.flow_id], 4, self.session)
        # In one order: which tasks a claim gives first is nobody's promise.
        self.held += sorted(claimed, key=lambda task: task.id)

    async def complete(self, task: ClaimedTask) -> None:
        data = (await self.relay.tasks.load_sessions([self.session]))[self.session]
        fan = task.step == _T and _E in STEPS[task.phase]
        following = decide(
            STEPS.__getitem__, len(STEPS), phase=task.phase, step=StepKind(task.step),
            auto_steps=True, gate=True, kept=data.kept,
        )  # fmt: skip
        advances = following.event is SessionEvent.ADVANCE
        reads = READS[task.phase]
        handed = await self.relay.handoff.complete(
            self.relay.worker,
            [
                Completion(
                    task=task, result=f'"{task.phase}.{task.generation}"', event=following.event,
                    next_phase=following.phase, next_step=following.step,
                    new_phase=following.new_phase, hold=following.hold,
                    closes_phase=task.step == _I,
                    items=[str(n) for n in range(ITEMS)] if fan else None,
                    next_count=(ITEMS if fan else 1) if advances else 0, room=ITEMS,
                    reads="{" + ",".join(map(str, reads)) + "}" if reads else None,
                    drafts=[("d", "{}", "[]")] if following.event == "finish" else [],
                )
            ],
        )  # fmt: skip
        for tasks in handed.following.values():
            self.held += tasks


_PLACES = [(phase, step) for phase in (None, 1, 2, 3, 4) for step in StepKind]
# What a walk must come to, or it proves little.
_COMMON = {Verb.APPROVE, Verb.EDIT, Verb.REJECT, Verb.RERUN, Verb.BUDGET}
_RARE = {"rerun in COMPLETED"}

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class ReviewMachine(RuleBasedStateMachine):
    """Does whatever people and workers may do, and wants every invariant to hold."""

    def __init__(self, walker: Walker, run: Run) -> None:
        super().__init__()
        self.walker = walker
        self.wait = run

    @initialize()
    def begin(self) -> None:
        self.wait(self.walker.begin())

    # One rule: of several, hypothesis would leave some out of each walk, and so get nowhere.
    @rule(call=st.runner().flatmap(lambda machine: st.sampled_from(machine.possible())))
    def then(self, call: tuple[Any, ...]) -> None:
        name, *arguments = call
        self.wait(getattr(self, f"_{name}")(*arguments))
        self.judge()

    def possible(self) -> list[tuple[Any, ...]]:
        """Return what can happen next: what moves the session on more often than the rest."""
        status = self.wait(self.walker.status())
        anything = [
            *(("decide", verb, phase, step) for verb in Verb for phase, step in _PLACES),
            *(("manage", what) for what in ("pause", "resume", "start")),
            *(("fork", phase) for phase in (0, 1, 1, 2, 2, 2, 3)),
        ]
        likely: list[tuple[Any, ...]]
        match status:
            case SessionState.RUNNING:
                work = ["complete"] * 10 + ["fail"] + ["drop"] * 6 + ["budget", "release"]
                likely = [("work", how, n) for how in work for n in range(4)]
            case SessionState.AWAITING_REVIEW:
                likely = [("decide", Verb.APPROVE, None, _T)] * 40
                likely += [("decide", Verb.REJECT, None, _T), ("decide", Verb.EDIT, None, _T)] * 4
            case SessionState.PAUSED:
                likely = [("manage", "resume")] * 10
                likely += [("decide", v, None, _T) for v in (Verb.ACCEPT, Verb.RETRY)] * 15
                likely += [("decide", Verb.BUDGET, None, _T)] * 5
                likely += [("work", "complete", n) for n in range(4)]
            case SessionState.FAILED:
                likely = [("manage", "resume")] * 20 + [("work", "complete", 0)] * 4
                likely += [("decide", Verb.RERUN, *place) for place in _PLACES]
            case _:
                likely = [("decide", v, *p) for v in (Verb.RERUN, Verb.EDIT) for p in _PLACES]
        return likely * max(1, 2 * len(anything) // len(likely)) + anything

    async def _work(self, how: str, which: int) -> None:
        walker, tasks = self.walker, self.walker.relay.tasks
        await walker.claim()
        if not walker.held:
            return
        task = walker.held.pop(which % len(walker.held))
        match how:
            case "fail":
                await tasks.fail(task, ERROR)
            case "drop" if task.step == _E:
                await tasks.drop_item(task, ERROR, goes_on_with=GOES_ON_WITH)
            case "budget":
                await tasks.stop_for_budget(task, {"kind": "budget", "message": "spent"})
            case "release":
                await tasks.release(task)
            case _:
                await walker.complete(task)

    async def _decide(self, verb: Verb, phase: int | None, step: StepKind) -> None:
        walker = self.walker
        session = await walker.relay.sessions.get(walker.session)
        before, runs = SessionState(session.status), await walker.runs()
        review = Review(
            verb=verb, actor="me", comment="because", step=step, output="edited",
            phase=phase if verb in {Verb.EDIT, Verb.RERUN} else None,
            budget=Budget(max_tokens=1000) if verb is Verb.BUDGET else None,
        )  # fmt: skip
        event = _EVENT.get(verb)
        allowed = event is None or session_after(before, event) is not None
        try:
            done = await walker.relay.sessions.reviews.take(walker.session, review)
        except Conflict:
            assert await walker.status() == before
            assert await walker.runs() == runs
            return
        assert allowed, f"{verb} was taken in {before}"
        if verb in {Verb.EDIT, Verb.RERUN} and before is not SessionState.COMPLETED:
            assert (phase or session.phase) <= session.phase, "what is open was jumped over"
        assert done.status == await walker.status()
        walker.seen[verb] += 1
        walker.seen[f"{verb} in {before}"] += 1
        if verb in {Verb.EDIT, Verb.RERUN}:
            changed = review.phase or done.phase
            read = {n: READS[n] for n in runs}
            # Whatever is kept was never to be touched; what reads the phase is among the stale.
            assert set(done.stale) >= {n for n in stale_after(read, changed) if n in runs}
            assert not set(done.kept) & stale_after(read, changed)

    async def _manage(self, what: str) -> None:
        sessions, session = self.walker.relay.sessions, self.walker.session
        before = await self.walker.status()
        try:
            match what:
                case "start":
                    await sessions.start(session)
                case "pause":
                    await sessions.pause(session, actor="me")
                case _:
                    await sessions.resume(session, actor="me")
        except Conflict:
            assert await self.walker.status() == before

    async def _fork(self, phase: int) -> None:
        sessions = self.walker.relay.sessions
        session = await sessions.get(self.walker.session)
        try:
            made, _ = await sessions.reviews.fork(session.id, phase=phase, actor="me")
        except Conflict:
            return
        hold = {*range(1, session.phase), *session.kept}
        if session.status != SessionState.COMPLETED:
            assert {*range(1, phase + 1)} <= hold, "it shares what is to be made anew"
        self.walker.seen[f"fork after {phase}"] += 1
        await self._verified(made)

    def judge(self) -> None:
        """Want every invariant, and drop what a decision took from the worker."""
        self.wait(self._verified(self.walker.session))
        self.wait(self._forget())
        self.walker.seen[self.wait(self.walker.status())] += 1

    async def _forget(self) -> None:
        rows = await self.walker.relay.rows(
            "SELECT id, attempt FROM ekiden.api_tasks WHERE session_id = $1 AND status = 'RUNNING'",
            self.walker.session,
        )
        running = dict(rows)
        self.walker.held = [t for t in self.walker.held if running.get(t.id) == t.attempt]
        assert len(self.walker.held) == len(running), "the worker has lost sight of a task"

    async def _verified(self, session: str) -> None:
        report = await verify(
            self.walker.relay.dsn, read=lambda _bytes, _kind: None, session_id=session
        )
        red = [(f.invariant.name, f.ids) for f in report.findings if f.violations]
        assert not red, red


@pytest.fixture
def machine(database: str) -> Iterator[Callable[[], ReviewMachine]]:
    """Makes walks on one database and in one event loop: hypothesis knows none."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        relay = runner.run(stack.enter_async_context(open_relay(database)))
        flow_id = runner.run(_register(relay))
        walker = Walker(relay, flow_id)
        try:
            yield lambda: ReviewMachine(walker, runner.run)
            wanted = {*SessionState, *_COMMON, *_RARE} - {SessionState.CANCELLED}
            missing = wanted - {*walker.seen}
            assert not missing or not SAME, f"no walk came to {missing}; they came to {walker.seen}"
        finally:
            runner.run(stack.aclose())


async def _register(relay: Relay) -> int:
    return await relay.workers.register_flow(
        name=FLOW, version="1", title="Walked", input_schema={},
        phases=[
            {"name": f"p{n}", "title": f"P{n}", "titles": {}, "steps": list(kinds),
             "fansOut": _E in kinds}
            for n, kinds in STEPS.items()
        ],
    )  # fmt: skip


@pytest.mark.timeout(120 + 12 * EXAMPLES)
def test_whatever_people_decide_in_whatever_state_every_invariant_holds(
    machine: Callable[[], ReviewMachine],
):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            # The same walks each time, so that what they come to is sure; others on demand.
            derandomize=SAME,
            database=None,
            # A walk of forty steps on a database takes minutes to shrink: its steps say enough.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
