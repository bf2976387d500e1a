"""What callers send, as OpenAPI shows it. camelCase outside."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from ekiden.api.limits import INT64_MAX
from ekiden.core.model import Budget, Options, Review, StepKind, Verb
from ekiden.store.archive import MOST_AT_ONCE

T = TypeVar("T")


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _milliseconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(milliseconds=value)


class Given(BaseModel):
    """What callers send: known fields only, and of their very type."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", strict=True, validate_by_alias=True, frozen=True
    )


Actor = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*:.+$", max_length=200)]
PhaseNumber = Annotated[str, StringConstraints(pattern=r"^([1-9]|[12][0-9]|3[0-2])$")]
Place = Annotated[
    str, StringConstraints(pattern=r"^(([1-9]|[12][0-9]|3[0-2])(\.(THINK|EXECUTE|INTEGRATE))?)?$")
]


class BudgetGiven(Given):
    """What may be spent. Neither limit takes a budget away."""

    max_cost_usd: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = Field(
        None, description="US dollars"
    )
    max_tokens: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = Field(
        None, description="of input and output together"
    )

    @property
    def limits(self) -> bool:
        """Whether it limits anything."""
        return self.max_cost_usd is not None or self.max_tokens is not None

    def budget(self) -> Budget:
        """Return it as the engine has it; a cost as it was written, not as binary has it."""
        cost = None if self.max_cost_usd is None else Decimal(str(self.max_cost_usd))
        return Budget(max_cost_usd=cost, max_tokens=self.max_tokens)


class GateGiven(Given):
    """The policy of one gate; what is left out is the flow's."""

    mode: Literal["manual", "auto", "check"] | None = None
    approvals: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="how many different people must approve"
    )
    approvers: Annotated[list[Actor], Field(max_length=100)] | None = Field(
        None, description="who may; empty for anyone"
    )
    four_eyes: bool | None = Field(None, description="who started it may not approve")
    remind_after: Annotated[float, Field(gt=0, le=31_536_000)] | None = Field(
        None, description="s, when those who are told of gates are told again"
    )
    wait_at_most: Annotated[float, Field(gt=0, le=31_536_000)] | None = Field(
        None, description="s, when `then` happens"
    )
    then: Literal["wait", "approve", "cancel"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        many = len(set(self.approvers or ()))
        if many and (self.approvals or 1) > many:
            raise ValueError(f"asks for {self.approvals} approvals of {many} approvers")
        return self

    def policy(self) -> dict[str, Any]:
        """Return what was given, as it is stored."""
        return self.model_dump(by_alias=True, exclude_none=True)


class OptionsGiven(Given):
    """How a session runs; what is left out comes from the settings."""

    auto_progress_steps: bool | None = Field(
        None, description="false: each step waits for process-async"
    )
    auto_progress_phases: bool | None = Field(
        None,
        description="true: gates pass by themselves, except manual ones and those whose check "
        "complains",
    )
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="tries of a step after the first"
    )
    retry_delay: Annotated[int, Field(ge=0, le=3_600_000)] | None = Field(
        None, description="ms, base of the back-off"
    )
    worker_timeout: Annotated[int, Field(ge=1, le=86_400_000)] | None = Field(
        None, description="ms, the longest one attempt may take"
    )

    gates: dict[PhaseNumber, GateGiven] = Field(
        {}, description='policies over the flow\'s, by phase number, e.g. {"1": {"mode": "auto"}}'
    )
    models: dict[Place, ModelName] = Field(
        {}, description='"provider:model" by place: "" for all, "1" for a phase, "1.THINK"'
    )
    budget: BudgetGiven | None = Field(None, description="of the session as a whole")
    budgets: dict[PhaseNumber, BudgetGiven] = Field({}, description="of its phases")

    def over(self, default: Options) -> Options:
        """Return the options with ``default`` where nothing was given."""
        return Options(
            auto_steps=_given(self.auto_progress_steps, default.auto_steps),
            auto_phases=_given(self.auto_progress_phases, default.auto_phases),
            max_retries=_given(self.max_retries, default.max_retries),
            retry_delay=_given(_milliseconds(self.retry_delay), default.retry_delay),
            timeout=_given(_milliseconds(self.worker_timeout), default.timeout),
            gates={int(phase): gate.policy() for phase, gate in self.gates.items()},
            models=dict(self.models) or default.models,
            budgets={phase: b.budget() for phase, b in self._budgets() if b.limits},
        )

    def _budgets(self) -> Iterator[tuple[int, BudgetGiven]]:
        if self.budget is not None:
            yield 0, self.budget
        for phase, budget in self.budgets.items():
            yield int(phase), budget


class Creation(Given):
    """A new session. The input's fields may also stand at the top level, without ``input``."""

    input: dict[str, Any] = Field(description="what the flow's inputSchema asks for")
    title: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, description="what people see; else it is taken from the input"
    )
    start: bool = Field(False, description="start the first step at once, without process-async")
    options: OptionsGiven | None = None
    actor: Actor = Field("api", description="who starts it; for gates with four eyes")


class Decision(Given):
    """Who decides, and why."""

    actor: Actor = Field("api", description="for the record; the key is what is checked")
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class ReviewGiven(Given):
    """A decision; which fields count depends on the verb."""

    verb: Literal["approve", "edit", "reject", "rerun", "accept", "retry", "budget"]
    actor: Actor = Field("api", description="for the record, and for gates with approvers")
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = Field(
        None, description="why; to reject, what should be different"
    )
    phase: Annotated[int, Field(ge=0, le=32)] | None = Field(
        None,
        description="edit, rerun: which one, from 1, else the current; budget: 0 is the session",
    )
    step: Literal["THINK", "EXECUTE", "INTEGRATE"] = Field(
        "THINK", description="rerun: where it begins; what was before is kept"
    )
    output: Any = Field(None, description="edit: what the phase's output shall be")
    model: ModelName | None = Field(None, description="reject, rerun: who answers in this run")
    variables: Annotated[dict[str, Any], Field(max_length=50)] = Field(
        {}, description="reject, rerun: what the flow's prompts may use (ctx.variables)"
    )
    budget: BudgetGiven | None = Field(None, description="budget: the new one")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.verb == "edit" and "output" not in self.model_fields_set:
            raise ValueError("output is required to edit")
        if self.verb == "budget" and self.budget is None:
            raise ValueError("budget is required to set one")
        if self.verb != "budget" and self.phase == 0:
            raise ValueError("phase counts from 1; 0, the whole session, is for budget alone")
        return self

    def decision(self, *, key: str | None, revision: int | None) -> Review:
        """Return it as the engine takes it."""
        return Review(
            verb=Verb(self.verb),
            actor=self.actor,
            comment=self.comment,
            revision=revision,
            key=key,
            phase=self.phase,
            step=StepKind(self.step),
            output=self.output,
            model=self.model,
            variables=self.variables,
            budget=None if self.budget is None else self.budget.budget(),
        )


class Forking(Given):
    """A new session out of an old one."""

    phase: Annotated[int, Field(ge=0, le=31)] = Field(
        description="the last phase whose output is shared; 0 shares the input alone"
    )
    title: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, description="else the same"
    )
    start: bool = Field(False, description="start the first step at once")
    actor: Actor = Field("api", description="for the record")


class Act(Given):
    """Who does it."""

    actor: Actor = Field("api", description="for the record; the key is what is checked")


class Archiving(Given):
    """Which sessions to put away, or to bring back."""

    session_ids: Annotated[list[str], Field(min_length=1, max_length=MOST_AT_ONCE)]
    actor: Actor = Field("api", description="for the record; the key is what is checked")


class Delivery(Given):
    """The result of a running task, from outside."""

    task_id: Annotated[int, Field(ge=1, le=INT64_MAX)]
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1, description="the token of the attempt")]
    result: Any = Field(description="what the step returns; a worker checks it")
