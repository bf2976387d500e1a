"""Phase 5: when each post goes out, and how success is measured."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar

from ekiden.core.flow import Context, Phase
from ekiden.flows.viral.answers import AimAnswer, AnswerModel, KpiAnswer, SlotAnswer
from ekiden.flows.viral.concepts import Concepts
from ekiden.flows.viral.contents import Contents
from ekiden.flows.viral.opportunities import Opportunities
from ekiden.flows.viral.schemas import Aim, Kpi, OpportunityReport, PostingStrategy, Posts, Slot
from ekiden.flows.viral.steps import ask, bullets, together
from ekiden.flows.viral.words import PLACES, STAGES, moment_in, said_in, target_in


class Strategy(Phase):
    """Plan the posting."""

    titles: ClassVar[dict[str, str]] = {"ja": "投稿戦略を決める"}

    async def think(self, ctx: Context) -> Aim:
        """Say what the posts are for, how often, and how to answer readers."""
        opportunities: OpportunityReport = ctx.output(Opportunities)
        posts: Posts = ctx.output(Contents)
        answer = await ask(
            ctx,
            "aim",
            AimAnswer,
            audience=opportunities.audience,
            hooks=bullets(post.title for post in posts.posts),
        )
        return Aim(**answer.model_dump())

    async def integrate(self, ctx: Context, plan: Aim) -> PostingStrategy:
        """Give each post its time, and each stage of success its number."""
        language = ctx.input.language
        timings = {c.id: c.timing for c in ctx.output(Concepts).concepts}
        posts: Posts = ctx.output(Contents)
        asked: list[Coroutine[Any, Any, AnswerModel]] = [
            ask(
                ctx,
                "slot",
                SlotAnswer,
                hook=post.title,
                timing=timings.get(post.concept_id, "-"),
                cadence=plan.cadence,
                place=place,
            )
            for post, place in zip(posts.posts, PLACES[language], strict=True)
        ]
        asked += [
            ask(ctx, "kpi", answer, goal=plan.goal, stage=stage)
            for answer, stage in STAGES[language]
        ]
        answers = await together(asked)
        slots = [answer for answer in answers if isinstance(answer, SlotAnswer)]
        kpis = [answer for answer in answers if isinstance(answer, KpiAnswer)]
        return PostingStrategy(
            **plan.model_dump(),
            schedule=[
                Slot(
                    concept_id=post.concept_id,
                    when=moment_in(language, slot.day, slot.hour),
                    why=slot.why,
                    follow_up=slot.follow_up,
                )
                for post, slot in zip(posts.posts, slots, strict=True)
            ],
            kpis=[
                Kpi(
                    name=said_in(language, kpi.name),
                    target=target_in(language, kpi.target, kpi.days),
                    measure=kpi.measure,
                )
                for kpi in kpis
            ],
        )
