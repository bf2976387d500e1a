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
from dataclasses import dataclass, field
from typing import Any

from ekiden.errors import EkidenError

FORMAT = 1

PARTS = (
    "session", "flow", "workers", "runs", "tasks", "attempts", "calls", "revisions", "reviews",
    "events", "drafts", "budgets",
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
    tolerated: bool  # it was given up and its siblings went on
    item_input: str | None  # JSON text: the item, when the step fans out
    result: str | None  # JSON text
    error: str | None  # of the last attempt, when it failed: what people read
    error_kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """One generation of a phase, and what people gave it."""

    think_from: int | None = None  # the generation whose plan it goes on from
    execute_from: int | None = None  # the same for the results of EXECUTE
    note: str | None = None
    previous: str | None = None  # the output that is about, JSON text
    model: str | None = None  # "provider:model"
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One session, as replay needs it."""

    session_id: str
    flow: str
    flow_version: str
    title: str
    status: str
    input: str  # JSON text
    gates: dict[int, dict[str, Any]]  # policies over the flow's, by phase
    models: dict[str, str]  # "provider:model" by place
    kept: frozenset[int]  # later phases whose output still holds, after going back
    runs: dict[tuple[int, int], RecordedRun]  # by phase and generation
    outputs: dict[int, str]  # JSON text, by phase: what was approved, else what stands
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
                gates={int(p): g for p, g in json.loads(session["gates"]).items()},
                models=json.loads(session["models"]),
                kept=frozenset(session["kept"]),
                runs={(row["phase"], row["generation"]): _run(row, rows) for row in rows["runs"]},
                outputs=dict(_outputs(rows)),
                tasks=[_task(row) for row in rows["tasks"]],
                calls=[_call(row) for row in rows["calls"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordingInvalid(f"The recording is damaged: {error!r}") from None

    def newest(self) -> list[RecordedTask]:
        """Return the tasks that made each phase's newest output, in running order.

        A generation that went on from an earlier one's plan or results has those tasks, too.
        """
        last: dict[int, int] = {}
        for task in self.tasks:
            last[task.phase] = max(last.get(task.phase, 0), task.generation)
        return sorted(
            (t for t in self.tasks if t.generation == self._from(t.phase, last[t.phase], t.step)),
            key=lambda t: (t.phase, _STEPS[t.step], t.item),
        )

    def run_of(self, task: RecordedTask) -> RecordedRun:
        """Return what people gave the run that a task belongs to."""
        return self.runs.get((task.phase, task.generation), RecordedRun())

    def beside(self, task: RecordedTask, step: str) -> list[RecordedTask]:
        """Return the tasks of a step that a task is given the results of, in item order."""
        generation = self._from(task.phase, task.generation, step)
        found = [t for t in self.tasks if (t.phase, t.generation) == (task.phase, generation)]
        return sorted((t for t in found if t.step == step), key=lambda t: t.item)

    def _from(self, phase: int, generation: int, step: str) -> int:
        """Return the generation whose tasks of a step stand for this one's."""
        run = self.runs.get((phase, generation), RecordedRun())
        other = {"THINK": run.think_from, "EXECUTE": run.execute_from}.get(step)
        return generation if other is None else other


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


def _task(row: dict[str, Any]) -> RecordedTask:
    names = ("id", "phase", "generation", "step", "item", "status", "attempt", "result")
    error = json.loads(row["error"] or "{}")
    return RecordedTask(
        **{name: row[name] for name in names},
        delivered=row["delivered"] is not None,
        tolerated=row["tolerated"],
        item_input=row["request"],
        error=error.get("message"),
        error_kind=error.get("kind"),
    )


def _run(row: dict[str, Any], rows: Rows) -> RecordedRun:
    results = {task["id"]: task["result"] for task in rows["tasks"]}
    about = next((r for r in rows["revisions"] if r["id"] == row["previous"]), None)
    previous = None
    if about is not None:
        previous = about["output"] or results.get(about["task_id"])
    return RecordedRun(
        think_from=row["think_from"],
        execute_from=row["execute_from"],
        note=row["note"],
        previous=previous,
        model=row["model"],
        variables=json.loads(row["variables"]),
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
