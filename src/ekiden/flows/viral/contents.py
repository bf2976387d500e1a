"""Phase 4: three posts, in one voice."""

from __future__ import annotations

from typing import ClassVar

from ekiden.core.flow import Context, Phase
from ekiden.flows.viral import checks
from ekiden.flows.viral.answers import PostAnswer, VoiceAnswer, post_answer
from ekiden.flows.viral.concepts import Concepts
from ekiden.flows.viral.opportunities import Opportunities
from ekiden.flows.viral.platforms import PLATFORMS
from ekiden.flows.viral.schemas import (
    Concept,
    ConceptReport,
    OpportunityReport,
    Post,
    Posts,
    ViralInput,
    Voice,
)
from ekiden.flows.viral.steps import ask, bullets, together


class Contents(Phase):
    """Write three posts."""

    titles: ClassVar[dict[str, str]] = {"ja": "3本の投稿を書く"}

    async def think(self, ctx: Context) -> Voice:
        """Fix one voice for all three."""
        opportunities: OpportunityReport = ctx.output(Opportunities)
        concepts: ConceptReport = ctx.output(Concepts)
        answer = await ask(
            ctx,
            "voice",
            VoiceAnswer,
            audience=opportunities.audience,
            hooks=bullets(concept.hook for concept in concepts.concepts),
        )
        return Voice(**answer.model_dump())

    async def integrate(self, ctx: Context, plan: Voice) -> Posts:
        """Write a full post from each concept."""
        given: ViralInput = ctx.input
        report: ConceptReport = ctx.output(Concepts)
        texts: dict[str, str] = {}
        answers = await together(_post(ctx, plan, concept, texts) for concept in report.concepts)
        return Posts(
            platform=given.platform,
            language=given.language,
            voice=plan,
            posts=[
                Post(
                    concept_id=concept.id,
                    title=concept.hook[:160],
                    text=answer.text,
                    hashtags=concept.hashtags[: PLATFORMS[given.platform].hashtags],
                )
                for concept, answer in zip(report.concepts, answers, strict=True)
            ],
        )


async def _post(ctx: Context, voice: Voice, concept: Concept, others: dict[str, str]) -> PostAnswer:
    given: ViralInput = ctx.input
    platform = PLATFORMS[given.platform]
    most = platform.most_in(given.language)
    return await ask(
        ctx,
        "post",
        post_answer(most, platform.paragraphs),
        check=checks.on_post(platform, concept, others),
        hook=concept.hook,
        angle=concept.angle,
        outline=bullets(concept.outline),
        voice=voice.voice,
        avoid=voice.avoid,
        aim=platform.aim_in(given.language),
        most=most,
        paragraphs=platform.paragraphs,
    )
