"""The flow that the fault suite runs: ``--flow chaos.flows:chaos``.

Three phases, the second without EXECUTE. Each step asks the model at least once, each question
names session and place, and what comes out depends on every answer: one answer lost, doubled or
mixed up between sessions, and the output differs from what ``expected`` computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter

from chaos import answers
from ekiden import Context, Draft, Flow, Phase

T = TypeVar("T")

FAN_OUT = 3


class Given(BaseModel):
    key: str = Field(min_length=1, max_length=80)  # unique to the session


class Plan(BaseModel):
    topic: str = Field(max_length=60)
    weights: list[int] = Field(min_length=FAN_OUT, max_length=FAN_OUT)


class Item(BaseModel):
    topic: str
    weight: int
    number: int


class Finding(BaseModel):
    score: int = Field(ge=0, le=1000)
    note: str = Field(max_length=60)


class Report(BaseModel):
    total: int
    text: str


def prompt(ctx: Any, place: str, text: object) -> str:
    """Return a question that nobody else asks: ``place`` is phase/step/item/call."""
    return f"[key {ctx.input.key}] [place {place}] {text}"


async def tell(ctx: Any, question: str) -> str:
    """Ask for a plain text and take only a whole one."""
    return await ctx.ask(
        question, str, check=lambda text: None if answers.is_signed(text) else "it is damaged"
    )


async def find(ctx: Any, phase: int, item: Item) -> Finding:
    """Ask twice, the second time about the first answer."""
    first = await ctx.ask(prompt(ctx, f"{phase}/E/{item.number}/1", item.topic), Finding)
    second = await ctx.ask(prompt(ctx, f"{phase}/E/{item.number}/2", first.note), Finding)
    return Finding(score=(first.score * 7 + second.score * item.weight) % 1000, note=second.note)


def split(plan: Plan) -> list[Item]:
    """One item a weight."""
    return [Item(topic=plan.topic, weight=w, number=n) for n, w in enumerate(plan.weights)]


class Scout(Phase):
    """Scout the course"""

    async def think(self, ctx: Context) -> Plan:
        return await ctx.ask(prompt(ctx, "1/T/0/1", "plan"), Plan)

    def each(self, plan: Plan) -> list[Item]:
        return split(plan)

    async def execute(self, ctx: Context, item: Item) -> Finding:
        return await find(ctx, 1, item)

    async def integrate(self, ctx: Context, plan: Plan, found: list[Finding]) -> Report:
        notes = [one.note for one in found]
        text = await tell(ctx, prompt(ctx, "1/I/0/1", notes))
        return Report(total=sum(f.score for f in found), text=text)


class Weigh(Phase):
    """Weigh what was found"""

    async def think(self, ctx: Context) -> Finding:
        report = ctx.output(Scout)
        return await ctx.ask(prompt(ctx, "2/T/0/1", [report.total, report.text]), Finding)

    async def integrate(self, ctx: Context, plan: Finding) -> Report:
        text = await tell(ctx, prompt(ctx, "2/I/0/1", plan.note))
        return Report(total=plan.score, text=text)


class Run(Phase):
    """Run"""

    async def think(self, ctx: Context) -> Plan:
        before = [ctx.output(Scout).total, ctx.output(Weigh).text]
        return await ctx.ask(prompt(ctx, "3/T/0/1", before), Plan)

    def each(self, plan: Plan) -> list[Item]:
        return split(plan)

    async def execute(self, ctx: Context, item: Item) -> Finding:
        return await find(ctx, 3, item)

    async def integrate(self, ctx: Context, plan: Plan, found: list[Finding]) -> Report:
        text = await tell(ctx, prompt(ctx, "3/I/0/1", [one.note for one in found]))
        return Report(total=sum(f.score for f in found) + ctx.output(Weigh).total, text=text)


chaos = Flow(
    "chaos",
    title="Chaos",
    input=Given,
    phases=[Scout, Weigh, Run],
    drafts=lambda output: [Draft(title="The run", body=output(Run).model_dump())],
)

PHASES = 3
PLACES = tuple(  # every place a task can be at
    (spec.number, str(kind)) for spec in chaos.phases for kind in spec.kinds
)
TASKS = sum(FAN_OUT if step == "EXECUTE" else 1 for _, step in PLACES)  # of one session


class _Recompute:
    """A context that answers as the provider does, without one."""

    def __init__(self, given: Given, seed: int, outputs: dict[type[Phase], Any]) -> None:
        self.input = given
        self._seed = seed
        self._outputs = outputs

    async def ask(
        self, question: str, kind: type[T], *, check: Callable[[T], str | None] | None = None
    ) -> T:
        if kind is str:
            return answers.answer(self._seed, question, None)  # type: ignore[return-value]
        adapter = TypeAdapter(kind)
        return adapter.validate_json(answers.answer(self._seed, question, adapter.json_schema()))

    def output(self, phase: type[Phase]) -> Any:
        return self._outputs[phase]


async def expected(key: str, seed: int) -> dict[int, dict[str, Any]]:
    """Return what each phase must put out, by its number, for a session with this key."""
    outputs: dict[type[Phase], Any] = {}
    for spec in chaos.phases:
        ctx = _Recompute(Given(key=key), seed, outputs)
        phase: Any = spec.definition()
        plan = await phase.think(ctx)
        if spec.each is None:
            outputs[spec.definition] = await phase.integrate(ctx, plan)
        else:
            found = [await phase.execute(ctx, item) for item in phase.each(plan)]
            outputs[spec.definition] = await phase.integrate(ctx, plan, found)
    return {spec.number: outputs[spec.definition].model_dump() for spec in chaos.phases}
