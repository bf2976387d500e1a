"""Phase 2: judge what each trend is worth to the people the posts are for."""

from __future__ import annotations

from typing import ClassVar

from ekiden.core.flow import Context, Phase
from ekiden.flows.viral.answers import CriteriaAnswer, OpportunityAnswer
from ekiden.flows.viral.schemas import Criteria, Opportunity, OpportunityReport, TrendReport
from ekiden.flows.viral.steps import ask, bullets, together
from ekiden.flows.viral.text import distinct
from ekiden.flows.viral.trends import Trends


class Opportunities(Phase):
    """Judge opportunities."""

    titles: ClassVar[dict[str, str]] = {"ja": "機会を見極める"}

    async def think(self, ctx: Context) -> Criteria:
        """Say who the posts are for and what makes an opportunity good."""
        report: TrendReport = ctx.output(Trends)
        answer = await ask(
            ctx,
            "criteria",
            CriteriaAnswer,
            trends=bullets(trend.name for trend in report.trends),
        )
        return Criteria(audience=answer.audience, criteria=distinct(answer.criteria))

    async def integrate(self, ctx: Context, plan: Criteria) -> OpportunityReport:
        """Judge each trend by the criteria, and rank."""
        report: TrendReport = ctx.output(Trends)
        answers = await together(
            ask(
                ctx,
                "opportunity",
                OpportunityAnswer,
                trend=trend.name,
                summary=trend.summary,
                audience=plan.audience,
                criteria=bullets(plan.criteria),
            )
            for trend in report.trends
        )
        judged = sorted(zip(report.trends, answers, strict=True), key=lambda pair: -pair[1].score)
        return OpportunityReport(
            audience=plan.audience,
            criteria=plan.criteria,
            opportunities=[
                Opportunity(id=f"o{rank}", trend_id=trend.id, **answer.model_dump())
                for rank, (trend, answer) in enumerate(judged, start=1)
            ],
        )
