"""The flow over which people decide while workers die: ``--flow chaos.deciding:deciding``.

It asks no model: what a phase makes depends on the outputs before it and on what people said, so an
edit that was lost, or read by nobody, shows in the end.
"""

from __future__ import annotations

from pydantic import BaseModel

from chaos.flows import Given
from ekiden import Context, Draft, Flow, Phase

ITEMS = 4


class Made(BaseModel):
    """What each phase makes."""

    total: int
    notes: list[str] = []  # what people wanted to be different


class Base(Phase):
    """Make a number"""

    async def think(self, ctx: Context) -> list[int]:
        return list(range(ITEMS))

    def each(self, plan: list[int]) -> list[int]:
        return plan

    async def execute(self, ctx: Context, item: int) -> int:
        return item

    async def integrate(self, ctx: Context, plan: list[int], found: list[int]) -> Made:
        return Made(total=sum(found), notes=[ctx.feedback.note] if ctx.feedback else [])


class Beside(Phase):
    """Stand by itself"""

    async def think(self, ctx: Context) -> int:
        return 7

    async def integrate(self, ctx: Context, plan: int) -> Made:
        return Made(total=plan, notes=[ctx.feedback.note] if ctx.feedback else [])


class Sum(Phase):
    """Add both"""

    async def think(self, ctx: Context) -> int:
        return int(ctx.output(Base).total + ctx.output(Beside).total)

    async def integrate(self, ctx: Context, plan: int) -> Made:
        return Made(total=plan)


deciding = Flow(
    "deciding",
    title="Deciding",
    input=Given,
    phases=[Base, Beside, Sum],
    drafts=lambda output: [Draft(title="The sum", body=output(Sum).model_dump())],
)
