"""The flow, and the drafts it ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ekiden.core.flow import Draft, Flow, Phase
from ekiden.flows.viral.concepts import Concepts
from ekiden.flows.viral.contents import Contents
from ekiden.flows.viral.opportunities import Opportunities
from ekiden.flows.viral.platforms import PLATFORMS, with_hashtags
from ekiden.flows.viral.schemas import (
    ConceptReport,
    OpportunityReport,
    PostingStrategy,
    Posts,
    TrendReport,
    ViralInput,
)
from ekiden.flows.viral.strategy import Strategy
from ekiden.flows.viral.trends import Trends


def drafts(output: Callable[[type[Phase]], Any]) -> list[Draft]:
    """Return one draft a post, with the sources of the trend it came from."""
    trends: TrendReport = output(Trends)
    opportunities: OpportunityReport = output(Opportunities)
    concepts: ConceptReport = output(Concepts)
    contents: Posts = output(Contents)
    strategy: PostingStrategy = output(Strategy)

    # By id, with a gap where a person's edit took something away: better none than another's.
    trend_of = {opportunity.id: opportunity.trend_id for opportunity in opportunities.opportunities}
    sources_of = {trend.id: trend.sources for trend in trends.trends}
    concept_of = {concept.id: concept for concept in concepts.concepts}
    slot_of = {slot.concept_id: slot for slot in strategy.schedule}
    platform = PLATFORMS[contents.platform]

    made = []
    for post in contents.posts:
        concept = concept_of.get(post.concept_id)
        slot = slot_of.get(post.concept_id)
        sources = sources_of.get(trend_of.get(concept.opportunity_id, ""), []) if concept else []
        text = with_hashtags(platform, post.text, post.hashtags)
        made.append(
            Draft(
                title=post.title,
                body={
                    "platform": contents.platform,
                    "language": contents.language,
                    "text": text,  # as it is pasted
                    "hashtags": post.hashtags,
                    "characters": platform.length(text),
                    "limit": platform.limit,
                    "concept": concept.model_dump(mode="json") if concept else None,
                    "schedule": slot.model_dump(mode="json") if slot else None,
                },
                sources=tuple(source.model_dump(mode="json") for source in sources),
            )
        )
    return made


viral = Flow(
    "viral",
    title="Viral posts",
    input=ViralInput,
    phases=[Trends, Opportunities, Concepts, Contents, Strategy],
    drafts=drafts,
)
