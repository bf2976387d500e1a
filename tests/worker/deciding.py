"""A flow whose phases ask a model, so that what a decision changes is seen in the next prompt."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from pydantic import BaseModel

from ekiden import Context, Flow, Gate, Phase
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.protocol import ModelRequest
from tests.scripted import ScriptedProvider

PRICE = Decimal("0.01")  # of each call, whatever is asked


class Topic(BaseModel):
    """The input."""

    topic: str = "relay"
    n: int = 20


class Text(BaseModel):
    """What every step makes."""

    text: str


class Priced(ScriptedProvider):
    """Knows beforehand what a call costs: a cent."""

    def most_it_costs(self, input_chars: int, max_tokens: int) -> Decimal:
        return PRICE


async def _ask(ctx: Context, what: str) -> Text:
    said = (
        f" Note: {ctx.feedback.note}. Before: {ctx.feedback.previous.text}" if ctx.feedback else ""
    )
    tone = f" Tone: {ctx.variables['tone']}" if "tone" in ctx.variables else ""
    return Text(text=await ctx.ask(what + said + tone, str))


class First(Phase):
    """The first"""

    async def think(self, ctx: Context) -> Text:
        return await _ask(ctx, "plan 1")

    async def integrate(self, ctx: Context, plan: Text) -> Text:
        return await _ask(ctx, f"make 1 of {plan.text}")


class Second(First):
    """Uses the first"""

    async def think(self, ctx: Context) -> Text:
        return await _ask(ctx, f"plan 2 of {ctx.output(First).text}")

    async def integrate(self, ctx: Context, plan: Text) -> Text:
        return await _ask(ctx, f"make 2 of {plan.text}")


class Third(First):
    """Uses the second"""

    async def think(self, ctx: Context) -> Text:
        return await _ask(ctx, f"plan 3 of {ctx.output(Second).text}")

    async def integrate(self, ctx: Context, plan: Text) -> Text:
        return await _ask(ctx, f"make 3 of {plan.text}")


class Fourth(First):
    """Stands by itself"""

    async def think(self, ctx: Context) -> Text:
        return await _ask(ctx, "plan 4")

    async def integrate(self, ctx: Context, plan: Text) -> Text:
        return await _ask(ctx, f"make 4 of {plan.text}")


class Fifth(First):
    """Uses the fourth"""

    async def think(self, ctx: Context) -> Text:
        return await _ask(ctx, f"plan 5 of {ctx.output(Fourth).text}")

    async def integrate(self, ctx: Context, plan: Text) -> Text:
        return await _ask(ctx, f"make 5 of {plan.text}")


class Wide(Phase):
    """Twenty at once"""

    failed_items: ClassVar = "ask"

    async def think(self, ctx: Context) -> list[int]:
        return list(range(ctx.input.n))

    def each(self, plan: list[int]) -> list[int]:
        return plan

    async def execute(self, ctx: Context, item: int) -> Text:
        return await _ask(ctx, f"item {item}")

    async def integrate(self, ctx: Context, plan: list[int], found: list[Text]) -> list[str]:
        return [one.text for one in found]


class Checked(First):
    """Looked at when it is short"""

    gate = Gate(check=lambda made: "too short" if len(made.text) < 12 else None)


def five(*phases: type[Phase], name: str = "five") -> CompiledFlow:
    return CompiledFlow(
        Flow(name, input=Topic, phases=phases or (First, Second, Third, Fourth, Fifth))
    )


def echo(request: ModelRequest) -> str:
    """Answer what was asked, in brackets."""
    return f"[{request.messages[-1].content}]"
