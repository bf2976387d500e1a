"""What a flow is, how its author writes one, and what is checked before it may run.

    class Trends(Phase):
        \"\"\"Collect trends\"\"\"
        async def think(self, ctx) -> SearchPlan: ...
        def each(self, plan: SearchPlan) -> list[Query]: ...
        async def execute(self, ctx, query: Query) -> Found: ...
        async def integrate(self, ctx, plan: SearchPlan, found: list[Found]) -> TrendReport: ...

    viral = Flow("viral", input=ViralInput, phases=[Trends, ...])

The return annotations are the schemas of what is stored. ``execute`` may be left out (the phase
is then THINK → INTEGRATE, and ``integrate`` is given the plan alone), and so may ``each`` (then
``execute`` runs once, on the plan, and ``integrate`` is given its one result, not a list).
Steps are plain coroutine functions of what they are given: testable without a database.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_type_hints

from ekiden.core.gates import Gate
from ekiden.core.model import StepKind
from ekiden.errors import FlowError

T = TypeVar("T")

MAX_PHASES = 32
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class Context(Protocol):
    """What a step is given besides its arguments."""

    @property
    def session_id(self) -> str:
        """The session this step belongs to."""
        ...

    @property
    def input(self) -> Any:
        """The session's input, an instance of the flow's input model."""
        ...

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        ...

    @property
    def feedback(self) -> Feedback | None:
        """What a person wants to be different this time; None when the phase was not sent back."""
        ...

    @property
    def variables(self) -> dict[str, Any]:
        """What a person gave this run of the phase, e.g. ``{"tone": "dry"}``; mostly empty."""
        ...

    async def ask(
        self,
        prompt: str,
        answer: type[T],
        *,
        system: str | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.7,
        check: Callable[[T], str | None] | None = None,
        repairs: int = 1,
    ) -> T:
        """Ask a model and return its answer as ``answer`` (a pydantic model, or ``str``).

        ``check`` looks at a well-formed answer and returns what is wrong with it, or None; a
        complaint makes it an invalid answer like any other. An invalid answer gets
        ``repairs`` further turns, in which the model is shown what is wrong; then the attempt
        fails.

        Raises:
            AnswerInvalid: the model did not keep to the schema, or ``check`` complained.
            ModelError: the model could not be asked.
        """
        ...

    async def search(self, query: str, *, limit: int = 5) -> Sequence[Any]:
        """Look something up; returns ``ekiden.search.protocol.Source`` records, best first."""
        ...

    def output(self, phase: type[Phase]) -> Any:
        """Return the approved output of an earlier phase; records the dependency."""
        ...


class Feedback(Protocol):
    """What a person said when a phase was sent back; see ``Context.feedback``."""

    @property
    def note(self) -> str:
        """What shall be different."""
        ...

    @property
    def previous(self) -> Any:
        """The output that was sent back, as INTEGRATE returned it; None when it is not known."""
        ...


class Phase:
    """One leg of the relay: THINK, perhaps EXECUTE, INTEGRATE. The docstring is its title."""

    title: ClassVar[str] = ""
    titles: ClassVar[dict[str, str]] = {}  # other languages, e.g. {"ja": "トレンドを集める"}
    gate: ClassVar[Gate] = Gate()  # who looks at the output before the next phase begins
    # What follows when items of EXECUTE fail for good: "fail" the session, "ask" a person once the
    # others are done, or go on while at least this share of them (0.8) has succeeded, else ask.
    failed_items: ClassVar[Literal["fail", "ask"] | float] = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One step of a phase, as its author annotated it."""

    kind: StepKind
    run: Callable[..., Any]  # bound to an instance of the phase
    returns: Any  # the annotation of what it returns
    takes: Any = None  # EXECUTE with ``each``: the annotation of one item


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpec:
    """A phase, validated."""

    number: int  # from 1
    name: str
    title: str
    titles: dict[str, str]
    definition: type[Phase]
    steps: dict[StepKind, StepSpec]  # in order
    each: Callable[[Any], Sequence[Any]] | None  # fan-out of EXECUTE
    gate: Gate
    failed_items: Literal["fail", "ask"] | float

    @property
    def kinds(self) -> tuple[StepKind, ...]:
        """The step kinds this phase has, in order."""
        return tuple(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Something ready to use at the end of a session."""

    title: str
    body: dict[str, Any]  # JSON values only
    sources: tuple[dict[str, Any], ...] = ()


class Flow:
    """A named sequence of phases over one input model.

    Args:
        name: lower case, used in URLs.
        input: a pydantic model.
        phases: the phases, in order; 1 to 32.
        title: what people see; the name if left out.
        drafts: makes the session's drafts from ``output(phase)``, called once when the last phase
            completes and committed with it; pure.
        max_items: the most items ``each`` may fan out to.

    Raises:
        FlowError: the definition is wrong; the message names the phase and step.
    """

    def __init__(
        self,
        name: str,
        *,
        input: type[Any],  # noqa: A002 - the word authors expect
        phases: Sequence[type[Phase]],
        title: str | None = None,
        drafts: Callable[[Callable[[type[Phase]], Any]], Sequence[Draft]] | None = None,
        max_items: int = 1000,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise FlowError(f"flow {name!r}: a name is lower-case letters, digits, '-' or '_'")
        if not inspect.isclass(input) or not hasattr(input, "model_json_schema"):
            raise FlowError(f"flow {name!r}: input must be a pydantic model class, got {input!r}")
        if not 1 <= len(phases) <= MAX_PHASES:
            raise FlowError(f"flow {name!r}: needs 1 to {MAX_PHASES} phases, got {len(phases)}")
        if len(set(phases)) != len(phases):
            raise FlowError(f"flow {name!r}: the same phase class appears twice")
        self.name = name
        self.title = title or name
        self.input = input
        self.drafts = drafts
        self.max_items = max_items
        self.phases = tuple(_read_phase(name, n, cls) for n, cls in enumerate(phases, start=1))
        self._numbers = {spec.definition: spec.number for spec in self.phases}

    def phase(self, number: int) -> PhaseSpec:
        """Return the phase with this number, from 1."""
        return self.phases[number - 1]

    def number_of(self, phase: type[Phase]) -> int:
        """Return the number of a phase class.

        Raises:
            FlowError: the flow has no such phase.
        """
        try:
            return self._numbers[phase]
        except KeyError:
            raise FlowError(f"flow {self.name!r} has no phase {phase.__name__}") from None

    def __repr__(self) -> str:
        return f"Flow({self.name!r}, {len(self.phases)} phases)"


def _read_phase(flow: str, number: int, cls: type[Phase]) -> PhaseSpec:
    where = f"flow {flow!r}, phase {number} ({getattr(cls, '__name__', cls)})"
    if not (inspect.isclass(cls) and issubclass(cls, Phase)):
        raise FlowError(f"{where}: a phase is a subclass of ekiden.Phase")
    try:
        instance = cls()
    except TypeError as error:
        raise FlowError(f"{where}: a phase is made without arguments: {error}") from error
    each = getattr(instance, "each", None)
    has_execute = hasattr(instance, "execute")
    if each is not None and not has_execute:
        raise FlowError(f"{where}: each() fans out execute(), but there is no execute()")
    if each is not None and inspect.iscoroutinefunction(each):
        raise FlowError(f"{where}: each() must be a plain function: it only splits the plan")
    arguments = {
        StepKind.THINK: ["ctx"],
        StepKind.EXECUTE: ["ctx", "item" if each else "plan"],
        StepKind.INTEGRATE: ["ctx", "plan", "found"] if has_execute else ["ctx", "plan"],
    }
    steps: dict[StepKind, StepSpec] = {}
    for kind, names in arguments.items():
        run = getattr(instance, kind.lower(), None)
        if run is None:
            if kind is StepKind.EXECUTE:
                continue
            raise FlowError(f"{where}: {kind.lower()}() is missing")
        if not inspect.iscoroutinefunction(run):
            raise FlowError(f"{where}: {kind.lower()}() must be 'async def'")
        parameters = [p for p in inspect.signature(run).parameters.values() if p.default is p.empty]
        if len(parameters) != len(names):
            raise FlowError(f"{where}: {kind.lower()}() takes (self, {', '.join(names)})")
        hints = _hints(run, where)
        if "return" not in hints:
            raise FlowError(
                f"{where}: {kind.lower()}() needs a return annotation: it is the stored schema"
            )
        takes = hints.get(parameters[1].name) if kind is StepKind.EXECUTE and each else None
        if kind is StepKind.EXECUTE and each and takes is None:
            raise FlowError(f"{where}: annotate the item that execute() takes")
        steps[kind] = StepSpec(kind=kind, run=run, returns=hints["return"], takes=takes)
    if not isinstance(cls.gate, Gate):
        raise FlowError(f"{where}: gate must be an ekiden.Gate")
    _check_failed_items(cls.failed_items, each is not None, where)
    doc = (cls.__doc__ or "").strip().splitlines()
    title = cls.title or (doc[0].rstrip(".") if doc else cls.__name__)
    return PhaseSpec(
        number=number,
        name=cls.__name__.lower(),
        title=title,
        titles=dict(cls.titles),
        definition=cls,
        steps=steps,
        each=each,
        gate=cls.gate,
        failed_items=cls.failed_items,
    )


def _check_failed_items(policy: object, fans_out: bool, where: str) -> None:
    if policy == "fail":
        return
    if not fans_out:
        raise FlowError(f"{where}: failed_items is about the items of each(), and there is none")
    share = isinstance(policy, float | int) and not isinstance(policy, bool) and 0 < policy <= 1
    if not (share or policy == "ask"):
        raise FlowError(
            f'{where}: failed_items is "fail", "ask" or a share such as 0.8, not {policy!r}'
        )


def _hints(run: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(run)
    except (NameError, AttributeError) as error:
        raise FlowError(f"{where}: the annotation {error.name!r} cannot be found") from error
