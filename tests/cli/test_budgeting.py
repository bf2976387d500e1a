"""Budgets from the command line: shown, set limit by limit, and raised where they stopped it."""

from __future__ import annotations

import asyncio
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest

from ekiden.cli.gate import _budget
from ekiden.cli.ways import ways_on
from ekiden.core.budget import Limit
from ekiden.core.model import Budget, Options
from ekiden.store.connection import open_pool
from ekiden.store.sessions import Sessions
from tests.cli.answering import FLOW
from tests.cli.program import Program
from tests.cli.test_deciding import Terminal, at_gate

FIVE = Budget(max_cost_usd=Decimal(5))
FEW = Budget(max_cost_usd=Decimal(5), max_tokens=10)


async def limits(program: Program, session: str) -> dict[int, tuple[Any, Any]]:
    """Return dollars and tokens by phase, as they are shown."""
    shown = await program.run("sessions", "budget", session, "--json")
    assert shown.code == 0, shown.err
    assert shown.json["sessionId"] == session
    found = {0: shown.json["budget"]} if shown.json["budget"] else {}
    found |= {int(phase): budget for phase, budget in shown.json["budgets"].items()}
    return {phase: (b["maxCostUsd"], b["maxTokens"]) for phase, b in found.items()}


async def begin(asking: Program, budgets: dict[int, Budget]) -> str:
    """Make a session of the flow that asks a model, with these budgets."""
    known = await asking.run("run", "asking", *FLOW, "--theme", "fruit", "--json")
    assert known.code == 0, known.err
    dsn = asking.environment["DATABASE_URL"]
    async with open_pool(dsn) as pool:
        session, _ = await Sessions(pool, dsn).create(
            "asking", title="x", input={"theme": "fruit"},
            options=Options(max_retries=0, budgets=budgets), start=True,
        )  # fmt: skip
    return session


async def test_a_limit_that_is_not_given_stays_and_no_option_only_shows(program: Program):
    session = await at_gate(program)

    async def put(*options: str) -> str:
        ended = await program.run("sessions", "budget", session, *options)
        assert ended.code == 0, ended.err
        return ended.out

    assert "It has no budget." in await put()
    await put("--max-tokens", "20000")
    await put("--max-cost", "0.5")
    await put("--phase", "2", "--max-tokens", "7")
    assert await limits(program, session) == {0: (0.5, 20000), 2: (None, 7)}
    shown = [line.split("  ") for line in (await put()).splitlines()]
    assert [[cell.strip() for cell in row if cell] for row in shown] == [
        ["OF", "LIMIT", "USED"],
        ["the session", "0.5 USD", "0.000000 USD"],
        ["the session", "20,000 tokens", "0 tokens"],
        ["phase 2", "7 tokens", "0 tokens"],
    ]
    await put("--none", "--max-tokens", "9")
    assert await limits(program, session) == {0: (None, 9), 2: (None, 7)}
    assert "Phase 2 has no budget any more." in await put("--phase", "2", "--none")
    assert await limits(program, session) == {0: (None, 9)}
    assert (await program.run("sessions", "budget", session, "--max-cost", "nan")).code == 2
    assert (await program.run("sessions", "budget", "nothing")).code == 1


async def test_what_was_used_is_shown_and_looking_lets_nothing_go_on(asking: Program):
    session = await begin(asking, {1: FIVE})
    stopped = await asking.run("resume", session, *FLOW, "--json")
    assert (stopped.code, stopped.json["status"]) == (3, "PAUSED"), stopped.err
    hint = f"ekiden sessions budget {session} --phase 1 --none --max-tokens TOKENS"
    assert hint in stopped.err
    assert hint in (await asking.run("sessions", "show", session)).out

    assert await limits(asking, session) == {1: (5, None)}
    shown = await asking.run("sessions", "show", session, "--json")
    assert shown.json["status"] == "PAUSED"

    words = hint.removeprefix("ekiden ").replace("TOKENS", "1000000").split()
    assert (await asking.run(*words)).code == 0
    ended = await asking.run("resume", session, *FLOW, "--json")
    assert (ended.code, ended.json["status"]) == (0, "COMPLETED"), ended.err


def told(program: Program, session: str, question: str, answer: str) -> int:
    terminal = Terminal(program, "resume", session, *FLOW)
    terminal.says(question)
    terminal.types("many")
    terminal.says("'many' is no such number.")
    terminal.says(question)
    terminal.types(answer)
    return terminal.end()


async def test_at_the_terminal_the_limit_that_ran_out_is_asked_for_and_the_other_kept(
    asking: Program,
):
    session = await begin(asking, {0: FEW})
    # A model at home costs nothing, and here it does not answer: what matters is the budget.
    at_home = asking.but(EKIDEN_MODEL="ollama:none")
    question = "Raise it to how many tokens in all?"
    assert await asyncio.to_thread(told, at_home, session, question, "1000000") == 1
    assert await limits(asking, session) == {0: (5, 1000000)}


async def test_at_the_terminal_tokens_take_the_place_of_dollars_nobody_can_count(asking: Program):
    session = await begin(asking, {1: FIVE})
    question = "How many tokens instead, in all?"
    assert await asyncio.to_thread(told, asking, session, question, "1000000") == 0
    assert await limits(asking, session) == {1: (None, 1000000)}


@pytest.mark.parametrize("said", ["-1", "inf", "nan", "", "1e"])
def test_what_is_no_amount_is_no_limit(said: str):
    for limit in Limit:
        with pytest.raises((ValueError, InvalidOperation)):
            _budget(said, limit)


@pytest.mark.parametrize(
    ("limit", "phase", "command"),
    [
        (Limit.COST, 0, "sessions budget {id} --max-cost USD"),
        (Limit.COST, 2, "sessions budget {id} --phase 2 --max-cost USD"),
        (Limit.TOKENS, 0, "sessions budget {id} --max-tokens TOKENS"),
        (Limit.TOKENS, 2, "sessions budget {id} --phase 2 --max-tokens TOKENS"),
        (Limit.PRICE, 0, "sessions budget {id} --none --max-tokens TOKENS"),
    ],
)
def test_the_hint_of_a_stop_raises_the_limit_that_has_stopped_it(
    limit: Limit, phase: int, command: str
):
    stop = {"kind": "budget", "limit": limit, "ofPhase": phase}
    shown = {"waitingFor": {"kind": "budget"}, "stop": stop}
    assert ways_on(shown) == (command, "sessions cancel {id}")
