from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from ekiden.core.budget import Limit, Spent, exceeded, limit_of

BUDGET = Spent(
    phase=0, max_cost_usd=Decimal("0.10"), max_tokens=100, cost_usd=Decimal("0.04"), tokens=40,
    unpriced=0, reserved_cost_usd=Decimal("0.05"), reserved_tokens=50,
)  # fmt: skip
CENT = Decimal("0.01")


def test_what_calls_under_way_may_take_counts_and_a_call_that_just_fits_is_made():
    assert (BUDGET.used_usd, BUDGET.used_tokens) == (Decimal("0.09"), 90)
    assert exceeded([BUDGET], model="p:m", cost_usd=CENT, tokens=10) is None


@pytest.mark.parametrize(
    ("cost", "tokens", "limit"),
    [(2 * CENT, 10, Limit.COST), (CENT, 11, Limit.TOKENS), (None, 10, Limit.PRICE)],
)
@pytest.mark.parametrize("phase", [0, 2])
def test_a_stop_says_which_limit_of_which_budget_forbids_the_call(
    phase: int, cost: Decimal | None, tokens: int, limit: Limit
):
    stop = exceeded([replace(BUDGET, phase=phase)], model="p:m", cost_usd=cost, tokens=tokens)
    assert stop is not None
    assert (stop["ofPhase"], limit_of(stop)) == (phase, limit)


def test_a_call_of_an_unknown_price_before_this_one_forbids_it_as_well():
    stop = exceeded([replace(BUDGET, unpriced=1)], model="p:m", cost_usd=CENT, tokens=1)
    assert stop is not None
    assert limit_of(stop) is Limit.PRICE


def test_a_stop_that_does_not_say_its_limit_is_read_by_what_the_budget_had():
    assert limit_of({"maxCostUsd": 1.0, "maxTokens": 5}) is Limit.COST
    assert limit_of({"maxCostUsd": None, "maxTokens": 5}) is Limit.TOKENS
