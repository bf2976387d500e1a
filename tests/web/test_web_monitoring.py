"""The monitoring page names where the time goes and what went wrong, in words of its language."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ekiden import Context, Flow, Phase
from ekiden.api import counting
from ekiden.errors import ModelUnavailable
from ekiden.flows.registry import CompiledFlow
from ekiden.store import metrics
from tests.web.site import Person, Site
from tests.worker.relay import QUICK, Count


class Dig(Phase):
    """Dig"""

    async def think(self, ctx: Context) -> str:
        if ctx.attempt == 1:
            raise ModelUnavailable("planted")
        return await ctx.ask("where", str)

    async def integrate(self, ctx: Context, plan: str) -> str:
        return plan


async def test_bottlenecks_and_errors_are_named(
    site: Site, person: Person, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(metrics, "MARGIN", timedelta(0))
    monkeypatch.setattr(counting, "FRESH", timedelta(0))
    flow = CompiledFlow(Flow("dig", input=Count, phases=[Dig]))
    await site.work(lambda _request: "here", flow)
    session, _ = await site.sessions.create("dig", title="t", input={}, options=QUICK, start=True)
    await site.until(session, "COMPLETED")
    english = (await person.get("/monitoring?lang=en")).text
    assert "Phase 1 THINK is" in english
    assert "slowest source scripted:writer-1" in english
    assert "ModelUnavailable" in english
    assert "50.0 %" in english  # of two attempts at THINK
    japanese = (await person.get("/monitoring?lang=ja")).text
    assert "フェーズ 1 THINK が処理時間の" in japanese
    assert "<h2>エラーの種類</h2>" in japanese
    assert "<h2>エラー率</h2>" not in japanese
    assert "試行の 50 % は再試行" in japanese
