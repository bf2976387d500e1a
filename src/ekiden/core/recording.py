"""A session as one file: its stored inputs and results, and every call byte for byte.

The file is JSON. Results are kept as the text that is stored, and bytes as base64, so what is read
back is what was written.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from ekiden.errors import EkidenError

FORMAT = 1

_BYTES = frozenset({"request", "answer"})

T = TypeVar("T")


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
    input_tokens: int | None
    output_tokens: int | None
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
class Recording:
    """One session."""

    session_id: str
    flow: str
    flow_version: str
    title: str
    status: str
    input: str  # JSON text
    outputs: dict[int, str]  # JSON text, by phase: what was approved, else what stands
    tasks: list[RecordedTask]
    calls: list[RecordedCall]

    def newest(self) -> list[RecordedTask]:
        """Return the tasks of each phase's newest generation, in running order."""
        last: dict[int, int] = {}
        for task in self.tasks:
            last[task.phase] = max(last.get(task.phase, 0), task.generation)
        order = {"THINK": 0, "EXECUTE": 1, "INTEGRATE": 2}
        return sorted(
            (task for task in self.tasks if task.generation == last[task.phase]),
            key=lambda t: (t.phase, order[t.step], t.item),
        )


def write(recording: Recording) -> str:
    """Return the file's text."""
    found = asdict(recording)
    found["outputs"] = {str(phase): text for phase, text in recording.outputs.items()}
    for call in found["calls"]:
        for name in _BYTES:
            if call[name] is not None:
                call[name] = base64.b64encode(call[name]).decode()
    return json.dumps({"ekidenRecording": FORMAT, **found}, ensure_ascii=True, indent=1)


def read(text: str) -> Recording:
    """Return what a file holds.

    Raises:
        RecordingInvalid: it is none of ours; the message says what is wrong with it.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RecordingInvalid(f"The file is no JSON: {error}") from None
    if not isinstance(found, dict) or "ekidenRecording" not in found:
        raise RecordingInvalid(
            "The file is no recording of a session. One is made by: "
            "ekiden sessions export ID --format recording"
        )
    if found.pop("ekidenRecording") != FORMAT:
        raise RecordingInvalid("The recording was made by another version of Ekiden.")
    try:
        found["outputs"] = {int(phase): output for phase, output in found["outputs"].items()}
        found["tasks"] = _all(RecordedTask, found["tasks"])
        for call in found["calls"]:
            for name in _BYTES:
                if call[name] is not None:
                    call[name] = base64.b64decode(call[name], validate=True)
        found["calls"] = _all(RecordedCall, found["calls"])
        return Recording(**found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingInvalid(f"The recording is damaged: {error!r}") from None


def _all(kind: type[T], values: Sequence[dict[str, Any]]) -> list[T]:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for value in values:
        if set(value) != names:
            raise ValueError(f"{kind.__name__} has {sorted(value)}")
    return [kind(**value) for value in values]
