"""A flow that says when its first step was called; for ``startup.py``."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import BaseModel

from ekiden import Context, Flow, Phase


class Nothing(BaseModel):
    """No input."""


class First(Phase):
    """Answers at once"""

    async def think(self, ctx: Context) -> dict[str, bool]:
        Path(os.environ["CALLED"]).write_text(str(time.time()))
        return {"ok": True}

    async def integrate(self, ctx: Context, plan: dict[str, bool]) -> dict[str, bool]:
        return plan


starting = Flow("starting", input=Nothing, phases=[First])
