"""Judges a house after a run: ledger, witness, outputs, gates, and the invariants of a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chaos import billing, flows
from chaos.house import House
from chaos.observer import Observer
from ekiden.cli.verifying import read_text
from ekiden.store.verify import verify

# What must be zero, each a list of what offends.
MUST_BE_NONE = (
    "acknowledged_lost",
    "answers_vanished",
    "answers_stored_twice",
    "answers_received_and_lost",
    "paid_though_stored",
    "paid_though_kept",
    "paid_twice_without_crash",
    "wrong_outputs",
    "zombie_writes_accepted",
    "gates_passed_twice",
    "approvals_lost",
    "not_ended",
    "verify",
)


async def judge(
    house: House,
    observer: Observer | None = None,
    *,
    max_paid_twice_per_crash: int = 1,
    everything_ended: bool = True,
) -> dict[str, Any]:
    """Return named figures with their N, and ``violations``: how many of each there are.

    Args:
        house: after its run; its database must answer.
        observer: what watched it, if something did.
        max_paid_twice_per_crash: how often a crash of a task may cost an answer twice.
        everything_ended: whether a session that has not ended is a violation.
    """
    sessions = await house.pool.fetch("SELECT id::text, status, input::text FROM ekiden.sessions")
    keys = {row["id"]: json.loads(row["input"])["key"] for row in sessions}
    bill = await _bill(house, keys)
    lost, vanished = await observer.missing(house.pool) if observer else ([], [])
    found: dict[str, Any] = {
        "sessions": len(sessions),
        "completed": sum(row["status"] == "COMPLETED" for row in sessions),
        "failed": sum(row["status"] == "FAILED" for row in sessions),
        "not_ended": [
            f"{row['id']} is {row['status']}"
            for row in sessions
            if everything_ended and row["status"] not in {"COMPLETED", "FAILED", "CANCELLED"}
        ],
        "acknowledged": len(observer.completed) if observer else 0,
        "acknowledged_lost": lost,
        "answers_seen": len(observer.answers) if observer else 0,
        "answers_vanished": vanished,
        "calls_asked": bill.asked,
        "calls_billed": bill.billed,
        "calls_cut_by_provider": bill.cut_by_provider,
        "answers_stored": bill.stored,
        "answers_stored_twice": bill.stored_twice,
        "answers_received_and_lost": bill.received_and_lost,
        "attempts_crashed": bill.crashes,
        "paid_twice": bill.paid_twice,
        "paid_twice_per_crash": bill.paid_twice_per_crash,
        "paid_twice_without_crash": bill.paid_twice_without_crash,
        "paid_though_stored": bill.paid_though_stored,
        "paid_though_kept": bill.paid_though_kept,
        "answers_fetched": bill.fetched,
        "outputs_checked": 0,
        "wrong_outputs": [],
        "claims_of_frozen_workers": len(house.asleep),
        "zombie_writes_accepted": [],
        "gates_passed": 0,
        "gates_passed_twice": [],
        "approvals_lost": [],
        "verify": [],
    }
    await _verify(house, found)
    await _check_outputs(house, keys, found)
    await _check_gates(house, found)
    await _check_zombies(house, found)
    found["violations"] = {name: len(found[name]) for name in MUST_BE_NONE}
    over = max(0, bill.paid_twice_per_crash - max_paid_twice_per_crash)
    found["violations"]["paid_twice_per_crash"] = over
    return found


def total(found: Mapping[str, Any]) -> int:
    """Return how many violations there are in all."""
    return sum(found["violations"].values())


def complaints(found: Mapping[str, Any]) -> list[str]:
    """Return each violation in words."""
    said = [f"{name}: {what}" for name in MUST_BE_NONE for what in found[name]]
    if found["violations"]["paid_twice_per_crash"]:
        said.append(f"paid_twice_per_crash: {found['paid_twice_per_crash']} in one crash")
    return said


async def _verify(house: House, found: dict[str, Any]) -> None:
    """Let ``ekiden verify`` judge, in this process: it is asked for after every cell."""
    report = await verify(house.dsn, read=read_text)
    found["invariants"] = len(report.findings)
    found["invariants_examined"] = sum(one.examined for one in report.findings)
    found["verify"] = [
        f"{one.invariant.name} ({one.invariant.description}): {one.violations}, e.g. {one.ids[:5]}"
        for one in report.findings
        if one.violations
    ]


async def _bill(house: House, keys: Mapping[str, str]) -> billing.Bill:
    entries = await asyncio.to_thread(house.site.provider.entries)
    asks = billing.asks_of(entries, set(keys.values()))
    calls = await house.pool.fetch(
        "SELECT request, answer, outcome, finished_at FROM ekiden.calls"
        " WHERE kind = 'ask' AND answer IS NOT NULL ORDER BY id"
    )
    stored = [
        billing.Stored(
            answer_id=billing.answer_id(row["answer"]),
            question=billing.question_of_request(json.loads(row["request"])),
            outcome=row["outcome"],
            at=row["finished_at"].timestamp(),
        )
        for row in calls
    ]
    stored += await _kept(house, asks)
    rows = await house.pool.fetch(
        "SELECT t.session_id::text AS session, t.phase, t.step, t.item, a.number, a.outcome,"
        " a.started_at FROM ekiden.attempts a JOIN ekiden.api_tasks t ON t.id = a.task_id"
        " UNION ALL SELECT session_id::text, phase, step, item, attempt, 'RUNNING', started_at"
        " FROM ekiden.api_tasks WHERE status = 'RUNNING'"
    )
    attempts = {
        ((keys[r["session"]], r["phase"], r["step"], r["item"]), r["number"]): billing.Attempt(
            outcome=r["outcome"], started=_epoch(r["started_at"])
        )
        for r in rows
    }
    bill = billing.draw_up(asks, stored, attempts)
    ours = {ask.id for ask in asks}
    bill.fetched = sum(
        e["event"] == "fetched" and e["status"] == 200 and e["id"] in ours for e in entries
    )
    return bill


async def _kept(house: House, asks: list[billing.Ask]) -> list[billing.Stored]:
    """Return the answers whose id the database has, for fetching them again."""
    questions = {ask.id: ask.question for ask in asks}
    rows = await house.pool.fetch("SELECT answer_id, started_at FROM ekiden.started_calls")
    return [
        billing.Stored(
            answer_id=row["answer_id"],
            question=questions.get(row["answer_id"], ""),
            outcome="STARTED",
            at=row["started_at"].timestamp(),
        )
        for row in rows
    ]


async def _check_outputs(house: House, keys: Mapping[str, str], found: dict[str, Any]) -> None:
    rows = await house.pool.fetch(
        "SELECT r.session_id::text AS session, r.phase, t.result::text AS output"
        " FROM ekiden.revisions r JOIN ekiden.api_tasks t ON t.id = r.task_id"
    )
    outputs: dict[str, dict[int, Any]] = {}
    for row in rows:
        outputs.setdefault(row["session"], {})[row["phase"]] = json.loads(row["output"])
    ended = await house.pool.fetch("SELECT id::text FROM ekiden.sessions WHERE status='COMPLETED'")
    complete = {row["id"] for row in ended}
    for session, key in keys.items():
        wanted = await flows.expected(key, house.site.seed)
        got = outputs.get(session, {})
        for phase, output in wanted.items():
            if phase in got or session in complete:
                found["outputs_checked"] += 1
                if got.get(phase) != output:
                    found["wrong_outputs"].append(f"{session} phase {phase}: {got.get(phase)}")
    drafts = await house.pool.fetch(
        "SELECT s.id::text, count(d.id) AS n FROM ekiden.sessions s"
        " LEFT JOIN ekiden.drafts d ON d.session_id = s.id"
        " WHERE s.status = 'COMPLETED' GROUP BY s.id HAVING count(d.id) <> 1"
    )
    found["wrong_outputs"] += [f"{row['id']}: {row['n']} drafts" for row in drafts]


async def _check_gates(house: House, found: dict[str, Any]) -> None:
    rows = await house.pool.fetch(
        "SELECT session_id::text AS session, phase, count(*) AS n FROM ekiden.reviews"
        " WHERE verb = 'approve' GROUP BY session_id, phase"
    )
    reviews = {(row["session"], row["phase"]): row["n"] for row in rows}
    found["gates_passed"] = len(reviews)
    passed = reviews.items() | house.approved.items()
    found["gates_passed_twice"] = [f"{gate}: {n} times" for gate, n in passed if n > 1]
    found["approvals_lost"] = [str(gate) for gate in house.approved if gate not in reviews]


async def _check_zombies(house: House, found: dict[str, Any]) -> None:
    """What completed an attempt whose worker slept was a late write of an earlier attempt."""
    rows = await house.pool.fetch(
        "SELECT task_id, number, finished_at FROM ekiden.attempts"
        " WHERE outcome = 'COMPLETED' AND task_id = ANY ($1::bigint[])",
        [task for task, _ in house.asleep],
    )
    for row in rows:
        woken = house.asleep.get((row["task_id"], row["number"]))
        if woken is not None and row["finished_at"] < woken:
            late = (woken - row["finished_at"]).total_seconds()
            found["zombie_writes_accepted"].append(
                f"task {row['task_id']} attempt {row['number']}: {late:.3f} s before it woke"
            )


def _epoch(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else 0.0
