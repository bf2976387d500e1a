"""The two tables of the state machine, and what follows when a step closes."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiden.core.machine import (
    SESSION_TRANSITIONS,
    TASK_TRANSITIONS,
    SessionEvent,
    TaskEvent,
    Transition,
    decide,
    session_after,
    task_after,
)
from ekiden.core.model import SessionState, StepKind, TaskState

SHORT = (StepKind.THINK, StepKind.INTEGRATE)
LONG = (StepKind.THINK, StepKind.EXECUTE, StepKind.INTEGRATE)
shapes = st.lists(st.sampled_from([SHORT, LONG]), min_size=1, max_size=32)


def walk(shape: list[tuple[StepKind, ...]], *, auto_steps: bool, auto_phases: bool):
    """Go from THINK of phase 1 to the end, passing every gate; return what was decided."""
    place, taken = (1, StepKind.THINK), []
    while True:
        transition = decide(
            lambda number: shape[number - 1],
            len(shape),
            phase=place[0],
            step=place[1],
            auto_steps=auto_steps,
            gate=not auto_phases,
        )
        taken.append((place, transition))
        if transition.event is SessionEvent.FINISH:
            return taken
        if transition.event is SessionEvent.OPEN_GATE:
            place = (transition.phase + 1, StepKind.THINK)
        else:
            place = (transition.phase, transition.step)
        assert len(taken) <= 3 * len(shape), "it walks in a circle"


@given(shapes, st.booleans(), st.booleans())
def test_every_step_of_every_phase_is_taken_once_and_in_order(shape, auto_steps, auto_phases):
    taken = walk(shape, auto_steps=auto_steps, auto_phases=auto_phases)
    assert [place for place, _ in taken] == [
        (number, kind) for number, kinds in enumerate(shape, 1) for kind in kinds
    ]


@given(shapes, st.booleans())
def test_a_gate_opens_after_every_phase_but_the_last_one(shape, auto_steps):
    taken = walk(shape, auto_steps=auto_steps, auto_phases=False)
    gates = [place for place, t in taken if t.event is SessionEvent.OPEN_GATE]
    assert gates == [(number, StepKind.INTEGRATE) for number in range(1, len(shape))]
    assert not any(t.new_phase for _, t in taken), "approval begins the phase, not the hand-off"


@given(shapes, st.booleans())
def test_with_automatic_phases_no_gate_opens_and_each_phase_is_begun_once(shape, auto_steps):
    taken = walk(shape, auto_steps=auto_steps, auto_phases=True)
    assert SessionEvent.OPEN_GATE not in {t.event for _, t in taken}
    assert [t.phase for _, t in taken if t.new_phase] == list(range(2, len(shape) + 1))


@given(shapes, st.booleans(), st.booleans())
def test_what_follows_is_held_only_when_steps_do_not_advance_by_themselves(
    shape, auto_steps, auto_phases
):
    for _, transition in walk(shape, auto_steps=auto_steps, auto_phases=auto_phases):
        follows = transition.event is SessionEvent.ADVANCE
        assert transition.hold == (follows and not auto_steps)


@given(shapes, st.booleans(), st.booleans())
def test_at_a_gate_and_at_the_end_the_cursor_stays_on_the_step_that_closed(
    shape, auto_steps, auto_phases
):
    for place, transition in walk(shape, auto_steps=auto_steps, auto_phases=auto_phases):
        if transition.event is not SessionEvent.ADVANCE:
            assert (transition.phase, transition.step) == place


def test_a_single_phase_finishes_without_a_gate():
    last = decide(lambda _: SHORT, 1, phase=1, step=StepKind.INTEGRATE, auto_steps=True, gate=True)
    assert last == Transition(SessionEvent.FINISH, 1, StepKind.INTEGRATE)


def test_a_decision_refers_to_no_session_and_equals_itself():
    first, again = (
        decide(lambda _: LONG, 2, phase=1, step=LONG[0], auto_steps=True, gate=True)
        for _ in range(2)
    )
    assert first == again
    assert hash(first) == hash(again)


@pytest.mark.parametrize(("state", "event"), list(product(TaskState, TaskEvent)))
def test_a_task_goes_to_a_known_state_or_the_event_is_refused(state: TaskState, event: TaskEvent):
    after = task_after(state, event)
    assert after == TASK_TRANSITIONS.get((state, event))
    assert after is None or isinstance(after, TaskState)


@pytest.mark.parametrize(("state", "event"), list(product(SessionState, SessionEvent)))
def test_a_session_goes_to_a_known_state_or_the_event_is_refused(
    state: SessionState, event: SessionEvent
):
    after = session_after(state, event)
    assert after == SESSION_TRANSITIONS.get((state, event))
    assert after is None or isinstance(after, SessionState)


@pytest.mark.parametrize(
    ("states", "table"),
    [
        ({TaskState.COMPLETED, TaskState.CANCELLED}, TASK_TRANSITIONS),
        ({SessionState.CANCELLED}, SESSION_TRANSITIONS),  # COMPLETED can be taken up again
    ],
)
def test_from_an_end_there_is_no_way_out(states, table):
    assert not [pair for pair in table if pair[0] in states]


@pytest.mark.parametrize(
    ("start", "ends", "table"),
    [
        (TaskState.QUEUED, {TaskState.COMPLETED, TaskState.CANCELLED}, TASK_TRANSITIONS),
        (SessionState.RUNNING, {SessionState.CANCELLED}, SESSION_TRANSITIONS),
    ],
)
def test_every_state_can_be_reached_and_every_one_but_an_end_can_be_left(start, ends, table):
    states = type(start)
    reached, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        for (origin, _), target in table.items():
            if origin is state and target not in reached:
                reached.add(target)
                waiting.append(target)
    assert reached == set(states)
    assert {origin for (origin, _), target in table.items() if target is not origin} == (
        set(states) - ends
    )


@pytest.mark.parametrize(
    ("events", "table"), [(TaskEvent, TASK_TRANSITIONS), (SessionEvent, SESSION_TRANSITIONS)]
)
def test_every_event_is_accepted_somewhere(events, table):
    assert {event for _, event in table} == set(events)
