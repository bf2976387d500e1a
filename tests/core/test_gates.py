from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiden.core.gates import (
    Counts,
    Gate,
    GateEnd,
    GateMode,
    Passes,
    Refused,
    judge_approval,
    looks_at_names,
    mode_of,
    next_phase,
    stale_after,
    within_reach,
)
from ekiden.errors import FlowError

PHASES = st.integers(1, 8)


@given(st.dictionaries(PHASES, st.none() | st.sets(PHASES), max_size=8), PHASES)
def test_what_is_stale_is_what_can_be_reached_through_reads(reads, phase):
    reads = {n: None if r is None else {e for e in r if e < n} for n, r in reads.items()}
    stale = stale_after(reads, phase)
    assert all(n > phase for n in stale)
    for number in reads:
        if number > phase:
            read = reads[number]
            reached = read is None or phase in read or bool(read & stale)
            assert (number in stale) == reached


@given(st.integers(1, 8), PHASES, st.sets(PHASES))
def test_the_next_phase_is_the_first_that_does_not_hold(phases, phase, kept):
    following = next_phase(phases, phase, kept)
    between = range(phase + 1, phases + 1 if following is None else following)
    assert all(n in kept for n in between)
    assert following is None or (following not in kept and phase < following <= phases)


def test_what_comes_after_an_open_phase_is_out_of_reach_until_all_is_done():
    def reach(*, completed):
        return [n for n in range(1, 6) if within_reach(n, current=3, completed=completed)]

    assert reach(completed=False) == [1, 2, 3]
    assert reach(completed=True) == [1, 2, 3, 4, 5]


def test_an_approval_passes_counts_or_is_refused():
    def judge(policy, actor="ann", approved_by=()):
        return judge_approval(policy, actor=actor, started_by="bob", approved_by=approved_by)

    assert judge({}) == Passes()
    assert judge({"approvals": 2}) == Counts(1)
    assert judge({"approvals": 2}, approved_by=["ann"]) == Counts(1), "twice is once"
    assert judge({"approvals": 2}, approved_by=["eve"]) == Passes()
    assert isinstance(judge({"approvers": ["eve"]}), Refused)
    assert isinstance(judge({"fourEyes": True}, actor="bob"), Refused)


def test_names_matter_where_several_or_only_some_may_approve():
    for policy in ({"approvals": 2}, {"approvers": ["ann"]}, {"fourEyes": True}):
        assert looks_at_names(policy)
    for policy in ({}, {"approvals": 1, "approvers": [], "fourEyes": False}, {"mode": "manual"}):
        assert not looks_at_names(policy)


def test_where_a_policy_is_silent_the_setting_decides():
    assert mode_of({}, auto_phases=True) is GateMode.AUTO
    assert mode_of({}, auto_phases=False) is GateMode.MANUAL
    assert mode_of({"mode": "manual"}, auto_phases=True) is GateMode.MANUAL


def test_a_check_makes_a_gate_that_looks_for_itself():
    assert Gate(check=lambda _: None).describe() == {"mode": "check"}
    assert Gate().describe() == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": GateMode.CHECK},
        {"approvals": 0},
        {"approvals": 2, "approvers": ("ann",)},
        {"then": GateEnd.APPROVE},
    ],
)
def test_a_gate_whose_parts_do_not_fit_is_refused_when_it_is_written(wrong):
    with pytest.raises(FlowError):
        Gate(**wrong)
