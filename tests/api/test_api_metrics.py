"""Metrics of a load with a planted slow source and a planted error, beside a count in SQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ekiden import Context, Flow, Phase
from ekiden.api import counting
from ekiden.api.settings import ApiSettings
from ekiden.core.histogram import PERCENTILE_ERROR
from ekiden.errors import ModelUnavailable
from ekiden.flows.registry import CompiledFlow
from ekiden.search.protocol import Source
from ekiden.store import metrics
from tests.api.conftest import client_of
from tests.api.relay import Relay
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, Count, House, open_house, working

ITEMS, SESSIONS, TENTH = 10, 4, 7
SLOW = 0.2  # more than any step takes on a busy machine


class Archive:
    """A source that is slow, and says how much it holds."""

    name = "archive (10,245)"

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        await asyncio.sleep(SLOW)
        return [Source(title=query, url="file:///x", snippet="x", origin="archive")]


class Gather(Phase):
    """Gather"""

    async def think(self, ctx: Context) -> list[int]:
        return list(range(ITEMS))

    def each(self, plan: list[int]) -> list[int]:
        return plan

    async def execute(self, ctx: Context, number: int) -> int:
        await ctx.search(f"number {number}")
        await ctx.ask("again", str)
        if number == TENTH and ctx.attempt == 1:
            raise ModelUnavailable("planted")
        return number

    async def integrate(self, ctx: Context, plan: list[int], found: list[int]) -> int:
        await ctx.ask("sum", str)
        return sum(found)


class Tell(Phase):
    """Tell"""

    async def think(self, ctx: Context) -> str:
        return await ctx.ask("tell", str)

    async def integrate(self, ctx: Context, plan: str) -> str:
        return plan


@pytest.fixture
async def house(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(metrics, "MARGIN", timedelta(0))
    monkeypatch.setattr(counting, "FRESH", timedelta(0))
    async with open_house(database) as house:
        yield house


@pytest.fixture
async def loaded(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API, after a load with a slow source and a tenth of errors."""
    flow = CompiledFlow(Flow("planted", input=Count, phases=[Gather, Tell]))
    provider = ScriptedProvider(lambda _request: "yes")
    async with working(house.dsn, flow, provider=provider, search=Archive(), capacity=32):
        ids = [await house.begin("planted", QUICK) for _ in range(SESSIONS)]
        for id_ in ids:
            await house.until(id_, "AWAITING_REVIEW")
            await house.sessions.approve(id_, actor="test")
        for id_ in ids:
            await house.until(id_)
    async with client_of(house.sessions, ApiSettings()) as client:
        yield client


async def asked(client: httpx2.AsyncClient, path: str, **parameters: str) -> dict[str, Any]:
    answer = await client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_slow_source_and_the_error_are_named(loaded: httpx2.AsyncClient):
    found = await asked(loaded, "/api/metrics/bottlenecks", window="1h", flow="planted")
    first = found["bottlenecks"][0]
    assert (first["phase"], first["step"]) == (1, "EXECUTE")
    assert first["share"] > 0.5
    assert first["slowestSource"]["name"] == "search:archive"
    assert first["slowestSource"]["p95S"] >= SLOW * (1 - PERCENTILE_ERROR)
    assert first["retries"] == pytest.approx(1 / (ITEMS + 1), abs=0.001)
    assert "slowest source search:archive" in first["sentences"]["en"]
    assert "9 % of its attempts are retries" in first["sentences"]["en"]
    assert "最も遅いソースは search:archive" in first["sentences"]["ja"]
    assert sum(b["share"] for b in found["bottlenecks"]) == pytest.approx(1, abs=0.001)
    assert first["trend"] is None

    summary = await asked(loaded, "/api/metrics/summary", flow="planted")
    (error,) = summary["errors"]
    assert error["kind"] == "ModelUnavailable"
    assert (error["flow"], error["phase"], error["step"]) == ("planted", 1, "EXECUTE")
    assert error["count"] == SESSIONS
    assert error["rate"] == pytest.approx(1 / (ITEMS + 1), abs=0.001)
    assert summary["sources"][0]["source"] == "search:archive"


async def test_the_figures_are_those_of_sql(loaded: httpx2.AsyncClient, house: House):
    summary = await asked(loaded, "/api/metrics/summary", window="1h")
    steps = (await asked(loaded, "/api/metrics/steps", window="1h"))["steps"]
    outcomes = await house.pool.fetch(
        "SELECT outcome, count(*) AS n, sum(extract(epoch FROM finished_at - started_at)) AS s"
        " FROM ekiden.attempts GROUP BY outcome"
    )
    assert summary["attempts"]["outcomes"] == {row["outcome"]: row["n"] for row in outcomes}
    assert summary["attempts"]["run"]["total"] == pytest.approx(
        float(sum(row["s"] for row in outcomes)), abs=0.002
    )
    calls = await house.pool.fetchrow(
        "SELECT count(*) AS n, sum(input_tokens) AS i, sum(output_tokens) AS o,"
        " sum(cost_usd) AS usd FROM ekiden.calls"
    )
    assert calls is not None
    shown = summary["calls"]
    assert (shown["total"], shown["inputTokens"], shown["outputTokens"]) == (
        calls["n"], calls["i"], calls["o"],
    )  # fmt: skip
    assert shown["costUsd"] == pytest.approx(float(calls["usd"]))
    assert summary["sessions"]["count"] == SESSIONS == summary["human"]["count"]
    assert summary["now"]["queue"] == {"due": 0, "later": 0, "oldestS": None}
    runs = await house.pool.fetch(
        "SELECT extract(epoch FROM a.finished_at - a.started_at)::float8 AS s"
        " FROM ekiden.attempts a JOIN ekiden.api_tasks t ON t.id = a.task_id"
        " WHERE t.phase = 1 AND t.step = 'EXECUTE' ORDER BY 1"
    )
    (execute,) = (s for s in steps if (s["phase"], s["step"]) == (1, "EXECUTE"))
    assert execute["attempts"]["total"] == len(runs) == SESSIONS * (ITEMS + 1)
    middle = runs[-(-len(runs) // 2) - 1]["s"]
    assert execute["attempts"]["run"]["p50"] == pytest.approx(middle, rel=PERCENTILE_ERROR + 0.001)
    walls = await house.pool.fetchval(
        "SELECT sum(s) FROM (SELECT extract(epoch FROM max(t.completed_at) - min(a.started_at))"
        " AS s FROM ekiden.api_tasks t JOIN ekiden.attempts a ON a.task_id = t.id"
        " WHERE t.phase = 1 AND t.step = 'EXECUTE' GROUP BY t.session_id) x"
    )
    assert execute["wall"]["total"] == pytest.approx(float(walls), abs=0.002)
    assert [(s["phase"], s["step"]) for s in steps] == [
        (1, "THINK"), (1, "EXECUTE"), (1, "INTEGRATE"), (2, "THINK"), (2, "INTEGRATE"),
    ]  # fmt: skip


async def test_prometheus_reads_the_same(loaded: httpx2.AsyncClient):
    summary = await asked(loaded, "/api/metrics/summary", window="1h")
    answer = await loaded.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    samples = [s for f in families.values() for s in f.samples]

    def total(name: str, **labels: str) -> float:
        return sum(
            s.value
            for s in samples
            if s.name == name and all(s.labels.get(k) == v for k, v in labels.items())
        )

    assert total("ekiden_attempt_seconds_count") == summary["attempts"]["total"]
    assert total("ekiden_attempt_seconds_count", outcome="RETRIED") == SESSIONS
    assert total("ekiden_attempt_errors_total", error="ModelUnavailable") == SESSIONS
    completed = summary["attempts"]["outcomes"]["COMPLETED"]
    assert total("ekiden_commit_seconds_count") == completed == summary["commit"]["count"]
    assert total("ekiden_call_seconds_count") == summary["calls"]["total"]
    assert total("ekiden_input_tokens_total") == summary["calls"]["inputTokens"]
    assert total("ekiden_cost_usd_total") == pytest.approx(summary["calls"]["costUsd"])
    assert total("ekiden_workers", state="ALIVE") == summary["now"]["workers"]["alive"]
    for family in families.values():
        assert family.documentation, family.name
        if family.type == "histogram":
            for sample in (s for s in family.samples if s.name.endswith("_count")):
                inf = total(f"{family.name}_bucket", le="+Inf", **sample.labels)
                assert inf == sample.value
    waits = [s for s in samples if s.name == "ekiden_call_seconds_bucket"
             and s.labels["source"] == "search:archive"]  # fmt: skip
    assert [s.value for s in waits] == sorted(s.value for s in waits)


async def test_the_window_before_gives_the_trend(loaded: httpx2.AsyncClient, house: House):
    await asked(loaded, "/api/metrics/summary")  # everything is counted
    await house.pool.execute(
        "INSERT INTO ekiden.metric_rollups SELECT width, since - interval '8 days', series_id,"
        " bucket, n, seconds / 2, input_tokens, output_tokens, cost_usd, unpriced"
        " FROM ekiden.metric_rollups WHERE width = 'day'"
    )
    found = (await asked(loaded, "/api/metrics/bottlenecks"))["bottlenecks"][0]
    assert found["trend"] == pytest.approx(1.0)
    assert "100 % slower than the week before" in found["sentences"]["en"]
    assert "前の週より 100 % 遅い" in found["sentences"]["ja"]


async def test_a_flow_that_is_not_there_and_a_window_that_is_none(
    client: httpx2.AsyncClient, relay: Relay
):
    for path in ("summary", "steps", "bottlenecks"):
        answer = await client.get(f"/api/metrics/{path}", params={"flow": "nothing"})
        assert answer.status_code == 404
        answer = await client.get(f"/api/metrics/{path}", params={"window": "1y"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "window"
    empty = await asked(client, "/api/metrics/summary")
    assert empty["attempts"]["total"] == 0
    assert empty["attempts"]["errorRate"] is None


async def test_the_path_of_a_session_is_its_whole_life(loaded: httpx2.AsyncClient, house: House):
    (line, *_) = await house.sessions.find(flow="planted")
    found = await asked(loaded, f"/api/planted/cot-session/{line.id}/timing")
    lived = await house.pool.fetchval(
        "SELECT extract(epoch FROM completed_at - created_at)::float8 FROM ekiden.sessions"
        " WHERE id = $1",
        line.id,
    )
    assert sum(s["seconds"] for s in found["path"]) == pytest.approx(lived, abs=0.005)
    assert sum(found["seconds"].values()) == pytest.approx(lived, abs=0.005)
    execute = max(found["steps"], key=lambda s: s["share"])
    assert (execute["phase"], execute["step"]) == (1, "EXECUTE")
    assert (execute["attempts"], execute["repeated"]) == (ITEMS + 1, 1)
    assert execute["slowestSource"]["name"].startswith("search:archive")
    assert found["seconds"]["human"] > 0
    assert "Phase 1 EXECUTE" in found["sentences"]["en"][1]
