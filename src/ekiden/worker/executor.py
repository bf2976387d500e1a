"""One attempt, as a list of named steps: resolve, run, take the result, decide what follows."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple

from ekiden.core.gates import GateMode, mode_of
from ekiden.core.machine import SessionEvent, Transition, decide
from ekiden.core.model import ClaimedTask, Error, StepKind
from ekiden.errors import CannotHeal, ResultInvalid, StepError, StepTimeout
from ekiden.flows.registry import Codec, CompiledFlow, CompiledPhase, CompiledStep
from ekiden.providers.models_by_place import Models
from ekiden.providers.protocol import storable
from ekiden.redaction import redact
from ekiden.search.protocol import SearchEngine
from ekiden.store.tasks import Completion
from ekiden.worker.context import StepContext
from ekiden.worker.ledger_writer import LedgerWriter
from ekiden.worker.leg import Leg
from ekiden.worker.within import TimeIsUp, Within

# Mistakes in a flow's code. No retry heals them; everything else may have been bad luck.
_MISTAKES = (TypeError, AttributeError, NameError, ImportError, NotImplementedError)

_LONGEST_MESSAGE = 4000  # characters; some errors quote all that they were given
_LONGEST_RESULT = 128_000_000  # characters, each up to four bytes
_BODY = Codec(dict[str, Any], "draft body")
_SOURCES = Codec(list[dict[str, Any]], "draft sources")


class Finished(NamedTuple):
    """A finished attempt: what to commit, and the leg that what follows it runs on."""

    completion: Completion
    leg: Leg


class Executor:
    """Runs attempts. Knows nothing of claims, leases and commits."""

    def __init__(
        self, *, models: Models, search: SearchEngine | None, ledger: LedgerWriter
    ) -> None:
        self._models = models
        self._search = search
        self._ledger = ledger
        self._transitions: dict[tuple[int, int, str, bool, bool, frozenset[int]], Transition] = {}

    async def run(self, task: ClaimedTask, leg: Leg) -> Finished:
        """Run one attempt to its completion.

        Raises:
            StepError: it failed; the error says whether a retry can help.
            Exception: so did the flow's own code.
        """
        step = self._resolve(task, leg)
        context = self._context(task, leg)
        if task.delivered is not None:
            result = step.result.encode(step.result.decode(task.delivered))
        else:
            result = await self._perform(step, context, task, leg)
        items = self._fan_out(task, leg, result)
        complaint, gate = self._gate(task, leg, result)
        transition = self._follows(task, leg, items, gate=gate)
        following = leg.after(task, result, transition)
        completion = _completion(task, leg, result, transition, items=items, reads=context.reads)
        completion.complaint = complaint
        if transition.event is SessionEvent.FINISH and task.phase == len(leg.flow.phases):
            outputs = {**leg.outputs, task.phase: result}
            completion.drafts = _drafts(leg.flow, outputs, context.reads)
            completion.reads = _reads(context.reads)
        _check_size(completion)
        return Finished(completion, following)

    def _resolve(self, task: ClaimedTask, leg: Leg) -> CompiledStep:
        return leg.flow.phase(task.phase).steps[task.step]

    def _context(self, task: ClaimedTask, leg: Leg) -> StepContext:
        return StepContext(task, leg, models=self._models, search=self._search, ledger=self._ledger)

    async def _perform(
        self, step: CompiledStep, context: StepContext, task: ClaimedTask, leg: Leg
    ) -> str:
        limit = leg.options.timeout.total_seconds()
        until = monotonic() + limit
        try:
            return step.result.encode(await Within(limit, step.run(context, *leg.arguments(task))))
        except TimeIsUp:
            raise StepTimeout(
                f"Phase {task.phase} {task.step} took longer than {limit:g} s (WORKER_TIMEOUT)."
            ) from None
        except asyncio.CancelledError:
            until = 0.0  # whoever stops a step stops its calls
            raise
        finally:
            if context.end():  # calls that the step does not wait for, as after a gather
                await context.rest(until - monotonic())

    def _fan_out(self, task: ClaimedTask, leg: Leg, result: str) -> list[str] | None:
        """Return the items that EXECUTE will run on, when this THINK is followed by a fan-out."""
        phase = leg.flow.phase(task.phase)
        if task.step != StepKind.THINK or phase.each is None:
            return None
        plan = phase.steps[StepKind.THINK].result.decode(result)
        found = phase.each(plan)
        if not isinstance(found, Sequence) or isinstance(found, str | bytes):
            raise CannotHeal(
                f"phase {task.phase}: each() must return a list, not {type(found).__name__}"
            )
        if len(found) > leg.flow.flow.max_items:
            raise ResultInvalid(
                f"phase {task.phase}: each() made {len(found)} items, "
                f"{leg.flow.flow.max_items} are allowed"
            )
        codec = phase.steps[StepKind.EXECUTE].item
        assert codec is not None  # Flow() checked it
        return [codec.encode(item) for item in found]

    def _gate(self, task: ClaimedTask, leg: Leg, result: str) -> tuple[str | None, bool]:
        """Return what the phase's check complains of, and whether a person must look."""
        phase = leg.flow.phase(task.phase)
        if task.step != phase.kinds[-1]:
            return None, False
        mode = mode_of(self._policy(phase, leg), auto_phases=leg.options.auto_phases)
        if mode is not GateMode.CHECK:
            return None, mode is GateMode.MANUAL
        check = phase.spec.gate.check
        if check is None:  # a session asks for one where the flow has none: better a person
            return None, True
        complaint = check(phase.output.decode(result))
        return complaint, complaint is not None

    def _policy(self, phase: CompiledPhase, leg: Leg) -> dict[str, Any]:
        over = leg.options.gates.get(phase.number)
        return phase.policy if over is None else {**phase.policy, **over}

    def _follows(
        self, task: ClaimedTask, leg: Leg, items: list[str] | None, *, gate: bool
    ) -> Transition:
        # With nothing to execute, EXECUTE counts as closed.
        step = StepKind.EXECUTE if items == [] else task.step
        options = leg.options
        key = (id(leg.flow), task.phase, step, options.auto_steps, gate, leg.kept)
        if (known := self._transitions.get(key)) is None:
            step = StepKind(step)
            known = self._transitions[key] = decide(
                leg.flow.kinds,
                len(leg.flow.phases),
                phase=task.phase,
                step=step,
                auto_steps=options.auto_steps,
                gate=gate,
                kept=leg.kept,
            )
        return known


def _completion(
    task: ClaimedTask,
    leg: Leg,
    result: str,
    transition: Transition,
    *,
    items: list[str] | None,
    reads: set[int],
) -> Completion:
    advances = transition.event is SessionEvent.ADVANCE
    return Completion(
        task=task,
        result=result,
        event=transition.event,
        next_phase=transition.phase,
        next_step=transition.step,
        new_phase=transition.new_phase,
        hold=transition.hold,
        closes_phase=task.step == leg.flow.kinds(task.phase)[-1],
        items=items or None,
        next_count=(len(items) if items else 1) if advances else 0,
        reads=_reads(reads),
    )


def _reads(reads: set[int]) -> str | None:
    return "{" + ",".join(map(str, sorted(reads))) + "}" if reads else None


def _check_size(completion: Completion) -> None:
    """Refuse what no statement can carry: PostgreSQL hangs up on 1 GB."""
    size = len(completion.result)
    if completion.items:
        size += sum(map(len, completion.items))
    for draft in completion.drafts:
        size += sum(map(len, draft))
    if size > _LONGEST_RESULT:
        raise ResultInvalid(
            f"phase {completion.task.phase} {completion.task.step}: the result with all that "
            f"follows from it has {size:,} characters, {_LONGEST_RESULT:,} are allowed"
        )


def _drafts(
    flow: CompiledFlow, outputs: dict[int, str], reads: set[int]
) -> list[tuple[str, str, str]]:
    """Let the flow make its drafts of the phases' outputs, and note in ``reads`` which it used."""
    make = flow.flow.drafts
    if make is None:
        return []

    def output(phase: type) -> object:
        number = flow.flow.number_of(phase)
        if number < len(flow.phases):
            reads.add(number)
        return flow.phase(number).output.decode(outputs[number])

    return [
        (storable(draft.title), _BODY.encode(draft.body), _SOURCES.encode(list(draft.sources)))
        for draft in make(output)
    ]


def describe(error: BaseException) -> Error:
    """Say what went wrong, for people and for developers."""
    if isinstance(error, StepError):
        said = redact(error.message[:_LONGEST_MESSAGE])
        return Error(kind=type(error).__name__, message=said, retryable=error.retryable)
    return Error(
        kind=type(error).__name__,
        message=redact(f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]),
        retryable=not isinstance(error, _MISTAKES),
        detail=redact("".join(traceback.format_exception(error))[-8000:]),
    )
