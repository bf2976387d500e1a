"""The bill: what the provider says it was asked, against what the ledger says was paid.

Pure: the provider's log, the ledger's rows and the attempts in, named findings out.

An answer belongs to the attempt that asked for it. Each answer that came whole must be in the
ledger once, unless its attempt crashed while it was on its way; so a question may be paid for once
more per crash of its task, and never again once the ledger had its answer.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos import answers

WHOLE = {"ok", "delay"}  # behaviours whose answer is whole and of use
CRASHED = {"LOST", "RELEASED", "CANCELLED"}  # how an attempt ends that did not end by itself

Place = tuple[str, int, str, int]  # session key, phase, step, item

_PLACE = re.compile(r"\[place (\d+)/([TEI])/(\d+)/(\d+)\]")
_STEPS = {"T": "THINK", "E": "EXECUTE", "I": "INTEGRATE"}
_ANSWER_ID = re.compile(rb'"id":\s*"(chatcmpl-[0-9a-f]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request as the provider saw it."""

    id: str  # of its answer
    at: float  # epoch seconds
    question: str  # hash
    place: Place
    attempt: int
    behaviour: str
    billed: bool
    sent: bool  # the whole answer was handed to the kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One answer as the ledger has it."""

    answer_id: str
    question: str
    outcome: str  # STARTED: not the answer, but the id under which the provider keeps it
    at: float  # when it was stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt: how it ended (RUNNING if it did not) and when it began."""

    outcome: str
    started: float


@dataclass(slots=True)
class Bill:
    """What was found. Lists hold what offends."""

    asked: int = 0
    billed: int = 0
    stored: int = 0
    cut_by_provider: int = 0  # billed, and not whole: the provider's own faults
    stored_twice: list[str] = field(default_factory=list)
    received_and_lost: list[str] = field(default_factory=list)  # whole, sent, no crash, no row
    paid_though_stored: list[str] = field(default_factory=list)  # the ledger had the answer
    paid_though_kept: list[str] = field(default_factory=list)  # it had the id to fetch it by
    fetched: int = 0  # answers fetched again by their id
    paid_twice: int = 0  # whole answers beyond the first to one question
    paid_twice_without_crash: list[str] = field(default_factory=list)
    paid_twice_per_crash: int = 0  # the most that one crash of one task cost
    crashes: int = 0  # attempts that crashed


def asks_of(entries: Iterable[Mapping[str, Any]], keys: set[str]) -> list[Ask]:
    """Return what the provider was asked for these session keys, oldest first."""
    entries = list(entries)
    sent = {e["id"] for e in entries if e["event"] == "sent"}
    found = []
    for entry in entries:
        if entry["event"] != "asked" or entry["key"] not in keys:
            continue
        place = _PLACE.search(entry["prompt"])
        assert place is not None, f"the question of {entry['id']} names no place"
        found.append(
            Ask(
                id=entry["id"],
                at=entry["at"],
                question=entry["question"],
                place=(entry["key"], int(place[1]), _STEPS[place[2]], int(place[3])),
                attempt=int(entry["seed"]) // 1000,  # see StepContext: the dice of an attempt
                behaviour=entry["behaviour"],
                billed=entry["billed"],
                sent=entry["id"] in sent,
            )
        )
    return sorted(found, key=lambda ask: ask.at)


def question_of_request(request: Mapping[str, Any]) -> str:
    """Return the hash of a question as the ledger keeps it."""
    return answers.question_hash(request["messages"], request["schema"])


def answer_id(raw: bytes) -> str:
    """Return the provider's id in a raw answer; empty if there is none."""
    found = _ANSWER_ID.search(raw)
    return found[1].decode() if found else ""


def draw_up(
    asks: Sequence[Ask], stored: Sequence[Stored], attempts: Mapping[tuple[Place, int], Attempt]
) -> Bill:
    """Compare."""
    kept = [row for row in stored if row.outcome == "STARTED"]
    stored = [row for row in stored if row.outcome != "STARTED"]
    bill = Bill(asked=len(asks), billed=sum(ask.billed for ask in asks), stored=len(stored))
    bill.crashes = sum(a.outcome in CRASHED for a in attempts.values())
    times = Counter(row.answer_id for row in stored if row.answer_id)
    bill.stored_twice = [id_ for id_, n in times.items() if n > 1]
    whole = [ask for ask in asks if ask.billed and ask.behaviour in WHOLE]
    bill.cut_by_provider = bill.billed - len(whole)

    def crashed(ask: Ask) -> bool:
        attempt = attempts.get((ask.place, ask.attempt))
        return attempt is not None and attempt.outcome in CRASHED

    for ask in whole:
        if ask.sent and ask.id not in times and not crashed(ask):
            bill.received_and_lost.append(_named(ask))
    _find_repeats(bill, whole, crashed)
    usable = [row for row in stored if row.outcome == "ANSWERED"]
    bill.paid_though_stored = _paid_though(usable, asks, whole, attempts)
    bill.paid_though_kept = _paid_though(kept, asks, whole, attempts)
    return bill


def _find_repeats(bill: Bill, whole: Sequence[Ask], crashed: Any) -> None:
    by_question: dict[str, list[Ask]] = defaultdict(list)
    for ask in whole:
        by_question[ask.question].append(ask)
    cost: Counter[tuple[Place, int]] = Counter()
    for asked in by_question.values():
        # One was to be paid for; each more is the fault of a crash, while there is one. A worker
        # that was given up and lives lets its call end: it may have asked after its successor did.
        crashes_first = sorted(asked, key=lambda ask: not crashed(ask))
        for ask in crashes_first[: len(asked) - 1]:
            bill.paid_twice += 1
            if crashed(ask):
                cost[ask.place, ask.attempt] += 1
            else:
                bill.paid_twice_without_crash.append(_named(ask))
    bill.paid_twice_per_crash = max(cost.values(), default=0)


def _paid_though(
    there: Sequence[Stored],
    asks: Sequence[Ask],
    whole: Sequence[Ask],
    attempts: Mapping[tuple[Place, int], Attempt],
) -> list[str]:
    """Find what was asked by attempts that began when the database had a good answer, or its id."""
    good = {ask.id for ask in whole}
    since: dict[str, float] = {}
    for row in there:
        if row.answer_id in good:
            since[row.question] = min(row.at, since.get(row.question, row.at))
    found = []
    for ask in asks:
        attempt, had = attempts.get((ask.place, ask.attempt)), since.get(ask.question)
        if attempt is not None and had is not None and had < attempt.started:
            found.append(_named(ask))
    return found


def _named(ask: Ask) -> str:
    key, phase, step, item = ask.place
    return f"{key} {phase}/{step}/{item} attempt {ask.attempt}: {ask.id} ({ask.behaviour})"
