"""A session as one file: everything it is made of, every call byte for byte.

The file is JSON. Results are kept as the text that is stored, and bytes as base64, so what is read
back is what was written. Its rows are those of the database (store/queries/recording.sql); replay
needs some of them, as the records here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ekiden.errors import EkidenError

FORMAT = 1

PARTS = (
    "session", "flow", "workers", "runs", "tasks", "attempts", "calls", "revisions", "reviews",
    "events", "drafts",
)  # fmt: skip
Rows = dict[str, list[dict[str, Any]]]  # by part; bytes are base64 text

_STEPS = {"THINK": 0, "EXECUTE": 1, "INTEGRATE": 2}


class RecordingInvalid(EkidenError):
    """The file is no recording of a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One call of the ledger."""

    id: int
    task_id: int
    attempt: int
    number: int
    kind: str
    provider: str
    model: str
    outcome: str
    error: str | None
    http_status: int | None
    content_type: str | None
    request_hash: str  # SHA-256 of the request, hex
    request: bytes
    answer: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTask:
    """One task."""

    id: int
    phase: int
    generation: int
    step: str
    item: int
    status: str
    attempt: int
    delivered: bool  # its result came from outside: no code of ours made it
    item_input: str | None  # JSON text: the item, when the step fans out
    result: str | None  # JSON text
    error: str | None  # of the last attempt, when it failed: what people read
    error_kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """One run of a phase, with what a person gave it."""

    phase: int
    generation: int
    think_from: int  # the generation that its plan is of
    execute_from: int  # the same for the results of EXECUTE
    note: str | None
    previous: str | None  # JSON text: the output that was sent back
    model: str | None
    variables: dict[str, Any]

    def generation_of(self, step: str) -> int:
        """Return the generation that a step's tasks are of."""
        return {"THINK": self.think_from, "EXECUTE": self.execute_from}.get(step, self.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One session, as replay needs it."""

    session_id: str
    flow: str
    flow_version: str
    title: str
    status: str
    input: str  # JSON text
    outputs: dict[int, str]  # JSON text, by phase: what was approved, else what stands
    runs: list[RecordedRun]
    tasks: list[RecordedTask]
    calls: list[RecordedCall]

    @classmethod
    def of(cls, rows: Rows) -> Recording:
        """Return what replay needs of the rows.

        Raises:
            RecordingInvalid: something is missing in them, or damaged.
        """
        try:
            (session,), (flow,) = rows["session"], rows["flow"]
            return cls(
                session_id=session["id"],
                flow=flow["name"],
                flow_version=flow["version"],
                title=session["title"],
                status=session["status"],
                input=session["input"],
                outputs=dict(_outputs(rows)),
                runs=[_run(row, rows) for row in rows["runs"]],
                tasks=[_task(row) for row in rows["tasks"]],
                calls=[_call(row) for row in rows["calls"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordingInvalid(f"The recording is damaged: {error!r}") from None

    def newest(self) -> list[RecordedTask]:
        """Return the tasks of each phase's newest run, those it goes on from too, in order."""
        runs = {run.phase: run for run in sorted(self.runs, key=lambda r: r.generation)}
        return sorted(
            (t for t in self.tasks if t.generation == runs[t.phase].generation_of(t.step)),
            key=lambda t: (t.phase, _STEPS[t.step], t.item),
        )

    def run_of(self, task: RecordedTask) -> RecordedRun:
        """Return the run of a phase that a task was made in."""
        return next(
            r for r in self.runs if (r.phase, r.generation) == (task.phase, task.generation)
        )


def write(rows: Rows) -> str:
    """Return the file's text."""
    return json.dumps({"ekidenRecording": FORMAT, **rows}, ensure_ascii=True, indent=1)


def read(text: str) -> Rows:
    """Return what a file holds.

    Raises:
        RecordingInvalid: it is none of ours; the message says what is wrong with it.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingInvalid(f"The file is no JSON: {error}") from None
    if not isinstance(found, dict) or "ekidenRecording" not in found:
        raise RecordingInvalid(
            "The file is no recording of a session. One is made by: "
            "ekiden sessions export ID --format recording"
        )
    if found.pop("ekidenRecording") != FORMAT:
        raise RecordingInvalid("The recording was made by another version of Ekiden.")
    for part in PARTS:
        rows = found.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise RecordingInvalid(f"The recording is damaged: its {part} are no rows.")
    return {part: found[part] for part in PARTS}


def encoded(data: bytes | None) -> str | None:
    """Return bytes as the file holds them."""
    return None if data is None else base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"bytes of a call: {error}") from None


def _call(row: dict[str, Any]) -> RecordedCall:
    names = (
        "id", "task_id", "attempt", "number", "kind", "provider", "model", "outcome", "error",
        "http_status", "content_type", "request_hash",
    )  # fmt: skip
    return RecordedCall(
        **{name: row[name] for name in names},
        request=_decoded(row["request"]),
        answer=None if row["answer"] is None else _decoded(row["answer"]),
    )


def _run(row: dict[str, Any], rows: Rows) -> RecordedRun:
    generation = row["generation"]
    results = {task["id"]: task["result"] for task in rows["tasks"]}
    previous: str | None = next(
        (
            revision["output"] or results.get(revision["task_id"])
            for revision in rows["revisions"]
            if revision["id"] == row["previous"]
        ),
        None,
    )
    return RecordedRun(
        phase=row["phase"],
        generation=generation,
        think_from=row["think_from"] or generation,
        execute_from=row["execute_from"] or generation,
        note=row["note"],
        previous=previous,
        model=row["model"],
        variables=json.loads(row["variables"]),
    )


def _task(row: dict[str, Any]) -> RecordedTask:
    names = ("id", "phase", "generation", "step", "item", "status", "attempt", "result")
    error = json.loads(row["error"] or "{}")
    return RecordedTask(
        **{name: row[name] for name in names},
        delivered=row["delivered"] is not None,
        item_input=row["request"],
        error=error.get("message"),
        error_kind=error.get("kind"),
    )


def _outputs(rows: Rows) -> Iterator[tuple[int, str]]:
    """Yield the output of each phase as later phases see it; a later one takes its place."""
    results = {row["id"]: row["result"] for row in rows["tasks"]}
    standing = sorted(
        rows["revisions"],
        key=lambda r: (r["approved_at"] is not None, r["generation"], r["number"]),
    )
    for revision in standing:
        output = revision["output"]
        if output is None:
            output = results.get(revision["task_id"])
        if output is not None:
            yield revision["phase"], output
