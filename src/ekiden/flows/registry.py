"""Finds flows and compiles their annotations into codecs and schemas.

A worker runs compiled flows; the API only ever sees what a worker registered of them.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from importlib.metadata import entry_points
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from ekiden import telemetry
from ekiden.core.flow import Flow, PhaseSpec, StepSpec
from ekiden.core.model import StepKind
from ekiden.errors import FlowError, InputInvalid, ResultInvalid, UnknownFlow

ENTRY_POINTS = "ekiden.flows"
_LONG_NUMBER = re.compile(rb"[0-9]{4000}")  # beyond 4,300 digits neither Python nor pydantic reads


class Codec:
    """Turns one annotation's values into stored JSON and back.

    Raises:
        FlowError: the annotation has no JSON form.
    """

    def __init__(self, annotation: Any, where: str) -> None:
        self._where = where
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.schema = adapter.json_schema()
            # What the adapter's own methods call; they cost a third as much again.
            self._validator, self._serializer = adapter.validator, adapter.serializer
        except Exception as error:
            raise FlowError(
                f"{where}: {annotation!r} cannot be stored as JSON ({error}). "
                "Use a pydantic model, or plain JSON types."
            ) from error

    def encode(self, value: Any) -> str:
        """Return the JSON that is stored.

        Raises:
            ResultInvalid: the value does not fit the annotation.
        """
        try:
            checked = self._validator.validate_python(value)
            dumped = self._serializer.to_json(checked)
            # What no JSON number stands for is written as null: then look again.
            if b"null" in dumped and (lost := not_finite(self._serializer.to_python(checked))):
                raise ResultInvalid(f"{self._where}: {lost} is no number that JSON knows")
            if _LONG_NUMBER.search(dumped):
                self.decode(dumped)  # it may be longer than anyone can read again
            return dumped.decode()
        except ValidationError as error:
            raise ResultInvalid(f"{self._where}: {_first(error)}") from error
        except (PydanticSerializationError, UnicodeError) as error:
            raise ResultInvalid(f"{self._where}: the result has no JSON form: {error}") from error

    def decode(self, text: str | bytes) -> Any:
        """Return the value that stored JSON stands for.

        Raises:
            ResultInvalid: the JSON does not fit the annotation.
        """
        try:
            return self._validator.validate_json(text)
        except ValidationError as error:
            raise ResultInvalid(f"{self._where}: {_first(error)}") from error


def not_finite(value: Any) -> str | None:
    """Say where in plain data the first NaN or Infinity is, as ``path: NaN``; None without one."""
    found = _not_finite(value)
    if found is None:
        return None
    *path, number = found
    name = "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return f"{'.'.join(map(str, path))}: {name}" if path else name


def _not_finite(value: Any) -> list[Any] | None:
    match value:
        case float():
            return None if math.isfinite(value) else [value]
        case dict():
            parts: Iterable[tuple[Any, Any]] = value.items()
        case list() | tuple() | set() | frozenset():
            parts = enumerate(value)
        case _:
            return None
    for key, part in parts:
        if found := _not_finite(part):
            return [key, *found]
    return None


class CompiledStep:
    """A step with its codecs."""

    __slots__ = ("item", "kind", "result", "run")

    def __init__(self, spec: StepSpec, where: str) -> None:
        self.kind = spec.kind
        self.run: Callable[..., Any] = spec.run
        self.result = Codec(spec.returns, where)
        self.item = Codec(spec.takes, f"{where} item") if spec.takes is not None else None


class CompiledPhase:
    """A phase with its compiled steps."""

    def __init__(self, flow: str, spec: PhaseSpec) -> None:
        self.spec = spec
        self.number = spec.number
        self.kinds = spec.kinds
        self.each = spec.each
        self.policy = spec.gate.describe()
        # StepKind or the same as plain text, which is what a claimed task has.
        self.steps: dict[str, CompiledStep] = {
            kind: CompiledStep(step, f"{flow} phase {spec.number} {kind}")
            for kind, step in spec.steps.items()
        }

    @property
    def output(self) -> Codec:
        """What the phase's output is stored as: its last step's result."""
        return self.steps[self.kinds[-1]].result

    def describe(self) -> dict[str, Any]:
        """Return what the table of flows says of this phase."""
        return {
            "name": self.spec.name,
            "title": self.spec.title,
            "titles": self.spec.titles,
            "steps": [str(kind) for kind in self.kinds],
            "fansOut": self.each is not None,
            "gate": self.policy,
        }


class CompiledFlow:
    """A flow, ready to run.

    Raises:
        FlowError: an annotation cannot be stored.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.name = flow.name
        self.title = flow.title
        self.phases = [CompiledPhase(flow.name, spec) for spec in flow.phases]
        self.input = TypeAdapter(flow.input)
        self.input_schema: dict[str, Any] = flow.input.model_json_schema()
        self._kinds = {phase.number: phase.kinds for phase in self.phases}

    def kinds(self, phase: int) -> tuple[StepKind, ...]:
        """Return the step kinds of a phase."""
        return self._kinds[phase]

    def phase(self, number: int) -> CompiledPhase:
        """Return a phase by its number, from 1."""
        return self.phases[number - 1]

    def describe(self) -> list[dict[str, Any]]:
        """Return the phases as the table of flows stores them."""
        return [phase.describe() for phase in self.phases]

    @property
    def output_schemas(self) -> list[dict[str, Any]]:
        """Return the schema of each phase's output: what a person's edit is checked against."""
        return [phase.output.schema for phase in self.phases]

    @cached_property
    def version(self) -> str:
        """Return a hash of everything that decides whether stored data still fits the code."""
        shape = {
            "name": self.name,
            "input": self.input_schema,
            "phases": [
                {
                    "name": phase.spec.name,
                    "fansOut": phase.each is not None,
                    "steps": {
                        str(kind): [step.result.schema, step.item.schema if step.item else None]
                        for kind, step in phase.steps.items()
                    },
                }
                for phase in self.phases
            ],
        }
        text = orjson.dumps(shape, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()[:12]

    def check_input(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the input as it is stored, defaults filled in.

        Raises:
            InputInvalid: names each field that is wrong.
        """
        try:
            value = self.input.validate_python(data)
        except ValidationError as error:
            problems = [
                (".".join(str(part) for part in e["loc"]) or "input", e["msg"])
                for e in error.errors()
            ]
            text = "; ".join(f"{name}: {message}" for name, message in problems)
            raise InputInvalid(f"The input of {self.name} is wrong. {text}", problems) from None
        dumped: dict[str, Any] = self.input.dump_python(value, mode="json")
        return dumped


def load_flows(references: Sequence[str] = ()) -> list[CompiledFlow]:
    """Load the installed flows (entry points ``ekiden.flows``) and those given as ``module:name``.

    An installed flow that cannot be loaded is told and left out: it must not stop the others.

    Raises:
        FlowError: one that was asked for cannot be loaded; the message names it.
    """
    found: dict[str, CompiledFlow] = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            flow = _compiled(point.load, f"{point.name} = {point.value}")
        except FlowError as error:
            telemetry.emit("flow_left_out", flow=point.name, error=error.message)
            continue
        found[flow.name] = flow
    for reference in references:
        flow = _compiled(partial(_import, reference), reference)
        found[flow.name] = flow
    return list(found.values())


def find_flow(flows: Sequence[CompiledFlow], name: str) -> CompiledFlow:
    """Return the flow with this name.

    Raises:
        UnknownFlow: there is none; the message lists those there are.
    """
    for flow in flows:
        if flow.name == name:
            return flow
    names = ", ".join(sorted(f.name for f in flows)) or "none"
    raise UnknownFlow(f"There is no flow {name!r}. Flows here: {names}.")


def _compiled(load: Callable[[], Any], what: str) -> CompiledFlow:
    try:
        flow = load()
    except FlowError:
        raise
    except Exception as error:
        raise FlowError(f"flow {what} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(flow, Flow):
        raise FlowError(f"{what} is a {type(flow).__name__}, not an ekiden.Flow")
    return CompiledFlow(flow)


def _import(reference: str) -> Any:
    module, _, name = reference.partition(":")
    if not name:
        raise FlowError(f"--flow {reference!r}: write it as module:name, e.g. my_flows:research")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as with python -m: the user's own folder
    return getattr(importlib.import_module(module), name)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path + ': ' if path else ''}{first['msg']}{more}"
