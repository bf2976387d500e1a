"""A flow that asks no model, and waits where a test tells it to: ``--flow tests.cli.toy:toy``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ekiden import CannotHeal, Context, Draft, Flow, Phase
from ekiden.errors import NotNow


class ToyInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    numbers: list[int] = [1, 2, 3]
    mood: Literal["good", "unlucky", "broken", "waiting", "picky"] = "good"
    hold: str = ""  # phase 2 makes the file HOLD.reached and waits for the file HOLD


class Collect(Phase):
    """Collect numbers"""

    async def think(self, ctx: Context) -> list[int]:
        return list(ctx.input.numbers)

    def each(self, plan: list[int]) -> list[int]:
        return plan

    async def execute(self, ctx: Context, number: int) -> int:
        if ctx.input.mood == "unlucky" and ctx.attempt == 1:
            raise RuntimeError("bad luck \x1b[2J")
        if ctx.input.mood == "waiting" and ctx.attempt == 1:
            raise NotNow("the ferry is full.")
        if ctx.input.mood == "picky" and number % 2:
            raise CannotHeal("an odd number")
        return number * number

    async def integrate(self, ctx: Context, plan: list[int], found: list[int]) -> dict[str, int]:
        return {"total": sum(found)}


class Double(Phase):
    """Double the total"""

    async def think(self, ctx: Context) -> int:
        if ctx.input.mood == "broken":
            raise CannotHeal("the well is dry")
        return int(ctx.output(Collect)["total"])

    async def integrate(self, ctx: Context, plan: int) -> dict[str, int]:
        if ctx.input.hold:
            hold = Path(ctx.input.hold)
            hold.with_suffix(".reached").touch()
            while not hold.exists():  # noqa: ASYNC240 - a look, not a read
                await asyncio.sleep(0.02)
        return {"double": 2 * plan}


toy = Flow(
    "toy",
    title="Toy",
    input=ToyInput,
    phases=[Collect, Double],
    drafts=lambda output: [Draft(title="The number", body=output(Double))],
)
