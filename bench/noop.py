"""The work that is measured: five phases of three steps that answer at once, or in a while."""

from __future__ import annotations

import asyncio
import random
from time import perf_counter

from pydantic import BaseModel

from ekiden import Context, Flow, Phase
from ekiden.flows.registry import CompiledFlow

# (session, moment) of each step's start and end, in the order they happened; hops are their gaps.
starts: dict[str, list[float]] = {}
ends: dict[str, list[float]] = {}
waiting = asyncio.Event()
called: list[float] = []  # when each step that waits was called


class Nothing(BaseModel):
    """No input."""


pause = 0.0  # seconds that a step takes, on average


async def _step(session: str) -> dict[str, bool]:
    starts.setdefault(session, []).append(perf_counter())
    if pause:
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
    ends.setdefault(session, []).append(perf_counter())
    return {"ok": True}


class Noop(Phase):
    """Answers at once"""

    async def think(self, ctx: Context) -> dict[str, bool]:
        return await _step(ctx.session_id)

    async def execute(self, ctx: Context, plan: dict[str, bool]) -> dict[str, bool]:
        return await _step(ctx.session_id)

    async def integrate(
        self, ctx: Context, plan: dict[str, bool], found: dict[str, bool]
    ) -> dict[str, bool]:
        return await _step(ctx.session_id)


class Waits(Phase):
    """Waits, as for a model that takes its time"""

    async def think(self, ctx: Context) -> dict[str, bool]:
        called.append(perf_counter())
        await waiting.wait()
        return {"ok": True}

    async def integrate(self, ctx: Context, plan: dict[str, bool]) -> dict[str, bool]:
        return {"ok": True}


def noop_flow() -> CompiledFlow:
    """Return five phases of three no-op steps."""
    phases = [type(f"Noop{n}", (Noop,), {}) for n in range(1, 6)]
    return CompiledFlow(Flow("noop", input=Nothing, phases=phases))


def waiting_flow() -> CompiledFlow:
    """Return a flow whose first step waits for ``waiting``."""
    return CompiledFlow(Flow("waits", input=Nothing, phases=[Waits]))
