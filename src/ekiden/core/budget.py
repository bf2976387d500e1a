"""Whether a call may be made under the budgets it falls under. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Limit(StrEnum):
    """Which limit of a budget forbids a call."""

    COST = "cost"  # it would cost more US dollars than are left
    TOKENS = "tokens"  # it would take more tokens than are left
    PRICE = "price"  # there is a limit of dollars, and nobody knows what the call costs


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
    def of(self) -> str:
        """Whose budget it is, for people."""
        return "the session" if self.phase == 0 else f"phase {self.phase}"

    @property
    def used_usd(self) -> Decimal:
        """What is gone, with what calls under way may still cost."""
        return self.cost_usd + self.reserved_cost_usd

    @property
    def used_tokens(self) -> int:
        """What is gone, with what calls under way may still take."""
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
        if budget.max_cost_usd is not None:
            if cost_usd is None or budget.unpriced:
                return _stop(
                    budget,
                    Limit.PRICE,
                    f"The budget of {budget.of} is {budget.max_cost_usd:f} USD, and the price of "
                    f"{model} is not known: nothing can be kept to it. "
                    "Set a budget of tokens instead.",
                )
            if budget.used_usd + cost_usd > budget.max_cost_usd:
                return _stop(
                    budget,
                    Limit.COST,
                    f"The next call may cost {cost_usd:.6f} USD; {budget.used_usd:.6f} of the "
                    f"budget of {budget.of}, {budget.max_cost_usd:f} USD, are used. "
                    "Raise it, or end the session.",
                )
        if budget.max_tokens is not None and budget.used_tokens + tokens > budget.max_tokens:
            return _stop(
                budget,
                Limit.TOKENS,
                f"The next call may take {tokens:,} tokens; {budget.used_tokens:,} of the budget "
                f"of {budget.of}, {budget.max_tokens:,}, are used. Raise it, or end the session.",
            )
    return None


def limit_of(stop: Mapping[str, Any]) -> Limit:
    """Return which limit a session has stopped at. A stop of an earlier version does not say it."""
    money = stop.get("maxCostUsd") is not None
    return Limit(stop.get("limit") or (Limit.COST if money else Limit.TOKENS))


def _stop(budget: Spent, limit: Limit, message: str) -> dict[str, Any]:
    return {
        "kind": "budget",
        "ofPhase": budget.phase,
        "limit": limit,
        "message": message,
        "maxCostUsd": None if budget.max_cost_usd is None else float(budget.max_cost_usd),
        "maxTokens": budget.max_tokens,
        "costUsd": float(budget.cost_usd),
        "tokens": budget.tokens,
    }
