"""What ``ekiden top`` does: one look after the other, each a picture of its own."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ekiden.api.counting import Counting
from ekiden.cli.compose import Database, open_store, run_async
from ekiden.cli.words import ago, camel, one_line, to_json
from ekiden.config import load_settings
from ekiden.core import metrics
from ekiden.core.alerts import Alert
from ekiden.core.bottlenecks import Bottleneck, rank
from ekiden.core.histogram import Histogram
from ekiden.core.metrics import Measure, Window
from ekiden.core.model import SessionState, WorkerState
from ekiden.core.records import SessionLine, WorkerLine
from ekiden.core.sentences import duration, of_alert, of_bottleneck, percent, told_of
from ekiden.errors import DatabaseUnreachable
from ekiden.store.metrics import Past, Present
from ekiden.store.sessions import Sessions

WINDOW = Window.H1
_FRESH = timedelta(seconds=4)  # a person looks at it; what is younger than 3 s is not counted
_SESSIONS = 8  # shown
_ALERTS = 8
_HERE = {WorkerState.ALIVE, WorkerState.DRAINING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at one moment."""

    address: str
    flow: str | None
    past: Past
    present: Present
    bottlenecks: list[Bottleneck]
    workers: list[WorkerLine]
    running: list[SessionLine]
    alerts: list[Alert]

    @property
    def cost_per_hour(self) -> float:
        """What the last hour's calls cost, in USD an hour, as far as prices are known."""
        hours = (self.past.until - self.past.since).total_seconds() / 3600
        return float(metrics.calls(self.past.facts).cost_usd) / hours


def top(flow: str | None, *, every: float, once: bool, machine: bool) -> None:
    """Show looks until Ctrl-C, or one."""
    settings = load_settings()
    console = Console()

    async def main(database: Database) -> None:
        async with open_store(database) as (_, sessions):
            counting = Counting(sessions.metrics, fresh=_FRESH)
            try:
                if machine:
                    typer.echo(to_json(as_json(await look(sessions, counting, flow))))
                elif once or not console.is_terminal:
                    console.print(picture(await look(sessions, counting, flow)))
                else:
                    await _watch(sessions, counting, flow, console, every)
            finally:
                await counting.close()

    with Database(settings) as database:
        run_async(main(database))


async def look(sessions: Sessions, counting: Counting, flow: str | None) -> Look:
    """Look once.

    Raises:
        DatabaseError: the database is not there, or refuses.
    """
    await counting.catch_up()
    past = await sessions.metrics.past(WINDOW, flow)
    return Look(
        address=sessions.address,
        flow=flow,
        past=past,
        present=await sessions.metrics.present(flow),
        bottlenecks=rank(past.facts, []),
        workers=await sessions.workers(),
        alerts=await sessions.alerts.list(only_open=True, limit=_ALERTS),
        running=await sessions.find(flow=flow, status=SessionState.RUNNING, limit=_SESSIONS),
    )


async def _watch(
    sessions: Sessions, counting: Counting, flow: str | None, console: Console, every: float
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            try:
                seen = await look(sessions, counting, flow)
                live.update(picture(seen), refresh=True)
            except DatabaseUnreachable as error:
                live.update(Text(one_line(error.message), style="red"), refresh=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await stop.wait()


def picture(seen: Look) -> RenderableType:
    """Return the picture of a look."""
    where = f"ekiden top   {seen.address}" + (f"   flow {seen.flow}" if seen.flow else "")
    return Group(
        Text(where, style="bold"),
        Text(f"{seen.past.until:%Y-%m-%d %H:%M:%S} UTC", style="dim"),
        Text(),
        _figures(seen),
        *_alerts(seen),
        Text(),
        _workers(seen),
        Text(),
        _sessions(seen),
        *_errors(seen),
        *_where_time_goes(seen),
    )


def _figures(seen: Look) -> RenderableType:
    facts, now = seen.past.facts, seen.present
    attempts, calls = metrics.attempts(facts), metrics.calls(facts)
    oldest = "" if now.oldest_s is None else f", the oldest for {duration(now.oldest_s)}"
    here = [w for w in seen.workers if w.state in _HERE]
    count = {w.state: w.n for w in now.workers}
    sessions = ", ".join(f"{n} {status}" for status, n in sorted(now.sessions.items())) or "none"
    wrong = attempts.error_rate
    rows = Table.grid(padding=(0, 2))
    rows.add_row("Queue", f"{now.due} due{oldest}; {now.later} later")
    rows.add_row(
        "Workers",
        f"{count.get(WorkerState.ALIVE, 0)} alive, {count.get(WorkerState.DRAINING, 0)} draining, "
        f"{count.get(WorkerState.LOST, 0)} lost; "
        f"{sum(w.busy for w in here)} of {sum(w.capacity for w in here)} slots busy",
    )
    rows.add_row("Sessions", sessions)
    rows.add_row(
        "Last hour",
        Text(
            f"{attempts.total:,} attempts, "
            + ("no errors to speak of" if not attempts.wrong else f"{percent(wrong or 0)} wrong"),
            style="red" if attempts.wrong else "",
        ),
    )
    rows.add_row(
        "",
        f"attempt {_spread(attempts.run)}; wait {_spread(metrics.times(facts, Measure.WAIT))}; "
        f"commit {_spread(metrics.times(facts, Measure.COMMIT))}",
    )
    rows.add_row(
        "Calls",
        f"{calls.time.n:,}, {calls.input_tokens + calls.output_tokens:,} tokens, "
        f"${seen.cost_per_hour:.4f} an hour"
        + (f" ({calls.unpriced} without a price)" if calls.unpriced else ""),
    )
    rows.add_row(
        "Database",
        f"{now.connections} of {now.max_connections} connections, "
        f"notify queue {percent(now.notify_queue_usage)}, {now.dead_tuples:,} dead rows",
    )
    return rows


def _spread(times: Histogram) -> str:
    if not times.n:
        return "–"
    middle, late = times.quantile(0.5) or 0.0, times.quantile(0.95) or 0.0
    return f"p50 {duration(middle)}, p95 {duration(late)}"


def _workers(seen: Look) -> RenderableType:
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("WORKER", "HOST", "PID", "STATE", "BUSY", "SEEN", "MODEL"):
        rows.add_column(name)
    for worker in seen.workers:
        if worker.state == WorkerState.STOPPED:
            continue
        rows.add_row(
            str(worker.id),
            one_line(worker.host, 24),
            str(worker.pid),
            Text(worker.state, style="" if worker.state in _HERE else "red"),
            f"{worker.busy}/{worker.capacity}",
            ago(worker.seen_at, seen.past.until),
            one_line(worker.model or "none", 40),
        )
    return rows if rows.row_count else Text("No worker is here: ekiden worker", style="yellow")


def _sessions(seen: Look) -> RenderableType:
    if not seen.running:
        return Text("No session runs.", style="dim")
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("SESSION", "FLOW", "AT", "SINCE", "TITLE"):
        rows.add_column(name)
    for session in seen.running:
        rows.add_row(
            session.id,
            one_line(session.flow, 20),
            f"{session.phase} {session.step}",
            ago(session.created_at, seen.past.until),
            one_line(session.title, 40),
        )
    return rows


def _alerts(seen: Look) -> list[RenderableType]:
    return [
        Text(f"! {of_alert(alert)['en']} ({ago(alert.raised_at, seen.past.until)})", style="red")
        for alert in seen.alerts
    ]


def _errors(seen: Look) -> list[RenderableType]:
    return [
        Text(
            f"! {line.count} × {one_line(line.kind, 60)} at {line.key.flow} phase {line.key.phase} "
            f"{line.key.step} ({percent(line.rate)} of its attempts)",
            style="red",
        )
        for line in metrics.errors(seen.past.facts)[:3]
    ]


def _where_time_goes(seen: Look) -> list[RenderableType]:
    return [
        Text(f"{b.step.key.flow}: {of_bottleneck(b, WINDOW)['en']}", style="cyan")
        for b in seen.bottlenecks[:2]
    ]


def as_json(seen: Look) -> dict[str, Any]:
    """Return a look as JSON values."""
    from ekiden.api.shown_metrics import Summary
    from ekiden.api.shown_sessions import SessionLineShown

    summary = Summary.of(seen.past, seen.present, WINDOW, seen.flow)
    return {
        **summary.model_dump(mode="json"),
        "costPerHour": round(seen.cost_per_hour, 6),
        "workers": camel(seen.workers),
        "running": [SessionLineShown.model_validate(s).model_dump() for s in seen.running],
        "alerts": [told_of(alert) for alert in seen.alerts],
        "bottlenecks": [of_bottleneck(b, WINDOW) for b in seen.bottlenecks],
    }
