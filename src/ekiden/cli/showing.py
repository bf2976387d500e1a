"""The texts around a session: how it begins, how it ended, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ekiden.cli.compose import Parts
from ekiden.cli.late import LateSearch
from ekiden.cli.view import View
from ekiden.cli.ways import going_on, ways_on
from ekiden.cli.words import clean, one_line, readable, seconds
from ekiden.core.records import DraftLine
from ekiden.search.documents import origin_of

_SMALL_MODEL = (
    "The embedded model has 135 million parameters: it shows that the relay runs, not what it can "
    "write. For content to publish set OPENAI_API_KEY, or EKIDEN_MODEL and OPENAI_BASE_URL."
)


async def beginning(view: View, title: str, session_id: str, parts: Parts) -> None:
    """Say what runs, on which model, with which sources."""
    view.line(f"Session  {session_id}  ({title})", "bold")
    view.line(f"Model    {parts.model}")
    view.line(f"Sources  {await _sources(parts)}")
    view.line("")


async def _sources(parts: Parts) -> str:
    if not isinstance(parts.search, LateSearch):
        return parts.search.name
    counts = await parts.documents.counts()
    told = ", ".join(f"{origin_of(source)} ({count:,})" for source, count in sorted(counts.items()))
    return told or "none yet: the demo corpus is fetched when a step searches"


def ending(
    view: View,
    progress: dict[str, Any],
    drafts: Sequence[DraftLine],
    *,
    interrupted: bool,
    worked: bool,
) -> None:
    """Say how it ended, and what a person can do now.

    Args:
        view: where.
        progress: where the session is.
        drafts: what it made.
        interrupted: whether somebody left it.
        worked: whether it ran here; else it was only followed.
    """
    session_id = progress["sessionId"]
    view.line("")
    if interrupted and progress["status"] == "RUNNING":
        left = f"Stopped. Nothing is lost; go on with: ekiden resume {session_id}"
        view.line(left if worked else f"No longer watched. {going_on(progress)}", "yellow")
        return
    match progress["status"]:
        case "COMPLETED":
            show_drafts(view, drafts)
            _completed(view, progress)
        case "FAILED":
            _failed(view, progress)
        case "CANCELLED":
            view.line("Cancelled. What it had until then is kept.", "yellow")
        case status:
            _waiting(view, status, progress)


def show_drafts(view: View, drafts: Sequence[DraftLine]) -> None:
    """Print the drafts, each as it would be pasted, with its sources."""
    for draft in drafts:
        view.line(f"── Draft {draft.number}: {one_line(draft.title)}", "bold green")
        text = draft.body.get("text")
        lines = clean(text).splitlines() if isinstance(text, str) else readable(draft.body)
        for line in lines:
            view.line(f"  {line}")
        for source in draft.sources:
            licence = f" ({source['licence']})" if source.get("licence") else ""
            name = one_line(str(source.get("title", "")), 80)
            view.line(f"  source: {name}{licence} {one_line(str(source.get('url', '')))}", "dim")
        if "text" in draft.body and not draft.sources:
            view.line("  no source: nothing that was found fits it", "dim")
        view.line("")


def _completed(view: View, progress: dict[str, Any]) -> None:
    session_id = progress["sessionId"]
    usage = progress["usage"]
    done = f"Completed after {seconds(view.elapsed)} here: {len(progress['phases'])} phases"
    if usage["calls"]:
        tokens = (usage["inputTokens"] or 0) + (usage["outputTokens"] or 0)
        done += f", {usage['calls']} calls, {tokens:,} tokens"
    if usage["models"]:
        done += f", model {', '.join(one_line(m, 80) for m in usage['models'])}"
    view.line(f"{done}.", "bold")
    if any(model.startswith("embedded:") for model in usage["models"]):
        view.line(_SMALL_MODEL, "yellow")
    view.line("To see the rest:")
    view.line(f"  ekiden sessions show {session_id}")
    view.line(f"  ekiden sessions export {session_id} --format md")


def _failed(view: View, progress: dict[str, Any]) -> None:
    error = progress["error"] or {}
    where = f"phase {error.get('phase')} {error.get('step')}, attempt {error.get('attempt')}"
    view.line(f"Failed at {where}: {one_line(str(error.get('message')), 1000)}", "bold red")
    view.line("What was completed is kept, and there are no drafts. When the cause is gone:")
    view.line(f"  ekiden resume {progress['sessionId']}")


def _waiting(view: View, status: str, progress: dict[str, Any]) -> None:
    session_id = progress["sessionId"]
    waiting = progress["waitingFor"] or {}
    ways = ways_on(progress)
    if status == "AWAITING_REVIEW":
        phase = progress["phases"][progress["currentPhase"] - 1]
        view.line(
            f"Stopped at gate {phase['phase']} of {len(progress['phases']) - 1}: {phase['title']}.",
            "bold",
        )
        view.line("Look at the output, decide, and go on:")
        ways = ("sessions show {id}", *ways)
    elif status == "PAUSED" and ways:
        view.line(waiting["message"], "bold")
    elif status == "PAUSED":
        view.line("Paused. To go on:", "bold")
    else:
        where = f"phase {progress['currentPhase']} {progress['currentStep']}"
        view.line(f"Stopped before {where} (AUTO_PROGRESS_STEPS=false). To start it:", "bold")
    for way in (*ways, "resume {id}"):
        view.line(f"  ekiden {way.format(id=session_id)}")
