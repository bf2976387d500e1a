"""Where the time of a session went, minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ekiden.core.sentences import of_session
from ekiden.core.timing import CallTime, Kind, Lived, Moment, Run, Tried, timing

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def tried(task: int, step: str, created: float, began: float | None, ended: float | None = None,
          *, outcome: str = "COMPLETED", **more: Any) -> Tried:  # fmt: skip
    fields: dict[str, Any] = {
        "phase": 1, "generation": 1, "item": 0, "awaiting": False, "retry_at": None,
        "status": "COMPLETED", "number": None if began is None else 1,
    } | more  # fmt: skip
    return Tried(
        task_id=task, step=step, created_at=at(created),
        outcome=None if began is None else outcome,
        started_at=None if began is None else at(began),
        finished_at=None if ended is None else at(ended), **fields,
    )  # fmt: skip


def lived(*tries: Tried, end: float | None = None, now: float = 1000, status: str = "COMPLETED",
          calls: list[CallTime] | None = None, moments: list[Moment] | None = None,
          runs: list[Run] | None = None) -> Lived:  # fmt: skip
    return Lived(
        status=status, created_at=NOON, completed_at=None if end is None else at(end),
        now=at(now), tried=tries, calls=calls or [], moments=moments or [],
        runs=runs or [Run(phase=1, generation=1, started_at=NOON)],
    )  # fmt: skip


def moment(type_: str, when: float, **where: Any) -> Moment:
    return Moment(type=type_, at=at(when), **({"phase": None, "step": None} | where))


def test_the_longest_of_a_fan_out_is_on_the_path():
    found = timing(
        lived(
            tried(1, "THINK", 0, 1, 3),
            tried(2, "EXECUTE", 3, 3, 5),
            tried(3, "EXECUTE", 3, 4, 13, item=1),
            tried(4, "INTEGRATE", 13, 13, 14),
            end=14,
            calls=[
                CallTime(task_id=3, source="search:archive", seconds=7),
                CallTime(task_id=3, source="openai:gpt", seconds=1),
                CallTime(task_id=2, source="search:other", seconds=9),
            ],
        )
    )
    assert [s.task_id for s in found.path if s.kind is Kind.RUN] == [1, 3, 4]
    assert found.machine == 12
    assert found.seconds[Kind.QUEUE] == 2
    execute = found.steps[1]
    assert (execute.tasks, execute.task_id, execute.share) == (2, 3, 0.75)
    assert execute.slowest_source == ("search:archive", 7, 1)
    assert sum(s.seconds for s in found.path) == 14
    said = of_session(found)
    assert said["en"][0] == "12 s of machine time, 2.0 s of waiting, 0 ms of people."
    assert "Phase 1 EXECUTE is 75 % of machine time; slowest source search:archive" in said["en"][1]
    assert said["ja"][1].startswith("フェーズ 1 EXECUTE が処理時間の 75 %")


def test_times_of_two_workers_that_overlap_are_not_counted_twice():
    found = timing(
        lived(
            tried(1, "THINK", 0, 0, 10),
            tried(2, "EXECUTE", 9, 9, 9.5),  # its times were taken before those of the step before
            tried(3, "INTEGRATE", 10, 9.75, 12),
            end=12,
        )
    )
    assert [s.seconds for s in found.path] == [10, 2]
    assert found.machine == 12


def test_a_retry_is_repeated_time_back_off_and_queue():
    found = timing(
        lived(
            tried(1, "THINK", 0, 0, 10, outcome="RETRIED", retry_at=at(14)),
            tried(1, "THINK", 0, 17, 20, number=2),
            end=20,
        )
    )
    assert [(s.kind, s.seconds) for s in found.path] == [
        (Kind.REPEATED, 10), (Kind.BACKOFF, 4), (Kind.QUEUE, 3), (Kind.RUN, 3),
    ]  # fmt: skip
    (step,) = found.steps
    assert (step.attempts, step.repeated, step.machine) == (2, 1, 13)


def test_gates_pauses_and_held_steps_are_a_persons_time():
    found = timing(
        lived(
            tried(1, "THINK", 0, 5, 6),  # held until 5
            tried(2, "INTEGRATE", 6, 16, 17),  # paused from 8 to 15
            tried(3, "THINK", 100, 101, 103, phase=2),  # the gate was passed at 100
            end=103,
            runs=[
                Run(phase=1, generation=1, started_at=NOON),
                Run(phase=2, generation=1, started_at=at(100)),
            ],
            moments=[
                moment("step_started", 5, phase=1, step="THINK"),
                moment("session_paused", 8),
                moment("session_resumed", 15),
                moment("gate_opened", 17, phase=1),
            ],
        )
    )
    assert found.seconds[Kind.HUMAN] == 5 + 7 + 83
    assert found.seconds[Kind.QUEUE] == 2 + 1 + 1
    assert found.machine == 4


BUDGET = ("budget_reached", 10)


@pytest.mark.parametrize(
    ("moments", "human"),
    [
        ([BUDGET, ("budget_set", 20)], 10),
        ([BUDGET, ("session_resumed", 20)], 10),
        ([BUDGET, ("budget_set", 20), ("budget_reached", 24)], 16),  # an item that still ran
        ([("session_paused", 5), BUDGET, ("budget_set", 20)], 10),
        ([("session_paused", 10), ("budget_set", 20), ("session_resumed", 25)], 15),
        ([BUDGET, ("task_failed", 12), ("budget_set", 20), ("session_resumed", 25)], 15),
        ([("task_failed", 10), BUDGET, ("budget_set", 20), ("session_resumed", 25)], 15),
    ],
)
def test_once_a_person_let_it_go_on_it_waits_for_a_worker(
    moments: list[tuple[str, float]], human: float
):
    found = timing(
        lived(
            tried(1, "THINK", 0, 0, 10, outcome="RELEASED", retry_at=at(10)),
            tried(1, "THINK", 0, 30, 40, number=2),
            end=40,
            moments=[moment(type_, when) for type_, when in moments],
        )
    )
    assert found.seconds[Kind.HUMAN] == human
    assert found.seconds[Kind.QUEUE] == 20 - human


@pytest.mark.parametrize("stop", ["task_failed", "session_paused", "items_failed", BUDGET[0]])
def test_a_phase_that_runs_again_waits_for_a_worker(stop: str):
    found = timing(
        lived(
            tried(1, "THINK", 0, 0, 10, outcome="FAILED", status="FAILED"),
            tried(2, "THINK", 20, 30, 40, generation=2),
            end=40,
            runs=[
                Run(phase=1, generation=1, started_at=NOON),
                Run(phase=1, generation=2, started_at=at(20)),
            ],
            moments=[moment(stop, 10), moment("phase_rerun", 20, phase=1, step="THINK")],
        )
    )
    assert (found.seconds[Kind.HUMAN], found.seconds[Kind.QUEUE]) == (10, 10)


def test_a_phase_that_begins_while_its_session_is_paused_is_held():
    found = timing(
        lived(
            tried(1, "INTEGRATE", 0, 0, 10),  # paused at 5, and it ended all the same
            tried(2, "THINK", 10, 30, 40, phase=2),
            end=40,
            runs=[
                Run(phase=1, generation=1, started_at=NOON),
                Run(phase=2, generation=1, started_at=at(10)),
            ],
            moments=[moment("session_paused", 5), moment("session_resumed", 25)],
        )
    )
    assert (found.seconds[Kind.HUMAN], found.seconds[Kind.QUEUE]) == (15, 5)


@pytest.mark.parametrize(
    ("status", "type_", "where"),
    [("AWAITING_REVIEW", "gate_opened", {"phase": 1}), ("FAILED", "task_failed", {})],
)
def test_what_waits_for_a_person_now_is_their_time(status: str, type_: str, where: dict[str, int]):
    outcome = "FAILED" if status == "FAILED" else "COMPLETED"
    found = timing(
        lived(
            tried(1, "THINK", 0, 0, 10, outcome=outcome, status=outcome),
            status=status, now=70, moments=[moment(type_, 10, **where)],
        )
    )  # fmt: skip
    assert found.seconds[Kind.HUMAN] == 60
    assert found.path[-1].kind is Kind.HUMAN


def test_what_runs_or_waits_now_is_counted_up_to_now():
    running = tried(1, "THINK", 0, 2, None, outcome="RUNNING", status="RUNNING")
    found = timing(lived(running, status="RUNNING", now=12))
    assert (found.machine, found.seconds[Kind.QUEUE]) == (10, 2)
    queued = tried(1, "THINK", 0, None, status="QUEUED")
    assert timing(lived(queued, status="RUNNING", now=12)).seconds[Kind.QUEUE] == 12
    held = tried(1, "THINK", 0, None, status="QUEUED", awaiting=True)
    assert timing(lived(held, status="RUNNING", now=12)).seconds[Kind.HUMAN] == 12


def test_nothing_yet_takes_no_time():
    found = timing(lived(status="RUNNING"))
    assert (found.path, found.steps, found.machine) == ([], [], 0)
