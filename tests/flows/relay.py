"""A context without a database: answers come from a script and are validated like any other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError

from ekiden.core.flow import Phase
from ekiden.core.model import StepKind
from ekiden.errors import AnswerInvalid
from ekiden.flows.viral import ViralInput, viral
from ekiden.search.protocol import Source

Script = Callable[[str, str, int], dict[str, Any] | Exception]  # answer's name, prompt, count


def source(number: int, *, url: str | None = None) -> Source:
    return Source(
        title=f"Source {number}",
        url=url or f"https://example.org/{number}",
        snippet=f"What source {number} says about kettles.",
        origin="test-folder",
        licence="CC BY-SA 4.0",
    )


def sensible(name: str, prompt: str, n: int) -> dict[str, Any] | Exception:
    """What a good model answers, different each time."""
    answers: dict[str, dict[str, Any]] = {
        "QueriesAnswer": {"queries": ["pour over kettles", "bitter coffee at home"]},
        "TrendAnswer": {
            "name": f"Slow kettles {n}",
            "summary": f"People pour more slowly, case {n}.",
            "why_now": f"New kettles make it easy, case {n}.",
            "sources": [1],
        },
        "OwnTrendAnswer": {
            "name": f"Bitter cups {n}",
            "summary": f"Bitterness comes back as a subject, case {n}.",
            "why_now": f"Everybody has had one, case {n}.",
        },
        "CriteriaAnswer": {
            "audience": "Home brewers who want a better cup.",
            "criteria": ["Can it be tried today?", "Is it new to them?", "Would they share it?"],
        },
        "OpportunityAnswer": {
            "title": f"Pour slower {n}",
            "benefit": f"A sweeter cup, case {n}.",
            "reason": f"Easy to try, case {n}.",
            "score": n + 2,
        },
        "IdeaAnswer": {
            "angle": f"Slowness makes the cup sweet, case {n}.",
            "hook": f"Your kettle hurries you, case {n}",
            "format": "tip",
        },
        "ConceptAnswer": {
            "outline": ["Water runs fast.", "Fast water tastes bitter.", "Pour for a minute."],
            "hashtags": ["#coffee", "#Coffee", "#pourover"],
            "visual": "A thin stream of water over coffee.",
            "timing": "early morning",
        },
        "VoiceAnswer": {
            "voice": "A neighbour at the counter.",
            "do": "Names one thing to touch.",
            "avoid": "Never lectures anybody.",
        },
        "PostAnswer": {
            "paragraphs": [
                f"Your kettle hurries you, case {n}. Pour for a whole minute.",
                "How long do you pour?",
            ]
        },
        "AimAnswer": {
            "goal": "Readers try one slow cup.",
            "cadence": "Two days between posts, time to try it.",
            "engagement": "Answer with a question about their cup.",
        },
        "SlotAnswer": {
            "day": "Tuesday",
            "hour": 7,
            "why": "The kettle is on.",
            "follow_up": "Tell me how it tasted.",
        },
        "ReachAnswer": {"name": "views", "target": 500, "days": 7, "measure": "The view counter."},
        "EngagementAnswer": {"name": "replies", "target": 9, "days": 7, "measure": "Replies read."},
        "ResultAnswer": {"name": "orders", "target": 1, "days": 1, "measure": "The order book."},
    }
    return answers[name]


class Scripted:
    """Implements ``ekiden.core.flow.Context``."""

    feedback: Any = None
    variables: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        given: ViralInput,
        script: Script = sensible,
        *,
        outputs: dict[type[Phase], Any] | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        self.input = given
        self.session_id = "session"
        self.attempt = 1
        self.script = script
        self.outputs = outputs or {}
        self.sources = sources
        self.asked: list[tuple[str, str, str]] = []  # the answer's name, prompt, system
        self.searched: list[str] = []
        self._counts: dict[str, int] = {}

    async def ask(
        self,
        prompt: str,
        answer: type[Any],
        *,
        system: str | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.7,
        check: Callable[[Any], str | None] | None = None,
        repairs: int = 1,
    ) -> Any:
        name = answer.__name__
        self.asked.append((name, prompt, system or ""))
        self._counts[name] = self._counts.get(name, 0) + 1
        said = self.script(name, prompt, self._counts[name])
        if isinstance(said, Exception):
            raise said
        try:
            value = answer.model_validate_json(json.dumps(said))
        except ValidationError as error:
            raise AnswerInvalid(str(error)) from error
        if check is not None and (complaint := check(value)):
            raise AnswerInvalid(complaint)
        return value

    async def search(self, query: str, *, limit: int = 5) -> Sequence[Source]:
        self.searched.append(query)
        return self.sources[:limit]

    def output(self, phase: type[Phase]) -> Any:
        return self.outputs[phase]


async def run(ctx: Scripted, *, until: type[Phase] | None = None) -> dict[type[Phase], Any]:
    """Run phases as the engine does: what is stored goes through JSON between steps."""
    for spec in viral.phases:
        plan = _stored(await spec.steps[StepKind.THINK].run(ctx))
        integrate = spec.steps[StepKind.INTEGRATE].run
        if StepKind.EXECUTE in spec.steps:
            assert spec.each is not None
            execute = spec.steps[StepKind.EXECUTE].run
            found = [_stored(await execute(ctx, item)) for item in spec.each(plan)]
            output = await integrate(ctx, plan, found)
        else:
            output = await integrate(ctx, plan)
        ctx.outputs[spec.definition] = _stored(output)
        if spec.definition is until:
            break
    return ctx.outputs


def _stored(value: Any) -> Any:
    return type(value).model_validate_json(value.model_dump_json())
