"""What a person sees while a session runs: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import datetime
from time import monotonic
from typing import Any

import structlog
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ekiden import attempt_log
from ekiden.cli.follow import Seen
from ekiden.cli.words import clean, one_line, seconds
from ekiden.core.model import Event, Outcome
from ekiden.telemetry import hear_libraries

# Told by the session's own events, which a person sees in any case and wherever the step ran.
_SEEN_AS_EVENTS = frozenset(
    {"attempt_retried", "attempt_failed", "attempt_refused", "tasks_rescued"}
)
_MARKS = {
    "PENDING": ("·", "dim"),
    "HELD": ("‖", "yellow"),
    "COMPLETED": ("✔", "green"),
    "FAILED": ("✖", "red"),
    "CANCELLED": ("✖", "yellow"),
}


class View:
    """Plain lines, each with the time since the start. Also what both kinds of view share."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._start = monotonic()
        self._told: dict[tuple[int, str], tuple[str, int]] = {}
        self._note = ""

    @property
    def elapsed(self) -> float:
        """Seconds since this view was made."""
        return monotonic() - self._start

    def line(self, text: str, style: str = "") -> None:
        """Print a line that stays."""
        self.console.print(Text(clean(text), style=style), soft_wrap=True, highlight=False)

    def note(self, text: str) -> None:
        """Say what goes on now beside the steps, such as a download. Any thread may call it."""
        if text and text.partition(" (")[0] != self._note.partition(" (")[0]:
            self._stamped(text)
        self._note = text

    def download(self, what: str, done: int, total: int | None) -> None:
        """Say how far a download is; a ``Progress`` of ``providers.models``."""
        finished = total is not None and done >= total
        size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
        self.note("" if finished else f"{what} ({size})")

    def show(self, seen: Seen) -> None:
        """Show the session as it is now, and what has happened."""
        for event in seen.events:
            if (told := _tell(event)) is not None:
                self._stamped(*told)
        self._steps(seen.progress)

    def known(self, progress: dict[str, Any]) -> None:
        """Take steps that were completed before as told."""
        for phase in progress["phases"]:
            for step in phase["steps"]:
                self._told[phase["phase"], step["step"]] = (step["status"], step["completed"])

    def resume(self) -> None:
        """Show the picture (again)."""

    def pause(self) -> None:
        """Take the picture away, so that something else can be printed or asked."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the picture for the length of the ``with``."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def _stamped(self, text: str, style: str = "") -> None:
        self.line(f"[{self.elapsed:6.1f} s] {text}", style)

    def _steps(self, progress: dict[str, Any]) -> None:
        """Print a line for each step that got further."""
        phases = progress["phases"]
        for phase in phases:
            for step in phase["steps"]:
                key = (phase["phase"], step["step"])
                now = (step["status"], step["completed"])
                if step["status"] not in {"RUNNING", "COMPLETED"} or self._told.get(key) == now:
                    continue
                self._told[key] = now
                done = "done" if step["status"] == "COMPLETED" else "runs"
                tasks = f" {step['completed']}/{step['tasks']}" if step["tasks"] > 1 else ""
                self._stamped(
                    f"phase {phase['phase']}/{len(phases)} {phase['title']}: "
                    f"{step['step']}{tasks} {done}"
                )


class LiveView(View):
    """A picture of the session that is redrawn in place, below the lines that stay."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress: dict[str, Any] | None = None
        self._live: Live | None = None
        self._spinner = Spinner("dots")

    def note(self, text: str) -> None:
        """Show it under the picture."""
        self._note = text

    def resume(self) -> None:
        """Show the picture (again)."""
        if self._live is None:
            self._live = Live(
                get_renderable=self._picture,
                console=self.console,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def pause(self) -> None:
        """Take the picture away."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def last(self) -> None:
        """Print the picture for good."""
        if self._progress is not None:
            self.console.print(self._picture())

    def _stamped(self, text: str, style: str = "") -> None:
        self.line(text, style)

    def _steps(self, progress: dict[str, Any]) -> None:
        self._progress = progress

    def _picture(self) -> RenderableType:
        progress = self._progress
        if progress is None:
            return Text(f"{self._note or 'starting'} …", style="dim")
        rows = Table.grid(padding=(0, 2))
        for phase in progress["phases"]:
            rows.add_row(*self._row(phase))
        usage = progress["usage"]
        facts = [seconds(self.elapsed)]
        if usage["calls"]:
            tokens = (usage["inputTokens"] or 0) + (usage["outputTokens"] or 0)
            facts.append(f"{usage['calls']} calls, {tokens:,} tokens")
        facts += [one_line(model, 60) for model in usage["models"]]
        if (usd := progress["cost"]["usd"]) is not None and usd > 0:
            facts.append(f"${usd:.4f}")
        waiting = progress["waitingFor"]
        if waiting and not progress["requiresManualTrigger"]:
            facts.append(one_line(waiting["message"], 300))
        parts: list[RenderableType] = [rows, Text("  " + " · ".join(facts), style="dim")]
        if self._note:
            parts.append(Text(f"  {one_line(self._note)}", style="cyan"))
        return Group(*parts)

    def _row(self, phase: dict[str, Any]) -> list[RenderableType]:
        known = _MARKS.get(phase["status"])
        mark: RenderableType = Text(*known) if known else self._spinner
        style = "dim" if phase["status"] == "PENDING" else ""
        return [
            mark,
            Text(f"{phase['phase']} {one_line(phase['title'], 40)}", style=style),
            *(_step(step) for step in phase["steps"]),
        ]


def _step(step: dict[str, Any]) -> Text:
    count = f" {step['completed']}/{step['tasks']}" if step["tasks"] > 1 else ""
    name = step["step"].lower() + count
    match step["status"]:
        case "COMPLETED":
            return Text(f"{name} ✔", style="green")
        case "FAILED":
            return Text(f"{name} ✖", style="red")
        case "RUNNING":
            return Text(f"{name} …", style="bold")
        case "PENDING":
            return Text(name, style="dim")
        case status:
            return Text(f"{name} {status.lower()}", style="yellow")


def _tell(event: Event) -> tuple[str, str] | None:
    """Return the line and style for what happened; None for what the picture shows anyway."""
    where = f"phase {event.phase} {event.step}"
    attempt = event.data.get("attempt")
    why = one_line(str(event.data.get("error") or ""), 500)
    by = event.data.get("actor")
    match event.type:
        case "task_retried" if event.data.get("outcome") == Outcome.RELEASED:
            return f"… {where} waits: {why} {_next(event, 'It looks again')}", ""
        case "task_retried":
            due = _next(event, "Next try")
            return f"! {where}, attempt {attempt} failed: {why} {due}", "yellow"
        case "task_failed":
            why = why or "its worker died at every attempt"
            return f"✖ {where} failed for good at attempt {attempt}: {why}", "red"
        case "task_rescued":
            return f"! {where}: the worker of attempt {attempt} died; it is taken over", "yellow"
        case "task_released":
            return f"! {where}: its worker stopped and gave the task back", "yellow"
        case "gate_approved":
            return f"✔ gate {event.phase} passed by {by}", "green"
        case "session_paused" | "session_resumed" | "session_cancelled":
            return f"{event.type.replace('_', ' ')} by {by}", "yellow"
    return None


def _next(event: Event, what: str) -> str:
    try:
        due = datetime.fromisoformat(str(event.data["retryAt"]))
        wait = (due - event.created_at).total_seconds()
    except (KeyError, ValueError, TypeError):
        return "It will be tried again."
    return f"{what} in {seconds(max(0.0, wait))}."


def make_view(console: Console) -> View:
    """Return the view that fits where the output goes."""
    return LiveView(console) if console.is_terminal else View(console)


class _LinePrinter:
    """A logger that prints lines through a view, so that they do not tear the picture."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __getattr__(self, _level: str) -> Any:
        return lambda text: self._view.line(text, "yellow")


def log_through(view: View) -> None:
    """Send warnings through the view, and leave out what it tells by itself."""

    def select(_logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
        name = str(event.pop("event"))
        if name in _SEEN_AS_EVENTS:
            raise structlog.DropEvent
        fields = " ".join(f"{key}={one_line(str(value), 300)}" for key, value in event.items())
        return f"! {level} {name} {fields}"

    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            attempt_log.redacted,
            attempt_log.noted,
            select,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=lambda *_: _LinePrinter(view),
        cache_logger_on_first_use=False,
    )
    hear_libraries()
