"""A flow that asks a model, in words that a test can change: ``--flow tests.cli.asking:asking``."""

from __future__ import annotations

import os

from pydantic import BaseModel, Field

from ekiden import Context, Flow, Phase


class AskingInput(BaseModel):
    theme: str


class Word(BaseModel):
    word: str = Field(max_length=40)


class Ask(Phase):
    """Ask"""

    async def think(self, ctx: Context) -> list[str]:
        return ["red", "green"]

    def each(self, plan: list[str]) -> list[str]:
        return plan

    async def execute(self, ctx: Context, item: str) -> str:
        prompt = os.environ.get("ASKING_PROMPT", "One word for")
        return (await ctx.ask(f"{prompt} {ctx.input.theme} that is {item}.", Word)).word

    async def integrate(self, ctx: Context, plan: list[str], found: list[str]) -> list[str]:
        return found


asking = Flow("asking", title="Asking", input=AskingInput, phases=[Ask])
