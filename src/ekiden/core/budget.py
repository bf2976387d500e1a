"""Whether a call may be made under the budgets it falls under. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One budget, with what is gone of it."""

    phase: int  # 0 is the session as a whole
    max_cost_usd: Decimal | None
    max_tokens: int | None
    cost_usd: Decimal
    tokens: int
    unpriced: int  # calls of a model whose price is not known
    reserved_cost_usd: Decimal  # that calls under way may still cost
    reserved_tokens: int

    @property
    def used_cost_usd(self) -> Decimal:
        """What is gone of the money, or may be."""
        return self.cost_usd + self.reserved_cost_usd

    @property
    def used_tokens(self) -> int:
        """What is gone of the tokens, or may be."""
        return self.tokens + self.reserved_tokens


def exceeded(
    budgets: Sequence[Spent], *, model: str, cost_usd: Decimal | None, tokens: int
) -> dict[str, Any] | None:
    """Say which budget one more call would exceed, as it is stored and shown; None when it fits.

    Args:
        budgets: those the call falls under.
        model: who would be asked.
        cost_usd: what the call may cost at most; None when its price is not known.
        tokens: what it may take at most.
    """
    for budget in budgets:
        of = "the session" if budget.phase == 0 else f"phase {budget.phase}"
        if budget.max_cost_usd is not None:
            if cost_usd is None or budget.unpriced:
                return _stop(
                    budget,
                    f"The budget of {of} is {budget.max_cost_usd:f} USD, and the price of {model} "
                    "is not known: nothing can be kept to it. Set a budget of tokens instead.",
                )
            used = budget.used_cost_usd
            if used + cost_usd > budget.max_cost_usd:
                return _stop(
                    budget,
                    f"The next call may cost {cost_usd:.6f} USD; {used:.6f} of the budget of {of}, "
                    f"{budget.max_cost_usd:f} USD, are used. Raise it, or end the session.",
                )
        if budget.max_tokens is not None:
            taken = budget.used_tokens
            if taken + tokens > budget.max_tokens:
                return _stop(
                    budget,
                    f"The next call may take {tokens:,} tokens; {taken:,} of the budget of {of}, "
                    f"{budget.max_tokens:,}, are used. Raise it, or end the session.",
                )
    return None


def _stop(budget: Spent, message: str) -> dict[str, Any]:
    return {
        "kind": "budget",
        "ofPhase": budget.phase,
        "message": message,
        "maxCostUsd": None if budget.max_cost_usd is None else float(budget.max_cost_usd),
        "maxTokens": budget.max_tokens,
        "costUsd": float(budget.cost_usd),
        "tokens": budget.tokens,
    }
