"""When an alert begins and when it is over: no storm, whatever the readings do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ekiden.core.alerts import AT_ONCE, EASE, Alert, AlertKind, Limits, Reading, decide
from ekiden.core.sentences import of_alert, told_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits()


def opened(kind: AlertKind, subject: str = "", **fields: object) -> Alert:
    values: dict[str, object] = {
        "id": 1, "kind": kind, "subject": subject, "flow": "viral", "session_id": None,
        "phase": 2, "step": "EXECUTE", "value": 0.95, "threshold": 0.9, "raised_at": NOW,
        "resolved_at": None,
    }  # fmt: skip
    return Alert(**{**values, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", AlertKind)
def test_a_reading_that_swings_around_its_limit_is_told_once(kind: AlertKind):
    limit = LIMITS.of(kind)
    standing: list[Alert] = []
    told = []
    for share in (0.9, 1.0, 0.9, 1.1, EASE, 1.2, EASE - 0.01, 0.9, 1.0):
        raised, over = decide([Reading(kind=kind, value=share * limit)], standing, LIMITS)
        told += [f"+{share}" for _ in raised] + [f"-{share}" for _ in over]
        standing = [opened(kind) for _ in raised] or [a for a in standing if a not in over]
    assert told == ["+1.0", f"-{EASE - 0.01}", "+1.0"]


def test_what_is_read_no_more_is_over():
    alert = opened(AlertKind.STUCK_SESSION, "gone")
    assert decide([], [alert], LIMITS) == ([], [alert])


@pytest.mark.parametrize("value", [None, 0.0])
def test_what_cannot_be_read_now_is_not_over(value: float | None):
    rate, queue = opened(AlertKind.ERROR_RATE, "viral"), opened(AlertKind.QUEUE_AGE)
    low = [Reading(kind=AlertKind.ERROR_RATE, subject="viral", value=v) for v in [value] if v == 0]
    unread = [AlertKind.ERROR_RATE]
    assert decide(low, [rate, queue], LIMITS, unread=unread) == ([], [queue])
    assert decide(low, [rate, queue], LIMITS) == ([], [rate, queue])


def test_too_little_raises_nothing_and_ends_nothing():
    few = Reading(kind=AlertKind.ERROR_RATE, subject="viral", value=1.0, trusted=False)
    assert decide([few], [], LIMITS) == ([], [])
    assert decide([few], [opened(AlertKind.ERROR_RATE, "viral")], LIMITS) == ([], [])


def test_a_limit_of_nought_is_no_alert_and_ends_one():
    reading = Reading(kind=AlertKind.QUEUE_AGE, value=1e9)
    alert = opened(AlertKind.QUEUE_AGE)
    assert decide([reading], [alert], Limits(queue_age=0)) == ([], [alert])
    assert decide([reading], [], Limits(queue_age=0)) == ([], [])


def test_many_that_stand_still_together_are_a_few_alerts():
    still = [
        Reading(kind=AlertKind.STUCK_SESSION, subject=str(n), value=9000.0 - n) for n in range(1000)
    ]
    lost = Reading(kind=AlertKind.WORKERS_LOST, value=3)
    raised, _ = decide([*still, lost], [], LIMITS)
    assert [r.subject for r in raised[:-1]] == [str(n) for n in range(AT_ONCE)]
    assert raised[-1] == lost  # each kind has its own room
    standing = [opened(r.kind, r.subject) for r in raised]
    assert decide([*still, lost], standing, LIMITS) == ([], [])


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_is_told_in_both_languages(kind: AlertKind):
    alert = opened(kind)
    told = told_of(alert)["message"]
    assert told["en"].endswith(".")
    assert told["ja"].endswith("。")
    over = of_alert(opened(kind, resolved_at=NOW + timedelta(minutes=5)))
    assert over["en"].startswith("Over after 5 min: ")
    assert over["ja"].startswith("解消（5 分後）：")
