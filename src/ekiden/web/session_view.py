"""A session as its page shows it, read and put into words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from ekiden.core.budget import Limit, Spent, limit_of
from ekiden.core.gates import looks_at_names, policy_of
from ekiden.core.machine import SessionEvent, session_after
from ekiden.core.model import SessionState, TaskState
from ekiden.core.records import ReviewLine, Session
from ekiden.core.refusals import beyond, no_edit, place_in
from ekiden.core.sentences import of_session
from ekiden.core.timing import timing
from ekiden.store.drafts import DraftRow
from ekiden.store.pages import (
    MOST_TASKS,
    RevisionRow,
    SaidRow,
    TaskRow,
)
from ekiden.store.sessions import Sessions
from ekiden.web.changes import ChangeShown, changes
from ekiden.web.shape import Part, names_in, shape
from ekiden.web.spans import dollars
from ekiden.web.texts import Speech
from ekiden.web.timeline import Row, Timeline, timeline
from ekiden.web.track import Track, track
from ekiden.web.visible import plain

MOST_RUNNING = 8  # running tasks whose text a page shows
MOST_LISTED = 200  # tasks in the table
_ENDED = {SessionState.COMPLETED, SessionState.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What was read of a session, as of about one moment."""

    session: Session
    progress: dict[str, Any]
    revisions: list[RevisionRow]
    tasks: list[TaskRow]  # the newest, where there are many
    task_count: int  # all
    reviews: list[ReviewLine]
    said: list[SaidRow]
    drafts: list[DraftRow]
    budgets: list[Spent]
    timeline: Timeline | None
    summary: dict[str, list[str]]  # where the time went, in words, by language; empty while it runs
    last_event: int  # everything here is at least as new as this event
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionShown:
    """One version of an output."""

    row: RevisionRow
    parts: Part | None  # None: it is too large for a page
    changes: list[ChangeShown]  # since the version before
    changes_more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseShown:
    """What a phase has made, newest version first, and what was decided on it."""

    number: int
    title: str
    standing: RevisionShown
    older: list[RevisionShown]
    reviews: list[ReviewLine]
    waits: bool  # it stands at the gate now


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningShown:
    """A running task, and what it has said so far."""

    task: TaskRow
    title: str
    step: str
    said: str
    cut: bool  # only the end of it


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitShown:
    """What a task only waits for, in plain words."""

    what: str
    advice: str
    needs_person: bool
    message: str  # as the provider or the worker says it
    task: int
    where: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What went wrong, in plain words."""

    what: str
    advice: str
    message: str  # as the error says it
    kind: str
    task: int | None
    attempt: int | None
    where: str
    retry_at: datetime | None


async def read(sessions: Sessions, session_id: str) -> Material:
    """Read what a session's page shows.

    Raises:
        NotFound: no such session.
    """
    pages = sessions.pages
    # First: what is read after it may be newer than it says, never older.
    last_event = await pages.last_event(session_id)
    session = await sessions.get(session_id)
    progress = await sessions.progress(session_id)
    tasks = await pages.tasks(session_id)
    reviews = await sessions.reviews.of(session_id)
    now = await pages.now()
    running = any(t.status == TaskState.RUNNING for t in tasks)
    completed = progress["status"] == SessionState.COMPLETED
    rests = progress["status"] != SessionState.RUNNING and tasks
    lived = timing(await sessions.inside.lived(session)) if rests else None
    return Material(
        session=session,
        last_event=last_event,
        progress=progress,
        revisions=await pages.revisions(session_id),
        tasks=tasks,
        task_count=len(tasks) if len(tasks) < MOST_TASKS else await pages.task_count(session_id),
        reviews=reviews,
        said=await pages.said(session_id) if running else [],
        summary=of_session(lived) if lived else {},
        drafts=await sessions.board.find(session_id=session_id) if completed else [],
        budgets=await sessions.budgets.of(session_id),
        timeline=timeline(
            tasks,
            await pages.attempts(tasks),
            await pages.calls(session_id),
            reviews,
            waiting=_waiting(progress),
            ended=progress["completedAt"],
            now=now,
        ),
        now=now,
    )


def _waiting(progress: dict[str, Any]) -> tuple[int, datetime] | None:
    """Return the phase in which a person is waited for, and since when."""
    since = progress["waitingSince"]
    if since is None and progress["status"] in {SessionState.FAILED, SessionState.PAUSED}:
        since = progress["updatedAt"]  # nobody counts it, but nothing goes on before somebody acts
    return None if since is None else (progress["currentPhase"], since)


class SessionView:
    """A session in one language."""

    def __init__(self, material: Material, t: Speech) -> None:
        self._t = t
        self.material = material
        self.session = material.session
        self.progress = material.progress
        self.id = material.session.id
        self.status: str = material.progress["status"]
        self.now = material.now
        self.drafts = material.drafts
        self.timeline = material.timeline
        self.track: Track = track(material.progress, t)
        self._titles = {leg.number: leg.title for leg in self.track.legs}

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self.status in _ENDED

    @property
    def at_gate(self) -> bool:
        """Whether a person is to decide."""
        return self.status == SessionState.AWAITING_REVIEW

    @property
    def seen(self) -> str:
        """Where it stands, for a form that decides without a gate."""
        return place_in(self.progress)

    @property
    def lead(self) -> str:
        """Say at a gate what makes the next phase begin."""
        t, missing = self._t, self.progress["missing"]
        who = t("word.comma").join(self.progress["approvedBy"])
        key = "gate.lead-others" if who else "gate.lead-several" if missing > 1 else "gate.lead"
        leg = self.title_of(self.progress["currentPhase"])
        return t(key, phase=plain(leg), who=plain(who), n=missing)

    @property
    def wants_name(self) -> bool:
        """Whether it matters to the gate who approves."""
        return looks_at_names(
            policy_of(self.session.flow_phases, self.session.gates, self.progress["currentPhase"])
        )

    @property
    def may_rerun(self) -> bool:
        """Whether some phase can be run again now."""
        return session_after(SessionState(self.status), SessionEvent.RERUN) is not None

    def may_rerun_phase(self, phase: int) -> bool:
        """Whether this phase can be run again now."""
        current, status = self.progress["currentPhase"], SessionState(self.status)
        return self.may_rerun and beyond(phase, status=status, current=current) is None

    def may_edit(self, standing: RevisionRow) -> bool:
        """Whether what stands of a phase can be edited now."""
        phases = self.progress["phases"]
        # A fork has run nothing of the phases that it shares: what stands is all there is of them.
        newest = phases[standing.phase - 1]["generation"] or standing.generation
        refused = no_edit(
            standing.phase,
            session_id=self.id,
            status=SessionState(self.status),
            current=self.progress["currentPhase"],
            phases=len(phases),
            has_output=standing.generation == newest,
        )
        return refused is None

    @property
    def waits_for(self) -> str:
        """Return what kind of act the session waits for, or an empty text."""
        waiting = self.progress["waitingFor"]
        return str(waiting["kind"]) if waiting else ""

    def title_of(self, phase: int) -> str:
        """Return the title of a phase."""
        return self._titles.get(phase, str(phase))

    @property
    def headline(self) -> str:
        """Say in one line what is going on."""
        t, leg = self._t, self.title_of(self.progress["currentPhase"])
        waiting = self.progress["waitingFor"]
        if waiting is not None:
            return t(f"waiting.{waiting['kind']}", phase=leg)
        step = t(f"step.{self.progress['currentStep']}")
        key = "running" if self.status == SessionState.RUNNING else self.status
        if self.drafts:  # there are none before a session has completed
            key = "drafts"
        return t(f"headline.{key}", phase=leg, step=step)

    @property
    def advice(self) -> str:
        """Say what a person can do now, if anything."""
        # What is tried again by itself is told with the trouble, and a wait where it is shown.
        kind, wait = self.waits_for, self.progress["wait"]
        told = {"", "retry", wait["kind"] if wait else ""}
        return self._t(f"waiting-advice.{kind}") if kind not in told else ""

    @property
    def wait(self) -> WaitShown | None:
        """Return what a task only waits for, if one does."""
        wait, t = self.progress["wait"], self._t
        if wait is None:
            return None
        return WaitShown(
            what=t(f"wait.{wait['kind']}"),
            advice=t.maybe(f"waiting-advice.{wait['kind']}", t("waiting-advice.claim")),
            needs_person=wait["kind"] == "model",
            message=str(wait["message"] or ""),
            task=wait["taskId"],
            where=self._where(wait),
            until=wait["until"],
        )

    def _where(self, told: dict[str, Any]) -> str:
        phase, step = told.get("phase"), told.get("step")
        if not isinstance(phase, int) or not step:
            return ""
        return self._t("session.where", phase=self.title_of(phase), step=self._t(f"step.{step}"))

    @property
    def trouble(self) -> Trouble | None:
        """Return what went wrong last, if that still matters."""
        error = self.progress["error"]
        if error is None or self.ended:
            return None
        t, kind, retry_at = self._t, str(error.get("kind") or ""), error.get("retryAt")
        # Nothing has failed for good, and there is nothing to resume, before the last try.
        todo = "again" if retry_at else kind
        return Trouble(
            what=t.maybe(f"trouble.{kind}", t("trouble.other")),
            advice=t.maybe(f"trouble-advice.{todo}", t("trouble-advice.other")),
            message=str(error.get("message") or ""),
            kind=kind,
            task=error.get("taskId"),
            attempt=error.get("attempt"),
            where=self._where(error),
            retry_at=retry_at,
        )

    @property
    def running(self) -> list[RunningShown]:
        """Return the running tasks, with the end of what each has said."""
        said: dict[int, list[SaidRow]] = {}
        for row in self.material.said:
            said.setdefault(row.task_id, []).append(row)
        found = [t for t in self.material.tasks if t.status == TaskState.RUNNING]
        return [
            RunningShown(
                task=task,
                title=self.title_of(task.phase),
                step=self._t(f"step.{task.step}"),
                said="\n\n".join(readable(r.text) for r in said.get(task.id, [])),
                cut=any(r.length > len(r.text) for r in said.get(task.id, [])),
            )
            for task in found[:MOST_RUNNING]
        ]

    @property
    def running_more(self) -> int:
        """Return how many running tasks are not shown."""
        count = sum(t.status == TaskState.RUNNING for t in self.material.tasks)
        return max(0, count - MOST_RUNNING)

    @property
    def phases(self) -> list[PhaseShown]:
        """Return what was made, the newest phase first."""
        names = {m: n for r in self.material.revisions for m, n in names_in(r.output)}
        found: list[PhaseShown] = []
        for number in sorted({r.phase for r in self.material.revisions}, reverse=True):
            rows = [r for r in self.material.revisions if r.phase == number]
            rows.sort(key=lambda r: (r.generation, r.number), reverse=True)
            before = [*rows[1:], None]
            shown = [self._revision(r, b, names) for r, b in zip(rows, before, strict=True)]
            found.append(
                PhaseShown(
                    number=number,
                    title=self.title_of(number),
                    standing=shown[0],
                    older=shown[1:],
                    reviews=[r for r in self.material.reviews if r.phase == number],
                    waits=self.at_gate and number == self.progress["currentPhase"],
                )
            )
        return found

    def _revision(
        self, row: RevisionRow, before: RevisionRow | None, names: dict[str, str]
    ) -> RevisionShown:
        parts = None if row.too_large else shape(row.output, self._t, names)
        known = before is not None and not (row.too_large or before.too_large)
        found, more = changes(before.output, row.output, self._t) if known and before else ([], 0)
        return RevisionShown(row=row, parts=parts, changes=found, changes_more=more)

    @property
    def drafts_shown(self) -> list[Part]:
        """Return the drafts of a session that is done."""
        newest = max((d.generation for d in self.drafts), default=0)
        drafts = sorted((d for d in self.drafts if d.generation == newest), key=lambda d: d.number)
        return [shape({**d.body, "title": d.title}, self._t) for d in drafts]

    @property
    def summary(self) -> list[str]:
        """Say where the time went, while nothing runs."""
        return self.material.summary.get(self._t.code, [])

    @property
    def input(self) -> Part:
        """Return what the session was given."""
        return shape(self.session.input, self._t)

    @property
    def figures(self) -> list[tuple[str, str, str]]:
        """Return what it took so far: label, value, remark."""
        t, usage, cost = self._t, self.progress["usage"], self.progress["cost"]
        unpriced = cost["callsWithoutPrice"]
        return [
            (
                t("figure.cost"),
                dollars(cost["usd"]),
                t("figure.unpriced", n=unpriced) if unpriced else "",
            ),
            (
                t("figure.tokens"),
                _tokens(usage["inputTokens"], usage["outputTokens"]),
                t("figure.tokens-remark"),
            ),
            (t("figure.calls"), f"{usage['calls']:,}", ", ".join(usage["models"][:4])),
            *(self._budget(budget) for budget in self.material.budgets),
        ]

    def _budget(self, budget: Spent) -> tuple[str, str, str]:
        """Return what is gone of a budget, as a figure."""
        t, parts = self._t, []
        if budget.max_cost_usd is not None:
            used, most = dollars(budget.used_usd), dollars(budget.max_cost_usd)
            parts.append(t("figure.used", a=used, b=most))
        if budget.max_tokens is not None:
            used, most = f"{budget.used_tokens:,}", f"{budget.max_tokens:,}"
            parts.append(t("figure.used-tokens", a=used, b=most))
        return (
            t("figure.budget-of", phase=self.title_of(budget.phase))
            if budget.phase
            else t("figure.budget"),
            t("word.comma").join(parts),
            t("figure.unpriced", n=budget.unpriced) if budget.unpriced else "",
        )

    @property
    def budget_stop(self) -> str:
        """Say which budget the session has stopped at."""
        t, stop = self._t, self.progress["stop"]
        phase, limit = stop.get("ofPhase"), limit_of(stop)
        whose = t("figure.budget-of", phase=self.title_of(phase)) if phase else t("figure.budget")
        match limit:
            case Limit.PRICE:
                return t("stop.price", budget=whose)
            case Limit.COST:
                used = t("figure.used", a=dollars(stop["costUsd"]), b=dollars(stop["maxCostUsd"]))
            case Limit.TOKENS:
                tokens, most = f"{stop['tokens']:,}", f"{stop['maxTokens']:,}"
                used = t("figure.used-tokens", a=tokens, b=most)
            case _:
                assert_never(limit)
        return t("stop.used", budget=whose, used=used)

    def row_of(self, task_id: int) -> Row | None:
        """Return where the time of a task went, once it has begun."""
        return self.timeline.of_task.get(task_id) if self.timeline else None

    @property
    def listed(self) -> list[TaskRow]:
        """Return the tasks of the table, in running order."""
        return self.material.tasks[-MOST_LISTED:]

    @property
    def listed_title(self) -> str:
        """Say which tasks the table has."""
        shown, count = len(self.listed), self.material.task_count
        if shown == count:
            return self._t("tasks.title", n=count)
        return self._t("tasks.newest", n=shown, of=f"{count:,}")

    @property
    def left_out(self) -> str:
        """Say what the drawing of the time leaves out, and the sums beside it."""
        line, read, count = self.timeline, len(self.material.tasks), self.material.task_count
        if line is None or not (line.left_out or read < count):
            return ""
        drawn = self._t("time.drawn", n=len(line.rows), of=f"{count:,}")
        return drawn if read == count else f"{drawn} {self._t('time.summed', n=f'{read:,}')}"


def _tokens(given: int | None, made: int | None) -> str:
    def count(n: int | None) -> str:
        return "–" if n is None else f"{n:,}"

    return f"{count(given)} → {count(made)}"


def readable(said: str) -> str:
    """Return a piece of JSON without its signs, so that a person can read along; else the text.

    A model that answers under a schema streams JSON. The page's script does the same to what it
    hears, so a reload changes nothing.
    """
    if said.lstrip()[:1] not in {"{", "["} or '":' not in said[:400]:
        return said
    out: list[str] = []
    text, at = said, 0
    while at < len(text):
        character = text[at]
        if character != '"':
            if character.isalnum() or character in ".-":
                out.append(character)
            elif character == ",":
                out.append("\n")
            at += 1
            continue
        end = at + 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        word = _unescaped(text[at + 1 : end])
        after = text[end + 1 : end + 4].lstrip()
        out.append(f"{word.replace('_', ' ')}: " if after.startswith(":") else f"{word}")
        at = end + 1
    return "\n".join(line.strip() for line in "".join(out).splitlines() if line.strip())


def _unescaped(word: str) -> str:
    for sign, meant in (("\\n", "\n"), ("\\t", " "), ('\\"', '"'), ("\\/", "/"), ("\\\\", "\\")):
        word = word.replace(sign, meant)
    return word
