"""What a worker carries between the steps of one session, so that a hop needs no query.

Everything is the JSON that is stored. A step gets its own decoded copy each time, so a step that
runs on in memory sees exactly what it would see after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ekiden.core.machine import Transition
from ekiden.core.model import ClaimedTask, Feedback, Options, SessionData, StepKind
from ekiden.flows.registry import CompiledFlow


@dataclass(frozen=True, slots=True)
class Run:
    """What people gave one run of a phase."""

    feedback: Feedback | None = None
    model: str | None = None  # "provider:model"
    variables: dict[str, Any] = field(default_factory=dict)


NO_RUN = Run()


@dataclass(slots=True)
class Leg:
    """One session as far as its current phase needs it. Shared by siblings, replaced on a hop."""

    flow: CompiledFlow
    options: Options
    input: str
    phase: int
    generation: int
    outputs: dict[int, str] = field(default_factory=dict)
    plan: str | None = None
    found: list[str] | None = None  # None: not all of it is here, ask the database
    kept: frozenset[int] = frozenset()  # later phases whose output still holds
    run: Run = NO_RUN  # what people gave this run of the phase; mostly nothing

    @classmethod
    def of(cls, flow: CompiledFlow, data: SessionData) -> Leg:
        """Make the leg of a session as the database has it."""
        return cls(
            flow=flow,
            options=data.options,
            input=data.input,
            phase=data.phase,
            generation=data.generation,
            outputs=data.outputs,
            plan=data.plan,
            found=data.found,
            kept=data.kept,
            run=Run(data.feedback, data.model, data.variables),
        )

    def wanted_model(self, task: ClaimedTask) -> str | None:
        """Return the "provider:model" that people chose for this task; None leaves it to settings.

        The nearest choice wins: of this run of the phase, of the session for the step, for the
        phase, for all of it.
        """
        if self.run.model is not None:
            return self.run.model
        chosen = self.options.models
        places = (f"{task.phase}.{task.step}", f"{task.phase}", "")
        return next((chosen[p] for p in places if p in chosen), None) if chosen else None

    def serves(self, task: ClaimedTask) -> bool:
        """Whether this leg holds all that the task needs."""
        if task.phase != self.phase or task.generation != self.generation:
            return False
        if task.step == StepKind.THINK:
            return True
        if self.plan is None:
            return False
        return task.step == StepKind.EXECUTE or self.found is not None

    def after(self, task: ClaimedTask, result: str, transition: Transition) -> Leg:
        """Return the leg of what follows this task's completion."""
        following = Leg(
            self.flow, self.options, self.input, self.phase, self.generation, self.outputs,
            self.plan, self.found, self.kept, self.run,
        )  # fmt: skip
        if transition.new_phase:
            # Copied: siblings' contexts may still read the old one.
            following.outputs = {**self.outputs, task.phase: result}
            following.phase = transition.phase
            following.plan = None
            following.found = None
            following.run = NO_RUN
        elif task.step == StepKind.THINK:
            following.plan = result
            following.found = [] if transition.step == StepKind.INTEGRATE else None
        elif task.step == StepKind.EXECUTE:
            fans_out = self.flow.phase(task.phase).each is not None
            following.found = None if fans_out else [result]
        return following

    def arguments(self, task: ClaimedTask) -> list[Any]:
        """Return what the step's function takes after ``ctx``.

        Raises:
            ResultInvalid: something stored does not fit the code any more.
        """
        if task.step == StepKind.THINK:
            return []
        phase = self.flow.phase(task.phase)
        assert self.plan is not None  # serves() said so
        step = phase.steps.get(task.step)
        if task.step == StepKind.EXECUTE and step is not None and step.item is not None:
            return [step.item.decode(task.request or "null")]
        plan = phase.steps[StepKind.THINK].result.decode(self.plan)
        if task.step == StepKind.EXECUTE or StepKind.EXECUTE not in phase.steps:
            return [plan]
        codec = phase.steps[StepKind.EXECUTE].result
        found = [codec.decode(text) for text in self.found or []]
        return [plan, found if phase.each is not None else found[0]]
