"""What Ekiden tells about itself. The event names are the contract; the texts live only here.

Each event is one structured log line. While an attempt runs, every line says session, phase, step,
task and attempt, a flow's own lines too. Names, and the other fields:

    flow_left_out       flow, error                        an installed flow cannot be loaded
    worker_started      worker, model, flows, capacity     a worker said hello
    worker_draining     worker, busy                       it finishes what it has
    worker_stopped      worker                             it said goodbye
    worker_lost         worker                             it was declared lost and begins anew
    tasks_rescued       workers, tasks                     tasks of dead workers are queued again
    attempt_completed   (debug)                            a result was stored
    attempt_refused                                        a late result met its fence
    commit_blocked      session, task, attempt, error      somebody holds its session; later again
    attempt_retried     error, retry_in_s                  it failed and will be tried again
    attempt_failed      error, reason                      it failed for good
    budget_reached      reason                             a call would exceed a budget; paused
    errand_failed       errand, kind, error                a reminder, deadline or webhook: again
    feed_fetched        source, written                    a feed was brought up to date
    feed_failed         source, error, next_try_s          it could not be; what is there stays
    webhook_failed      host, error, given_up              somebody could not be told
    alert_raised        alert, subject, value, threshold   something is worth a person's attention
    alert_resolved      alert, subject                     it is over
    alerts_unread       error                              a look failed; the next one is as good
    answer_repaired     complaint, left  (debug)           a useless answer got another turn
    fallback_asked      model, why                         a step's own model cannot be asked now
    answer_fetched      task, asked_in                     the provider had kept it; not paid twice
    answer_continued    task, cut_in                       only the rest of a cut one is asked for
    answer_withdrawn    model, task                        not wanted: its provider may stop it
    answer_unstopped    model, task, error                 it may go on making it; told again later
    partials_unsaved    error                              what running calls say is not saved
    metrics_uncounted   error                              a roll-up failed; the next does it
    database_lost       error, next_try_s                  the database does not answer
    database_back       after_s                            it does again
    worker_fenced       worker, busy                       it cannot renew its lease: steps stopped
    doorbell_lost       error, next_try_s                  the listening connection is gone
    doorbell_deaf       error, next_try_s                  LISTEN is not heard: a pooler in between
    database_unreachable, database_busy, value_refused, request_failed, request_crashed,
    events_unread                                          the API could not answer as asked
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from ekiden import attempt_log

_LEVELS = {
    "flow_left_out": logging.ERROR,
    "answer_repaired": logging.DEBUG,
    "attempt_completed": logging.DEBUG,
    "attempt_refused": logging.WARNING,
    "commit_blocked": logging.WARNING,
    "attempt_retried": logging.WARNING,
    "attempt_failed": logging.ERROR,
    "database_lost": logging.WARNING,
    "partials_unsaved": logging.WARNING,
    "answer_unstopped": logging.WARNING,
    "errand_failed": logging.ERROR,
    "webhook_failed": logging.WARNING,
    "feed_fetched": logging.DEBUG,
    "feed_failed": logging.WARNING,
    "metrics_uncounted": logging.WARNING,
    "alert_raised": logging.WARNING,
    "alerts_unread": logging.WARNING,
    "worker_lost": logging.ERROR,
    "worker_fenced": logging.ERROR,
}

_NOTED = frozenset({"answer_repaired"})  # told to the attempt's log whatever is printed

_log = structlog.get_logger("ekiden")
_threshold = logging.INFO


def listens(event: str) -> bool:
    """Return whether an event is printed; what it would say need not be put together otherwise."""
    return _LEVELS.get(event, logging.INFO) >= _threshold


def emit(event: str, **fields: Any) -> None:
    """Tell an event."""
    level = _LEVELS.get(event, logging.INFO)
    if level >= _threshold:
        _log.log(level, event, **fields)
    elif event in _NOTED:
        attempt_log.note(logging.getLevelName(level).lower(), event, fields)


def set_up_logging(*, level: int = logging.INFO, json: bool | None = None) -> None:
    """Send log lines to stderr: for people in a terminal, JSON otherwise (or as asked)."""
    global _threshold  # noqa: PLW0603 - set once, by the command that starts
    _threshold = level
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            attempt_log.attributed,
            structlog.processors.TimeStamper(fmt="iso", utc=as_json),
            structlog.processors.format_exc_info,
            attempt_log.redacted,
            attempt_log.noted,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    hear_libraries()


def hear_libraries() -> None:
    """Take what flows and libraries tell the standard library's ``logging``."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, attempt_log.FromLibraries)]:
        root.removeHandler(handler)
    root.addHandler(attempt_log.FromLibraries(_log.log))
    root.setLevel(min(root.level or logging.INFO, logging.INFO))
