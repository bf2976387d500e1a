"""What an attempt logs: each line says whose it is, and what went wrong leaves its lines.

Whatever is logged while an attempt runs, by us, by a flow through structlog or through the standard
library, is noted in memory, the newest lines only. Nothing is written unless the attempt fails or a
line of it is a warning.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

from ekiden.core.model import ClaimedTask
from ekiden.redaction import redact

LINES = 200  # kept of one attempt
_LONGEST = 2000  # characters of a value
_WARNINGS = frozenset({"warning", "error", "exception", "critical"})

Event = MutableMapping[str, Any]

_current: ContextVar[AttemptLog | None] = ContextVar("attempt_log", default=None)


class AttemptLog:
    """The log of one attempt. Made once a step, on the hot path: empty until a line comes."""

    __slots__ = ("_lines", "count", "task", "warned")

    def __init__(self, task: ClaimedTask) -> None:
        self.task = task
        self.count = 0
        self.warned = False  # a line is a warning or worse
        self._lines: deque[dict[str, Any]] | None = None

    def begin(self) -> AttemptLog:
        """Note what this coroutine, and whatever it starts, logs from here on."""
        _current.set(self)
        return self

    @property
    def where(self) -> dict[str, Any]:
        """Whose it is, as every line says."""
        task = self.task
        return {
            "session": task.session_id,
            "phase": task.phase,
            "step": task.step,
            "task": task.id,
            "attempt": task.attempt,
        }

    def note(self, level: str, event: str, fields: Event) -> None:
        """Note a line."""
        if self._lines is None:
            self._lines = deque(maxlen=LINES)
        own = self.where
        line = {"at": datetime.now(UTC).isoformat(), "level": level, "event": _short(event)}
        line.update(
            (_short(str(key)), _short(value))
            for key, value in fields.items()
            if key not in own and key not in {"level", "event", "timestamp"}
        )
        self._lines.append(line)
        self.count += 1
        self.warned = self.warned or level in _WARNINGS

    def as_json(self) -> str | None:
        """Return the newest lines as a JSON list, without secrets; None when there are none."""
        if not self._lines:
            return None
        return orjson.dumps(list(self._lines)).decode()


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    text = value if isinstance(value, str) else repr(value)
    plain = text[:_LONGEST].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return redact(plain)


def note(level: str, event: str, fields: Event) -> None:
    """Note a line in the log of the attempt that runs here, if one does."""
    if (log := _current.get()) is not None:
        log.note(level, event, fields)


# -- processors of structlog -------------------------------------------------------------------


def attributed(_logger: Any, _method: str, event: Event) -> Event:
    """Say whose line it is."""
    if (log := _current.get()) is not None:
        for key, value in log.where.items():
            event.setdefault(key, value)
    return event


def noted(_logger: Any, method: str, event: Event) -> Event:
    """Note the line in the log of its attempt."""
    note(method, str(event.get("event", "")), event)
    return event


def redacted(_logger: Any, _method: str, event: Event) -> Event:
    """Take secrets out of the line."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


class FromLibraries(logging.Handler):
    """What flows and libraries tell the standard library's ``logging``.

    Warnings and errors become lines of ours. The rest is noted for the attempt it belongs to and
    not printed: an HTTP library tells of each request.
    """

    def __init__(self, tell: Any) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        try:
            message = record.getMessage()
            if record.levelno >= logging.WARNING:
                self._tell(record.levelno, message, logger=record.name, exc_info=record.exc_info)
            else:
                note(record.levelname.lower(), message, {"logger": record.name})
        except Exception:  # noqa: BLE001 - logging's own way: a line is never worth a failure
            self.handleError(record)
