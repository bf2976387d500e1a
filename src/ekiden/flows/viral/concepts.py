"""Phase 3: three concepts, each with another approach."""

from __future__ import annotations

from typing import ClassVar

from ekiden.core.flow import Context, Phase
from ekiden.flows.viral import checks
from ekiden.flows.viral.answers import ConceptAnswer, IdeaAnswer
from ekiden.flows.viral.opportunities import Opportunities
from ekiden.flows.viral.schemas import Concept, ConceptReport, Idea, Ideas, OpportunityReport
from ekiden.flows.viral.steps import ask, together
from ekiden.flows.viral.text import distinct
from ekiden.flows.viral.words import APPROACHES, said_in


class Concepts(Phase):
    """Shape three concepts."""

    titles: ClassVar[dict[str, str]] = {"ja": "3つの企画を立てる"}

    async def think(self, ctx: Context) -> Ideas:
        """Find three ideas: the best opportunities, each with another approach."""
        report: OpportunityReport = ctx.output(Opportunities)
        best = report.opportunities
        pairs = [
            (best[number % len(best)], approach)
            for number, approach in enumerate(APPROACHES[ctx.input.language])
        ]
        hooks: dict[str, str] = {}
        answers = await together(
            ask(
                ctx,
                "idea",
                IdeaAnswer,
                check=checks.on_idea(hooks, approach.name),
                opportunity=opportunity.title,
                benefit=opportunity.benefit,
                audience=report.audience,
                approach=approach.task,
            )
            for opportunity, approach in pairs
        )
        return Ideas(
            ideas=[
                Idea(
                    id=f"c{number}",
                    opportunity_id=opportunity.id,
                    approach=approach.name,
                    format=said_in(ctx.input.language, answer.format),
                    hook=answer.hook,
                    angle=answer.angle,
                )
                for number, ((opportunity, approach), answer) in enumerate(
                    zip(pairs, answers, strict=True), start=1
                )
            ]
        )

    async def integrate(self, ctx: Context, plan: Ideas) -> ConceptReport:
        """Work each idea out: outline, hashtags, visual, timing."""
        report: OpportunityReport = ctx.output(Opportunities)
        answers = await together(
            ask(
                ctx,
                "concept",
                ConceptAnswer,
                check=checks.on_concept,
                hook=idea.hook,
                angle=idea.angle,
                format=idea.format,
                audience=report.audience,
            )
            for idea in plan.ideas
        )
        return ConceptReport(
            concepts=[
                Concept(
                    **idea.model_dump(),
                    outline=distinct(answer.outline),
                    hashtags=distinct(answer.hashtags),
                    visual=answer.visual,
                    timing=said_in(ctx.input.language, answer.timing),
                )
                for idea, answer in zip(plan.ideas, answers, strict=True)
            ]
        )
