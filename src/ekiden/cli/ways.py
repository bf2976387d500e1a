"""Who goes on with a session, and what a person can do about what it waits for."""

from __future__ import annotations

from typing import Any

from ekiden.cli.words import clean
from ekiden.core.budget import Limit, limit_of

# What a person can do about what a session waits for.
_WAYS_ON = {
    "review": (
        "sessions approve {id}",
        "sessions edit {id}",
        'sessions reject {id} --note "what should be different"',
    ),
    "items": ("sessions accept {id}", "sessions retry {id}"),
}
# What raises the limit that has stopped it and keeps the other, but for dollars nobody can count.
_RAISES = {
    Limit.COST: "--max-cost USD",
    Limit.TOKENS: "--max-tokens TOKENS",
    Limit.PRICE: "--none --max-tokens TOKENS",
}


def ways_on(progress: dict[str, Any]) -> tuple[str, ...]:
    """Return what a person can do about what a session waits for: commands for ``{id}``."""
    kind = (progress["waitingFor"] or {}).get("kind", "")
    if kind != "budget":
        return _WAYS_ON.get(kind, ())
    stop = progress["stop"] or {}
    phase = f" --phase {stop['ofPhase']}" if stop.get("ofPhase") else ""
    return (f"sessions budget {{id}}{phase} {_RAISES[limit_of(stop)]}", "sessions cancel {id}")


def going_on(progress: dict[str, Any]) -> str:
    """Say who goes on with a session that is RUNNING, and how to go on here."""
    here = f"ekiden resume {progress['sessionId']}"
    waiting = progress["waitingFor"] or {"kind": "", "message": ""}
    match waiting["kind"]:
        case "process-async":
            return f"{clean(waiting['message'])} To start it here: {here}"
        case "worker" | "model":  # there is none, or none that has the model
            return f"{clean(waiting['message'])} To go on here: {here}"
        case _:
            return f"A worker goes on with it; or here: {here}"
