"""What ``ekiden verify`` does."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import typer
from rich.console import Console

from ekiden.cli import exits
from ekiden.cli.compose import Database, run_async
from ekiden.cli.words import clean, table, to_json
from ekiden.config import load_settings
from ekiden.errors import AnswerInvalid
from ekiden.providers.protocol import storable
from ekiden.providers.reading import read_body
from ekiden.store.connection import address_of
from ekiden.store.verify import Report, verify


def report(session_id: str | None, *, timeout: int, machine: bool) -> int:
    """Print what was found; FAILED when anything is violated."""
    with Database(load_settings()) as database:
        dsn = database.dsn()
        found = _watched(dsn, session_id, timedelta(seconds=timeout))
    where = address_of(dsn)
    typer.echo(to_json(_as_json(found, where)) if machine else clean(_as_text(found, where)))
    return exits.FAILED if found.violations else exits.COMPLETED


def read_text(answer: bytes, content_type: str) -> str | None:
    """Return the text of an answer of the ledger; None where nobody can say."""
    if content_type.partition(";")[0].strip() == "text/plain":
        return storable(answer.decode("utf-8", "replace"))
    try:
        parts = read_body(answer, content_type)
    except AnswerInvalid:
        return None
    return storable("".join(parts.text)) if parts.declined is None else None


def _watched(dsn: str, session_id: str | None, timeout: timedelta) -> Report:
    """Verify, and say on a terminal how far it is."""
    console = Console(stderr=True)
    status = console.status("") if console.is_terminal else nullcontext()

    def tell(done: int, total: int, name: str) -> None:
        if status is not None and not isinstance(status, nullcontext):
            status.update(f"{done + 1} of {total}: {name}")

    with status:
        return run_async(
            verify(dsn, read=read_text, session_id=session_id, timeout=timeout, progress=tell)
        )


def _as_json(found: Report, where: str) -> dict[str, Any]:
    return {
        "database": where,
        "checkedAt": found.checked_at.isoformat(),
        "sessions": found.sessions,
        "tasks": found.tasks,
        "attempts": found.attempts,
        "calls": found.calls,
        "invariants": [
            {
                "name": finding.invariant.name,
                "description": finding.invariant.description,
                "of": finding.invariant.of,
                "examined": finding.examined,
                "violations": finding.violations,
                "ids": finding.ids,
            }
            for finding in found.findings
        ],
        "violations": found.violations,
    }


def _as_text(found: Report, where: str) -> str:
    rows = [
        [
            "✖" if finding.violations else "✔" if finding.examined else "·",
            finding.invariant.name,
            f"{finding.examined:,} {finding.invariant.of}",
            f"{finding.violations:,}",
            finding.invariant.description,
        ]
        for finding in found.findings
    ]
    lines = [
        f"{where}: {found.sessions:,} sessions, {found.tasks:,} tasks, "
        f"{found.attempts:,} attempts, {found.calls:,} calls",
        "",
        *table(["", "INVARIANT", "EXAMINED", "VIOLATED", "WHAT MUST BE SO"], rows),
        "",
    ]
    for finding in found.findings:
        if finding.violations:
            more = finding.violations - len(finding.ids)
            lines.append(f"✖ {finding.invariant.name}: {finding.violations:,}")
            lines += [f"    {id_}" for id_ in finding.ids]
            lines += [f"    and {more:,} more"] if more else []
    broken = sum(1 for finding in found.findings if finding.violations)
    lines.append(
        f"Violated: {broken} of {len(rows)} invariants."
        if broken
        else f"All {len(rows)} invariants hold."
    )
    return "\n".join(lines)
