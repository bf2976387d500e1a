"""Phase 1: look the theme up, and name the trends that were found.

A trend's sources are search results: the model chooses them by number, code attaches them, and a
number that was not found is dropped. A model never writes a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ekiden.core.flow import Context, Phase
from ekiden.flows.viral import checks
from ekiden.flows.viral.answers import OwnTrendAnswer, QueriesAnswer, TrendAnswer
from ekiden.flows.viral.schemas import (
    Found,
    FoundSource,
    Searched,
    SearchPlan,
    SearchQuery,
    Trend,
    TrendReport,
    ViralInput,
)
from ekiden.flows.viral.steps import ask, numbered, together
from ekiden.flows.viral.text import distinct, same
from ekiden.search.protocol import Source

_SOURCES_EACH = 5  # a query keeps this many


class Trends(Phase):
    """Find trends."""

    titles: ClassVar[dict[str, str]] = {"ja": "トレンドを探す"}

    async def think(self, ctx: Context) -> SearchPlan:
        """Choose what to look up: the theme itself, and angles on it."""
        given: ViralInput = ctx.input
        answer = await ask(ctx, "queries", QueriesAnswer)
        queries = distinct([given.theme[:160], *answer.queries])
        return SearchPlan(queries=[SearchQuery(query=query) for query in queries[:5]])

    def each(self, plan: SearchPlan) -> list[SearchQuery]:
        """One search a query."""
        return plan.queries

    async def execute(self, ctx: Context, query: SearchQuery) -> Found:
        """Look it up; nothing found is a result too."""
        found: Sequence[Source] = await ctx.search(query.query, limit=_SOURCES_EACH)
        return Found(query=query.query, sources=[kept for s in found if (kept := _kept(s))][:5])

    async def integrate(self, ctx: Context, plan: SearchPlan, found: list[Found]) -> TrendReport:
        """Name one trend for each search that found something new."""
        groups = _without_repeats(found)
        sourced = [group for group in groups if group.sources]
        if sourced:
            trends = await together(_trend(ctx, group) for group in sourced)
        else:  # nothing was found at all: the model's own view, and the report says so
            trends = await together(_own_trend(ctx, group.query) for group in groups[:3])
        return TrendReport(
            trends=_numbered_trends(trends),
            searched=[Searched(query=group.query, found=len(group.sources)) for group in found],
        )


def _kept(source: Source) -> FoundSource | None:
    """Keep a source, its texts shortened. One without a usable address cannot be shown: dropped."""
    if not 0 < len(source.url) <= 2000:
        return None
    return FoundSource(
        title=(source.title.strip() or source.url)[:160],
        url=source.url,
        snippet=" ".join(source.snippet.split())[:600],
        origin=source.origin[:120],
        licence=source.licence[:120] if source.licence else None,
        published=source.published[:40] if source.published else None,
    )


def _without_repeats(found: list[Found]) -> list[Found]:
    """Leave each source only with the first query that found it, so that trends differ."""
    seen: set[str] = set()
    groups = []
    for group in found:
        fresh = [source for source in group.sources if source.url not in seen]
        seen.update(source.url for source in fresh)
        groups.append(Found(query=group.query, sources=fresh))
    return groups


async def _trend(ctx: Context, group: Found) -> Trend:
    answer = await ask(
        ctx,
        "trend",
        TrendAnswer,
        check=checks.on_trend(len(group.sources)),
        sources=numbered(group.sources),
    )
    chosen = dict.fromkeys(n for n in answer.sources if n <= len(group.sources))
    return Trend(
        id="t0",
        name=answer.name,
        summary=answer.summary,
        why_now=answer.why_now,
        sources=[group.sources[number - 1] for number in chosen],
    )


async def _own_trend(ctx: Context, query: str) -> Trend:
    answer = await ask(ctx, "own_trend", OwnTrendAnswer, query=query)
    return Trend(id="t0", **answer.model_dump(), sources=[])


def _numbered_trends(trends: list[Trend]) -> list[Trend]:
    """Give ids; trends of the same name become one, with the sources of both."""
    by_name: dict[str, Trend] = {}
    for trend in trends:
        key = next((name for name in by_name if same(name, trend.name)), trend.name)
        first = by_name.setdefault(key, trend)
        if first is not trend:
            by_name[key] = first.model_copy(
                update={"sources": [*first.sources, *trend.sources][:10]}
            )
    return [
        trend.model_copy(update={"id": f"t{number}"})
        for number, trend in enumerate(by_name.values(), start=1)
    ]
