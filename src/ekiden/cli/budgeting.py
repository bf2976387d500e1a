"""What ``ekiden sessions budget`` does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal

import typer

from ekiden.cli import exits
from ekiden.cli.compose import actor
from ekiden.cli.deciding import decide
from ekiden.cli.desk import with_sessions
from ekiden.cli.words import table, to_json
from ekiden.core.budget import Spent
from ekiden.core.model import Budget, Review, Verb
from ekiden.core.records import Session
from ekiden.store.sessions import Sessions


def put(
    session_id: str,
    *,
    phase: int,
    max_cost: float | None,
    max_tokens: int | None,
    none: bool,
    machine: bool,
) -> None:
    """Set limits beside those there are, or with ``none`` instead of them."""
    if max_cost is not None and not math.isfinite(max_cost):
        exits.usage(f"--max-cost {max_cost}: must be an amount of US dollars")
    cost = None if max_cost is None else Decimal(str(max_cost))
    review = Review(
        verb=Verb.BUDGET, actor=actor(), phase=phase, keep=not none,
        budget=Budget(max_cost_usd=cost, max_tokens=max_tokens),
    )  # fmt: skip
    whose = f"Phase {phase}" if phase else "The session"
    gone = cost is None and max_tokens is None
    text = f"{whose} has no budget any more." if gone else "Budget set."
    decide(session_id, review, text, machine=machine)


def show(session_id: str, *, machine: bool) -> None:
    """Print the budgets of a session and of its phases, and what is gone of them."""

    async def look(sessions: Sessions) -> tuple[Session, list[Spent]]:
        session = await sessions.get(session_id)
        return session, await sessions.budgets.of(session.id)

    session, budgets = with_sessions(look)
    if machine:
        from ekiden.api.shown_sessions import SessionShown

        shown = SessionShown.of(session, [], budgets)
        typer.echo(to_json(shown.model_dump(include={"session_id", "budget", "budgets"})))
    elif budgets:
        rows = [row for budget in budgets for row in _rows(budget)]
        typer.echo("\n".join(table(["OF", "LIMIT", "USED"], rows)))
    else:
        typer.echo(f"It has no budget. Set one: ekiden sessions budget {session.id} --max-cost USD")


def _rows(budget: Spent) -> Iterator[list[str]]:
    """Yield a row for each limit."""
    if budget.max_cost_usd is not None:
        used = f"{budget.used_usd:.6f} USD"
        if budget.unpriced:
            used += f", and {budget.unpriced} calls whose price is not known"
        yield [budget.of, f"{budget.max_cost_usd:f} USD", used]
    if budget.max_tokens is not None:
        yield [budget.of, f"{budget.max_tokens:,} tokens", f"{budget.used_tokens:,} tokens"]
