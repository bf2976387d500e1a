"""The work that is measured: five phases of three steps that answer at once."""

from __future__ import annotations

import asyncio
from time import perf_counter

from pydantic import BaseModel

from ekiden import Context, Flow, Phase
from ekiden.flows.registry import CompiledFlow

# (session, moment) of each step's start and end, in the order they happened; hops are their gaps.
starts: dict[str, list[float]] = {}
ends: dict[str, list[float]] = {}
waiting = asyncio.Event()
reached = 0


class Nothing(BaseModel):
    """No input."""


def _mark(session: str) -> None:
    now = perf_counter()
    starts.setdefault(session, []).append(now)
    ends.setdefault(session, []).append(perf_counter())


class Noop(Phase):
    """Answers at once"""

    async def think(self, ctx: Context) -> dict[str, bool]:
        _mark(ctx.session_id)
        return {"ok": True}

    async def execute(self, ctx: Context, plan: dict[str, bool]) -> dict[str, bool]:
        _mark(ctx.session_id)
        return {"ok": True}

    async def integrate(
        self, ctx: Context, plan: dict[str, bool], found: dict[str, bool]
    ) -> dict[str, bool]:
        _mark(ctx.session_id)
        return {"ok": True}


class Waits(Phase):
    """Waits, as for a model that takes its time"""

    async def think(self, ctx: Context) -> dict[str, bool]:
        global reached  # noqa: PLW0603 - a counter of this process
        reached += 1
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
