"""What the store should do, in plain Python: the machine's tables and dictionaries, no SQL.

Every method is one thing that can happen to the store. It answers what the store must answer, and
``seen`` is all that must be visible in the database afterwards. What may follow what is asked of
``ekiden.core.machine``, never written down again here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ekiden.core.machine import (
    SessionEvent,
    TaskEvent,
    Transition,
    decide,
    session_after,
    task_after,
)
from ekiden.core.model import Outcome, SessionState, StepKind, TaskState, WorkerState
from tests.store.shapes import Claimed, Done, Handed, Place, Shape, Token

LEASE = 30  # seconds
MAX_DEATHS = 2  # fewer than the engine's, so that a random walk gets there

_ALIVE = WorkerState.ALIVE


class Impossible(Exception):
    """The store answered what no order of events allows."""


@dataclass(slots=True)
class Session:
    name: str
    shape: Shape
    auto_steps: bool
    auto_phases: bool
    status: SessionState = SessionState.RUNNING
    phase: int = 1
    step: StepKind = StepKind.THINK
    generation: int = 1
    open_tasks: int = 1
    error: bool = False  # it shows one

    def follows(self, place: Place, items: int) -> tuple[Transition, int | None, int]:
        """Return what follows this task's step, its fan-out if it is one, and how many tasks."""
        fan = items if place.step is StepKind.THINK and place.phase in self.shape.fans_out else None
        transition = decide(
            self.shape.kinds,
            len(self.shape.phases),
            phase=place.phase,
            # With nothing to execute, EXECUTE is closed.
            step=StepKind.EXECUTE if fan == 0 else place.step,
            auto_steps=self.auto_steps,
            gate=not self.auto_phases,
        )
        count = (fan or 1) if transition.event is SessionEvent.ADVANCE else 0
        return transition, fan or None, count


@dataclass(slots=True)
class Task:
    place: Place
    queued: bool = False
    awaiting: bool = False
    status: TaskState = TaskState.QUEUED
    attempt: int = 0
    budget_from: int = 0
    deaths: int = 0  # since a person last resumed it
    available_at: int = 0
    worker: str | None = None
    delivered: bool = False
    error: bool = False
    attempts: list[tuple[Any, ...]] = field(default_factory=list)

    def end(self, outcome: Outcome, *, error: bool = False, retry_at: int | None = None) -> None:
        self.attempts.append((self.attempt, self.worker, outcome, error, retry_at))

    def wait(self, session: Session, now: int) -> None:
        """Wait to be claimed from ``now`` on; while the session is paused, to be let go first."""
        self.awaiting = session.status is SessionState.PAUSED
        self.queued = not self.awaiting
        self.available_at = now


@dataclass(slots=True)
class Worker:
    lease_until: int
    state: WorkerState = _ALIVE


@dataclass(slots=True)
class Model:
    """The whole store."""

    now: int = 0
    sessions: dict[str, Session] = field(default_factory=dict)
    tasks: dict[Place, Task] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    revisions: dict[tuple[str, int, int, int], bool] = field(default_factory=dict)  # → approved
    reviews: Counter[tuple[str, int, str, int]] = field(default_factory=Counter)
    drafts: Counter[str] = field(default_factory=Counter)
    phase_runs: set[tuple[str, int, int]] = field(default_factory=set)
    keys: dict[str, Any] = field(default_factory=dict)  # → the approval it was used for

    # -- workers ------------------------------------------------------------------------------

    def hello(self, worker: str) -> None:
        self.workers[worker] = Worker(self.now + LEASE)

    def renew(self, worker: str) -> bool:
        known = self.workers[worker]
        if known.state is not _ALIVE:
            return False
        known.lease_until = self.now + LEASE
        return True

    def dead(self) -> frozenset[str]:
        holding = {task.worker for task in self.running()}
        return frozenset(
            name
            for name, worker in self.workers.items()
            if (worker.lease_until <= self.now if worker.state is _ALIVE else name in holding)
        )

    def rescue(self, workers: Sequence[str]) -> int:
        rescued = [task for task in self.running() if task.worker in workers]
        poisoned = []
        for task in rescued:
            task.deaths += 1
            session = self.sessions[task.place.session]
            task.error = task.deaths >= MAX_DEATHS
            if task.error:
                poisoned.append(task)
                self._task(task, TaskEvent.FAIL)
                task.end(Outcome.LOST, error=True)
                self._tell(session, "task_failed")
            else:
                self._task(task, TaskEvent.RESCUE)
                task.wait(session, self.now)
                task.end(Outcome.LOST, retry_at=self.now)
                self._tell(session, "task_rescued")
        for task in poisoned:
            session = self.sessions[task.place.session]
            self._session(session, SessionEvent.FAIL)
            session.error = True
        for name in workers:
            self.workers[name].state = WorkerState.LOST
        return len(rescued)

    # -- what people do -----------------------------------------------------------------------

    def create(
        self, name: str, shape: Shape, auto_steps: bool, auto_phases: bool, start: bool
    ) -> None:
        session = self.sessions[name] = Session(name, shape, auto_steps, auto_phases)
        self.phase_runs.add((name, 1, 1))
        self._insert(session, 1, held=not start)
        self._tell(session, "session_created")

    def start(self, name: str) -> int | str:
        session = self.sessions[name]
        if session_after(session.status, SessionEvent.START) is None:
            return "Conflict"
        freed = [task for task in self._of(name) if task.awaiting]
        for task in freed:
            task.wait(session, self.now)
        for _ in {(task.place.phase, task.place.step) for task in freed}:
            self._tell(session, "step_started")
        return len(freed)

    def approve(self, name: str, revision: int | None, key: str | None) -> str | None:
        session = self.sessions[name]
        newest = max((r for r in self.revisions if r[0] == name), default=None)
        asked = (name, None if revision is None else newest)
        if key is not None and key in self.keys:
            return None if self.keys[key] == asked else "Conflict"
        if session_after(session.status, SessionEvent.APPROVE) is None:
            return "NoGate"
        place = (name, session.phase, session.generation)
        standing = max(r for r in self.revisions if r[:3] == place)
        if revision is not None and revision != standing[3]:
            return "StaleRevision"
        self._session(session, SessionEvent.APPROVE)
        self.revisions[standing] = True
        self.reviews[name, session.phase, "approve", standing[3]] += 1
        self._tell(session, "gate_approved")
        if key is not None:
            self.keys[key] = asked
        session.phase += 1
        session.error = False
        self._begin_phase(session)
        session.step, session.open_tasks = StepKind.THINK, 1
        self._insert(session, 1, held=not session.auto_steps)
        return None

    def pause(self, name: str) -> str | None:
        session = self.sessions[name]
        if self._refused(session, SessionEvent.PAUSE):
            return self._unless(session, SessionState.PAUSED)
        self._session(session, SessionEvent.PAUSE)
        for task in self._of(name):
            if task.queued:
                task.queued, task.awaiting = False, True
        self._tell(session, "session_paused")
        return None

    def resume(self, name: str) -> str | None:
        session = self.sessions[name]
        if self._refused(session, SessionEvent.RESUME):
            return self._unless(session, SessionState.RUNNING)
        self._session(session, SessionEvent.RESUME)
        session.error = False
        for task in self._of(name):
            if task.status is TaskState.FAILED:
                self._task(task, TaskEvent.RESUME)
                task.budget_from, task.deaths = task.attempt, 0
                task.delivered = False  # it was wrong, or it killed its worker
            elif not task.awaiting:
                continue
            task.error = False
            task.wait(session, self.now)
        self._tell(session, "session_resumed")
        return None

    def cancel(self, name: str) -> str | None:
        session = self.sessions[name]
        if self._refused(session, SessionEvent.CANCEL):
            return self._unless(session, SessionState.CANCELLED)
        self._session(session, SessionEvent.CANCEL)
        for task in self._of(name):
            was = task.status
            if task_after(was, TaskEvent.CANCEL) is not None:
                self._task(task, TaskEvent.CANCEL)
                if was is TaskState.RUNNING:
                    task.end(Outcome.CANCELLED)
        self._tell(session, "session_cancelled")
        return None

    # -- what workers do ----------------------------------------------------------------------

    def due(self, worker_knows: Sequence[str]) -> list[Place]:
        """Return the places that may be claimed now; in which order only the store's ids say."""
        return [
            task.place
            for task in self.tasks.values()
            if task.queued
            and task.available_at <= self.now
            and self.sessions[task.place.session].shape.name in worker_knows
        ]

    def claim(self, worker: str, places: Sequence[Place]) -> frozenset[Claimed]:
        claimed = set()
        for place in places:
            task = self.tasks.get(place)
            if task is None or not task.queued or task.available_at > self.now:
                raise Impossible(f"{place} was claimed and was not due")
            self._task(task, TaskEvent.CLAIM)
            task.attempt += 1
            task.worker = worker
            claimed.add(Claimed(place, task.attempt, task.budget_from, task.delivered))
        return frozenset(claimed)

    def complete(self, worker: str, batch: Sequence[Done]) -> Handed:
        accepted = [n for n, done in enumerate(batch) if self._held(done.token, TaskEvent.COMPLETE)]
        following: dict[int, frozenset[Place]] = {}
        left_queued = False
        for name in {batch[n].token.place.session for n in accepted}:
            positions = [n for n in accepted if batch[n].token.place.session == name]
            session = self.sessions[name]
            for n in positions:
                task = self.tasks[batch[n].token.place]
                self._task(task, TaskEvent.COMPLETE)
                task.error = False
                task.end(Outcome.COMPLETED)
                self._tell(session, "task_completed")
            session.open_tasks -= len(positions)
            if session.open_tasks == 0:
                last = batch[positions[-1]]
                mine, left = self._hand_on(worker, session, last, last.room)
                left_queued |= left
                if mine:
                    following[positions[-1]] = mine
        return Handed(frozenset(accepted), following, left_queued)

    def _hand_on(
        self, worker: str, session: Session, last: Done, room: int
    ) -> tuple[frozenset[Place], bool]:
        place = last.token.place
        transition, _, count = session.follows(place, last.items)
        if place.step == session.shape.kinds(place.phase)[-1]:
            revision = (session.name, place.phase, place.generation, 1)
            self.revisions[revision] = transition.event is not SessionEvent.OPEN_GATE
        held = transition.hold or session.status is SessionState.PAUSED
        self._session(session, transition.event)
        session.phase, session.step = transition.phase, transition.step
        session.open_tasks = count
        if transition.new_phase:
            self._begin_phase(session)
        if transition.event is SessionEvent.OPEN_GATE:
            self._tell(session, "gate_opened")
        if transition.event is SessionEvent.FINISH:
            self._tell(session, "session_completed")
            self.drafts[session.name] += 1
        mine: set[Place] = set()
        for task in self._insert(session, count, held=held):
            if not held and task.place.item < room:
                self._task(task, TaskEvent.CLAIM)
                task.attempt, task.worker = 1, worker
                mine.add(task.place)
        return frozenset(mine), not held and len(mine) < count

    def retry(self, token: Token, delay: int) -> bool:
        if not self._held(token, TaskEvent.RETRY):
            return False
        task, session = self._both(token)
        self._task(task, TaskEvent.RETRY)
        task.wait(session, self.now + delay)
        task.error = True
        task.end(Outcome.RETRIED, error=True, retry_at=self.now + delay)
        self._tell(session, "task_retried")
        return True

    def fail(self, token: Token) -> bool:
        if not self._held(token, TaskEvent.FAIL):
            return False
        task, session = self._both(token)
        self._task(task, TaskEvent.FAIL)
        task.error = True
        task.end(Outcome.FAILED, error=True)
        self._session(session, SessionEvent.FAIL)
        session.error = True
        self._tell(session, "task_failed")
        return True

    def release(self, token: Token) -> bool:
        return self._give_back(token, "task_released")

    def deliver(self, token: Token) -> str | None:
        if not self._give_back(token, "result_delivered"):
            return "Conflict"
        self.tasks[token.place].delivered = True
        return None

    def _give_back(self, token: Token, told: str) -> bool:
        event = TaskEvent.DELIVER if told == "result_delivered" else TaskEvent.RETRY
        if not self._held(token, event):
            return False
        task, session = self._both(token)
        self._task(task, event)
        task.wait(session, self.now)
        task.budget_from += 1
        task.end(Outcome.RELEASED, retry_at=self.now)
        self._tell(session, told)
        return True

    # -- what is seen -------------------------------------------------------------------------

    def running(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.status is TaskState.RUNNING]

    def seen(self) -> dict[str, Any]:
        """Return all that must be visible in the database, with names for ids."""
        return {
            "sessions": {
                s.name: (s.status, s.phase, s.step, s.generation, s.open_tasks, s.error)
                for s in self.sessions.values()
            },
            "tasks": {
                t.place: (
                    t.status, t.queued, t.awaiting, t.attempt, t.budget_from, t.worker,
                    t.available_at if t.status is TaskState.QUEUED else None, t.delivered, t.error,
                )
                for t in self.tasks.values()
            },
            "attempts": {t.place: t.attempts for t in self.tasks.values() if t.attempts},
            "revisions": self.revisions,
            "reviews": dict(self.reviews),
            "drafts": dict(self.drafts),
            "phase_runs": dict.fromkeys(self.phase_runs, True),
            "events": dict(self.events),
            "workers": {name: (w.state, w.lease_until) for name, w in self.workers.items()},
        }  # fmt: skip

    def check(self) -> None:
        """Make sure that every session has a reason to be where it is, and no two."""
        for session in self.sessions.values():
            states = {task.status for task in self._of(session.name)}
            live = states & {TaskState.QUEUED, TaskState.RUNNING}
            failed = TaskState.FAILED in states
            match session.status:
                case SessionState.RUNNING:
                    assert live and not failed
                case SessionState.PAUSED:
                    assert live and not failed
                    assert not any(task.queued for task in self._of(session.name))
                case SessionState.FAILED:
                    assert failed
                case _:
                    assert not live and not failed

    # -- the small print ----------------------------------------------------------------------

    def _of(self, session: str) -> Iterator[Task]:
        return (task for task in self.tasks.values() if task.place.session == session)

    def _both(self, token: Token) -> tuple[Task, Session]:
        return self.tasks[token.place], self.sessions[token.place.session]

    def _held(self, token: Token, event: TaskEvent) -> bool:
        """Whether the fence lets this attempt through."""
        task = self.tasks[token.place]
        return task.attempt == token.attempt and task_after(task.status, event) is not None

    def _task(self, task: Task, event: TaskEvent) -> None:
        after = task_after(task.status, event)
        if after is None:
            raise Impossible(f"{task.place}: {event} while {task.status}")
        task.status = after
        task.queued = task.awaiting = False

    def _session(self, session: Session, event: SessionEvent) -> None:
        after = session_after(session.status, event)
        if after is None:
            raise Impossible(f"{session.name}: {event} while {session.status}")
        session.status = after

    def _refused(self, session: Session, event: SessionEvent) -> bool:
        return session_after(session.status, event) is None

    def _unless(self, session: Session, already: SessionState) -> str | None:
        return None if session.status is already else "Conflict"

    def _begin_phase(self, session: Session) -> None:
        earlier = [g for s, p, g in self.phase_runs if (s, p) == (session.name, session.phase)]
        session.generation = max(earlier, default=0) + 1
        self.phase_runs.add((session.name, session.phase, session.generation))

    def _insert(self, session: Session, count: int, *, held: bool) -> list[Task]:
        tasks = []
        for item in range(count):
            place = Place(session.name, session.phase, session.generation, session.step, item)
            assert place not in self.tasks
            self.tasks[place] = task = Task(
                place, queued=not held, awaiting=held, available_at=self.now
            )
            tasks.append(task)
        return tasks

    def _tell(self, session: Session, event: str) -> None:
        self.events[session.name, event] += 1
