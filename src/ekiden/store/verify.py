"""The invariants (docs/verify.md), judged on one snapshot of a live database.

Nothing is locked and nothing is written; sessions that run meanwhile are seen as they were between
two of their transactions. The SQL is in ``queries/verify_*.sql``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from ekiden.errors import DatabaseError, NotFound
from ekiden.store.connection import address_of, connect, parse_session_id, translated
from ekiden.store.migrate import look
from ekiden.store.queries import sql

SHOWN = 20  # ids of each invariant that is violated
TIMEOUT = timedelta(minutes=10)  # that one invariant may take
# What counts attempts waits for transactions that may still write some; this one only reads.
APPLICATION = "ekiden-verify"
_ROWS = 20  # answers in memory at once; one may have 50 MB

# Reads the text out of the raw bytes of an answer (with their content type); None where it cannot.
Read = Callable[[bytes, str], str | None]
# Told how many invariants are judged, of how many, and which one is next.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that is always so. Its SQL is ``verify_<name>``."""

    name: str
    of: str  # what is examined, and what the ids name
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one invariant."""

    invariant: Invariant
    examined: int
    violations: int
    ids: list[str]  # of the violations, at most ``SHOWN``


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found in a database."""

    checked_at: datetime
    sessions: int
    tasks: int
    attempts: int  # that ended or run
    calls: int
    findings: list[Finding]

    @property
    def violations(self) -> int:
        """How many violations there are in all."""
        return sum(finding.violations for finding in self.findings)


PARTIALS_ARE_PREFIXES = Invariant(
    "partials_are_prefixes", "calls", "saved text is how the answer in the ledger begins"
)

# Ids: of sessions their UUID, of tasks their number; of what has none a path:
# phase "SESSION/phase", run "SESSION/phase/generation", step "SESSION/phase/generation/step",
# call "TASK/attempt/number"; of rows of several tables the kind before it.
INVARIANTS = (
    Invariant("running_sessions_have_work", "sessions", "RUNNING: queued, running or held tasks"),
    Invariant(
        "waiting_sessions_stand_at_a_gate", "sessions", "AWAITING_REVIEW: an output, no open task"
    ),
    Invariant("paused_sessions_are_held", "sessions", "PAUSED: nothing is queued"),
    Invariant("failed_sessions_have_a_cause", "sessions", "FAILED: a failed task, and the error"),
    Invariant("ended_sessions_are_quiet", "sessions", "COMPLETED, CANCELLED: no open task"),
    Invariant(
        "completed_sessions_are_whole", "sessions", "COMPLETED: all phases done and approved"
    ),
    Invariant("open_tasks_are_counted", "sessions", "open_tasks is the count of the current step"),
    Invariant("cursors_are_at_the_newest_step", "sessions", "the cursor is at the newest task"),
    Invariant("phases_have_no_gap", "sessions", "phases and generations count 1, 2, …"),
    Invariant("drafts_follow_completion", "drafts", "drafts are of sessions that were COMPLETED"),
    Invariant("tasks_follow_the_flow", "tasks", "tasks are of phases and steps of the flow"),
    Invariant("one_task_per_item", "tasks", "one task an item, so one claim at a time"),
    Invariant("claims_have_workers", "tasks", "RUNNING: by a worker that registered"),
    Invariant("attempts_are_numbered", "tasks", "attempts count 1, 2, … to the task's number"),
    Invariant("tasks_are_completed_once", "tasks", "by one attempt, the last (fencing)"),
    Invariant("completed_tasks_have_results", "tasks", "COMPLETED tasks have a result, no others"),
    Invariant("steps_wait_for_the_step_before", "runs", "a step begins when the last is complete"),
    Invariant("phase_runs_match_tasks", "runs", "a run of a phase has tasks, a task has its run"),
    Invariant("transitions_go_forward", "steps", "steps follow each other in the flow's order"),
    Invariant("steps_complete_in_order", "steps", "no step completed before the one before it"),
    Invariant("outputs_are_results", "runs", "a phase's output is its INTEGRATE task's result"),
    Invariant("gates_are_reviewed_once", "phases", "each passage of a gate has one review"),
    Invariant("gates_are_passed_once", "sessions", "each run of a phase has one cause"),
    Invariant("forks_share_outputs", "phases", "what a fork shares is what its parent has"),
    Invariant("budgets_were_kept", "calls", "no call cost more than was reserved for it"),
    Invariant("phases_begin_after_approval", "runs", "no phase before the one before is approved"),
    Invariant("calls_belong_to_attempts", "calls", "ledger and attempts agree"),
    Invariant("calls_have_one_answer", "calls", "a call is in the ledger once"),
    Invariant("answers_are_paid_once", "calls", "no attempt paid for what the ledger had"),
    Invariant("partials_have_no_gap", "calls", "saved text is numbered 1, 2, …"),
    PARTIALS_ARE_PREFIXES,
    Invariant("completions_are_told_once", "tasks", "one task_completed a COMPLETED task"),
    Invariant("troubles_are_told_once", "tasks", "one event a failed, lost or returned attempt"),
    Invariant("sessions_are_told_once", "sessions", "one event a creation and an end"),
    Invariant("gates_are_told_once", "phases", "one event a gate opened, one a gate approved"),
    Invariant("nothing_is_orphaned", "rows", "rows have their session, task and worker"),
)  # fmt: skip


async def verify(
    dsn: str,
    *,
    read: Read,
    session_id: str | None = None,
    timeout: timedelta = TIMEOUT,
    progress: Progress | None = None,
) -> Report:
    """Judge every invariant.

    Args:
        dsn: the database.
        read: reads the answers of the ledger, to compare saved text with.
        session_id: judge only this session.
        timeout: that one invariant may take.
        progress: hears how far it is.

    Raises:
        DatabaseUnreachable: no connection, or it broke.
        DatabaseError: there is no schema, or another than this version's; or it took too long.
        NotFound: no such session.
    """
    session_id = None if session_id is None else parse_session_id(session_id)
    await _check_schema(dsn)
    connection = await connect(dsn, settings={"application_name": APPLICATION})
    try:
        with translated(dsn):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                settings = _settings(timeout, session_id)
                await connection.execute(
                    sql("verify_settings"), list(settings), list(settings.values())
                )
                return await _judge(connection, read, session_id, progress)
    except DatabaseError as error:
        if isinstance(error.__cause__, asyncpg.QueryCanceledError):
            raise DatabaseError(
                f"An invariant took longer than {timeout.total_seconds():g} s. Give it more time, "
                "or check one session."
            ) from error
        raise
    finally:
        await connection.close()


def _settings(timeout: timedelta, session_id: str | None) -> dict[str, str]:
    return {
        "statement_timeout": str(round(timeout.total_seconds() * 1000)),  # milliseconds
        # A plan for the question at hand: of one session, or of all.
        "plan_cache_mode": "force_custom_plan",
        # The database has other work: one core, no compiling.
        "max_parallel_workers_per_gather": "0",
        "jit": "off",
        "work_mem": "64MB",
        # With old statistics a part that is thought to be one row would be read for each row of
        # another. Of one session all parts are small, and found by index.
        "enable_nestloop": "off" if session_id is None else "on",
    }


async def _check_schema(dsn: str) -> None:
    """See that the tables are those which the queries know.

    Raises:
        DatabaseError: they are not.
    """
    state = await look(dsn)
    if state.applied != state.known:
        found = f"is at migration {state.applied}" if state.applied else "has no Ekiden schema"
        advice = "upgrade Ekiden here" if state.applied > state.known else "ekiden migrate"
        raise DatabaseError(
            f"{address_of(dsn)} {found}, this Ekiden knows {state.known}: {advice}."
        )


async def _judge(
    connection: asyncpg.Connection, read: Read, session_id: str | None, progress: Progress | None
) -> Report:
    counts = await connection.fetchrow(sql("verify_counts"), session_id)
    assert counts is not None
    if session_id is not None and not counts["sessions"]:
        raise NotFound(f"There is no session {session_id}.")
    findings = []
    for done, invariant in enumerate(INVARIANTS):
        if progress is not None:
            progress(done, len(INVARIANTS), invariant.name)
        if invariant is PARTIALS_ARE_PREFIXES:
            findings.append(await _judge_partials(connection, read, session_id))
            continue
        row = await connection.fetchrow(sql(f"verify_{invariant.name}"), session_id)
        assert row is not None
        findings.append(
            Finding(
                invariant=invariant,
                examined=row["examined"],
                violations=row["violations"],
                ids=sorted(row["ids"] or []),
            )
        )
    return Report(**counts, findings=findings)


async def _judge_partials(
    connection: asyncpg.Connection, read: Read, session_id: str | None
) -> Finding:
    """Compare saved text with answers. Examined are those that can be read."""
    examined, wrong = 0, []
    query = sql("verify_partials_and_answers")
    async for row in connection.cursor(query, session_id, prefetch=_ROWS):
        text = read(row["answer"], row["content_type"] or "")
        if text is None:
            continue
        examined += 1
        if not text.startswith(row["text"]):
            wrong.append(row["id"])
    return Finding(
        invariant=PARTIALS_ARE_PREFIXES,
        examined=examined,
        violations=len(wrong),
        ids=wrong[:SHOWN],
    )
