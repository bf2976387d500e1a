"""The report says what was seen, and is red for whatever misses its target."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chaos import report
from chaos.__main__ import together
from chaos.schedule import KINDS, LONG, SHORT, counted, plan

NEMESIS: dict[str, Any] = {
    "faults": {kind.what: 3 for kind in KINDS.values()},
    "hit": {"worker kills with a task running": 2},
    "sessions": {"COMPLETED": 90, "CANCELLED": 2},
    "figures": {
        "acknowledged": 1000,
        "steps": 1010,
        "answers_stored": 2000,
        "attempts_crashed": 9,
        "paid_twice_per_crash": 1,
        "clicks told passed, per 64": [1, 1, 1],
        "drained after healing, s": 2.5,
    },
    "violations": {"acknowledged_lost": 0, "effects applied twice": 0},
    "ids": {},
}
JUDGED = {"answers_fetched": 2, "paid_twice": 1, "paid_though_kept": []}
AGAIN = JUDGED | {"paid_though_kept": ["house_1-0 1/THINK/0 attempt 2: chatcmpl-1 (ok)"]}
UNFETCHED = JUDGED | {"answers_fetched": 0}
MATRIX: dict[str, Any] = {
    "n": 2, "passed": 2, "not_reached": [], "failed": [], "violations": {},
    "cells": [
        {"name": "call.answered THINK 1 (kept)", "passed": True, "judged": JUDGED},
        {"name": "commit.sent THINK 1 (frozen)", "passed": True, "judged": {}},
    ],
}  # fmt: skip
RERUN = {"n": 50, "tasks": 50, "never": 0, "p50_s": 0.1, "p99_s": 0.4, "max_s": 0.5}
SCENARIOS: dict[str, Any] = {
    "zombies": {"n": 5, "late_writes": 5, "accepted": 0},
    "clicks": {"rounds": 5, "clicks": 320, "told_passed": 5, "more_than_once": 0, "never": 0},
    "decisions": {
        "sessions": 12,
        "kills": 5,
        "decisions": 40,
        "answers_500": 0,
        "taken": {"approve": 20, "edit": 8, "reject": 6, "rerun": 6},
        "lost": [],
        "not_ended": [],
        "wrong_sums": [],
        "verify": [],
    },
    "hostile": {"n": 12, "stored": 12, "stuck": 0},
    "deaf": {
        "n": 2,
        "heard_after_s": [3.0, 9.0],
        "cuts": 1,
        "heard_after_a_cut_s": [0.2],
        "lost": 0,
    },
    "standby": {"acknowledged": 100, "lost": 0, "going_again_s": 4.0},
    "routes": {"n": 30, "sockets": 1, "open": ["/healthz", "/login", "/readyz", "/static/1/1"]},
    "rerun": {"idle": RERUN, "200 sessions": RERUN},
}
PARTS = {"nemesis": NEMESIS, "matrix": MATRIX, "scenarios": SCENARIOS}


def data(*changes: tuple[str, Any]) -> dict[str, Any]:
    """A good run, with changes by path: ``("scenarios.deaf.lost", 1)``."""
    parts = copy.deepcopy(PARTS)
    for path, value in changes:
        *way, last = path.split(".")
        target: Any = parts
        for name in way:
            target = target[name]
        target[last] = value
    return together(parts, 7, datetime(2026, 11, 23, tzinfo=UTC), 90.0)


def test_a_run_that_met_every_target_is_green() -> None:
    good = data()
    assert all(row.met for row in report.rows(good)), report.text(good)
    assert report.missed(good) == []


@pytest.mark.parametrize(
    "change",
    [
        ("nemesis.violations.acknowledged_lost", 1),
        ("nemesis.violations.effects applied twice", 1),
        ("nemesis.violations.something that has no row", 1),
        ("nemesis.figures.acknowledged", 0),
        ("matrix.passed", 1),
        ("matrix.failed", ["call.before THINK 1"]),
        ("matrix.violations", {"answers_stored_twice": 1}),
        ("matrix.cells", [{"name": "x (kept)", "passed": True, "judged": AGAIN}]),
        ("matrix.cells", [{"name": "x (kept)", "passed": True, "judged": UNFETCHED}]),
        ("matrix.cells", [{"name": "x (frozen)", "passed": False, "judged": {}}]),
        ("scenarios.zombies.accepted", 1),
        ("scenarios.zombies.late_writes", 0),
        ("scenarios.clicks.more_than_once", 1),
        ("scenarios.clicks.never", 1),
        ("scenarios.decisions.lost", ["s k"]),
        ("scenarios.decisions.wrong_sums", ["s"]),
        ("scenarios.decisions.answers_500", 1),
        ("scenarios.decisions.taken", {"approve": 40}),
        ("scenarios.hostile.stored", 11),
        ("scenarios.hostile.stuck", 1),
        ("scenarios.deaf.heard_after_s", [3.0, 15.5]),
        ("scenarios.deaf.heard_after_s", [3.0]),
        ("scenarios.deaf.lost", 1),
        ("scenarios.deaf.heard_after_a_cut_s", [3.5]),
        ("scenarios.deaf.heard_after_a_cut_s", []),
        ("scenarios.standby.lost", 1),
        ("scenarios.standby.going_again_s", 31.0),
        ("scenarios.standby.going_again_s", None),
        ("scenarios.routes.open", ["/api/flows", "/healthz", "/readyz"]),
        ("scenarios.routes.open", ["/healthz"]),
        ("scenarios.rerun.idle", RERUN | {"p99_s": 1.1}),
        ("scenarios.rerun.idle", RERUN | {"never": 1}),
    ],
    ids=lambda change: f"{change[0]}={change[1]}"[:60],
)
def test_whatever_misses_its_target_makes_the_run_red(change: tuple[str, Any]) -> None:
    assert report.missed(data(change))


def test_a_part_that_was_not_run_is_said_and_is_no_miss() -> None:
    one = together({"matrix": MATRIX}, 7, datetime(2026, 11, 23, tzinfo=UTC), 9.0)
    assert report.missed(one) == []
    assert {row.met for row in report.rows(one)} == {True, None}
    assert "not run" in report.text(one)


def test_the_page_has_every_figure_its_n_the_seed_and_the_date() -> None:
    good = data()
    page = report.page(good)
    for row in report.rows(good):
        assert f"| {row.figure} | {row.target} | {row.result} | ✓ |" in page
    for what, n in good["faults"].items():
        assert f"| {what} | {n} |" in page
    assert "seed 7" in page
    assert "2026-11-23" in page


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    assert plan(7, SHORT) == plan(7, SHORT)
    assert plan(7, SHORT) != plan(8, SHORT)
    assert counted(plan(7, LONG))["worker-kill"] >= 1000
    assert counted(plan(7, SHORT, kills=5))["worker-kill"] == 5


def test_more_of_one_fault_does_not_move_the_others() -> None:
    def others(kills: int) -> list[Any]:
        faults = plan(7, SHORT, kills=kills)
        return [replace(f, at=round(f.at, 6)) for f in faults if f.kind != "worker-kill"]

    assert others(5) == others(50)
