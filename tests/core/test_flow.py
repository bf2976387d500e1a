"""What a flow must be before it may run, and what its author is told when it is not."""

from __future__ import annotations

import re
from collections.abc import Callable

import pydantic
import pytest
from pydantic import BaseModel

from ekiden.core.flow import MAX_PHASES, Flow, Phase
from ekiden.core.model import StepKind
from ekiden.errors import FlowError


class Theme(BaseModel):
    theme: str


class Good(Phase):
    """Collect trends.

    The rest of the docstring is for its author.
    """

    async def think(self, ctx) -> list[str]: ...

    def each(self, plan: list[str]) -> list[str]:
        return plan

    async def execute(self, ctx, query: str) -> int: ...

    async def integrate(self, ctx, plan: list[str], found: list[int]) -> Theme: ...


class Short(Phase):
    title = "Just think"
    titles = {"ja": "考える"}  # noqa: RUF012 - as an author writes it

    async def think(self, ctx) -> str: ...

    async def integrate(self, ctx, plan: str) -> str: ...


def phase(**methods: object) -> type[Phase]:
    """Make a phase called Bad: the good short one, changed. None takes a method away."""
    base = {"think": Short.think, "integrate": Short.integrate} | methods
    return type("Bad", (Phase,), {name: m for name, m in base.items() if m is not None})


def refused(*phases: type, name: str = "viral", given: object = Theme) -> str:
    with pytest.raises(FlowError) as caught:
        Flow(name, input=given, phases=phases)
    return caught.value.message


def test_a_phase_is_read_from_its_methods_and_annotations():
    spec = Flow("viral", input=Theme, phases=[Good]).phase(1)
    assert (spec.number, spec.name, spec.title, spec.titles) == (1, "good", "Collect trends", {})
    assert spec.kinds == (StepKind.THINK, StepKind.EXECUTE, StepKind.INTEGRATE)
    assert [s.returns for s in spec.steps.values()] == [list[str], int, Theme]
    assert spec.steps[StepKind.EXECUTE].takes is str
    assert spec.each is not None
    assert spec.each(["a"]) == ["a"]


def test_a_phase_without_execute_goes_from_think_to_integrate():
    flow = Flow("viral", input=Theme, phases=[Good, Short])
    spec = flow.phase(2)
    assert spec.kinds == (StepKind.THINK, StepKind.INTEGRATE)
    assert (spec.title, spec.titles, spec.each) == ("Just think", {"ja": "考える"}, None)
    assert flow.number_of(Short) == 2


def test_execute_without_each_takes_the_plan():
    async def execute(self, ctx, plan) -> int: ...

    async def integrate(self, ctx, plan, found) -> int: ...

    spec = Flow("one", input=Theme, phases=[phase(execute=execute, integrate=integrate)]).phase(1)
    assert spec.kinds == (StepKind.THINK, StepKind.EXECUTE, StepKind.INTEGRATE)
    assert spec.steps[StepKind.EXECUTE].takes is None


def test_an_extra_argument_with_a_default_is_the_authors_own_business():
    async def think(self, ctx, temperature: float = 0.1) -> str: ...

    assert Flow("one", input=Theme, phases=[phase(think=think)]).phase(1).kinds[0] == "THINK"


def test_a_phase_without_a_docstring_is_titled_by_its_name():
    class Untitled(Short):
        title = ""

    Untitled.__doc__ = None
    assert Flow("one", input=Theme, phases=[Untitled]).phase(1).title == "Untitled"


@pytest.mark.parametrize("name", ["", "Viral", "1st", "a b", "a/b", "é", "a" * 64, "viral\n"])
def test_a_name_that_would_not_fit_in_a_url_is_refused(name: str):
    assert refused(Short, name=name) == (
        f"flow {name!r}: a name is lower-case letters, digits, '-' or '_'"
    )


@pytest.mark.parametrize("given", [dict, Theme(theme="x"), "Theme", None])
def test_an_input_that_is_no_model_class_is_refused(given: object):
    assert refused(Short, given=given).startswith(
        "flow 'viral': input must be a pydantic model class, got "
    )


@pytest.mark.parametrize("count", [0, MAX_PHASES + 1])
def test_a_flow_has_one_to_thirty_two_phases(count: int):
    many = [type(f"P{n}", (Short,), {}) for n in range(count)]
    assert refused(*many) == f"flow 'viral': needs 1 to 32 phases, got {count}"


def test_thirty_two_phases_are_not_too_many():
    many = [type(f"P{n}", (Short,), {}) for n in range(MAX_PHASES)]
    assert len(Flow("viral", input=Theme, phases=many).phases) == 32


def test_the_same_phase_twice_is_refused():
    assert refused(Short, Good, Short) == "flow 'viral': the same phase class appears twice"


async def _takes_nothing(self) -> str: ...


async def _takes_too_much(self, ctx, plan, found, more) -> str: ...


async def _unannotated(self, ctx): ...


async def _unknown_annotation(self, ctx) -> Nowhere: ...  # noqa: F821


async def _unknown_in_a_module(self, ctx) -> pydantic.NoSuchThing: ...


def _sync(self, ctx) -> str: ...


async def _execute(self, ctx, plan) -> int: ...


async def _execute_item(self, ctx, item: str) -> int: ...


async def _execute_unannotated_item(self, ctx, item) -> int: ...


def _each(self, plan) -> list[str]: ...


async def _async_each(self, plan) -> list[str]: ...


async def _takes_found(self, ctx, plan, found) -> str: ...


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"think": None}, "think() is missing"),
        ({"integrate": None}, "integrate() is missing"),
        ({"think": _sync}, "think() must be 'async def'"),
        ({"integrate": _sync}, "integrate() must be 'async def'"),
        ({"execute": _sync}, "execute() must be 'async def'"),
        ({"think": _takes_nothing}, "think() takes (self, ctx)"),
        ({"think": _takes_too_much}, "think() takes (self, ctx)"),
        ({"integrate": _takes_found}, "integrate() takes (self, ctx, plan)"),
        ({"execute": _execute}, "integrate() takes (self, ctx, plan, found)"),
        ({"execute": _takes_nothing}, "execute() takes (self, ctx, plan)"),
        ({"execute": _takes_nothing, "each": _each}, "execute() takes (self, ctx, item)"),
        (
            {"think": _unannotated},
            "think() needs a return annotation: it is the stored schema",
        ),
        ({"think": _unknown_annotation}, "the annotation 'Nowhere' cannot be found"),
        ({"think": _unknown_in_a_module}, "the annotation 'NoSuchThing' cannot be found"),
        ({"each": _each}, "each() fans out execute(), but there is no execute()"),
        (
            {"each": _async_each, "execute": _execute_item},
            "each() must be a plain function: it only splits the plan",
        ),
        (
            {"each": _each, "execute": _execute_unannotated_item, "integrate": _takes_found},
            "annotate the item that execute() takes",
        ),
    ],
)
def test_a_wrong_phase_is_named_with_what_is_wrong_with_it(
    methods: dict[str, Callable[..., object]], message: str
):
    assert refused(Short, phase(**methods)) == f"flow 'viral', phase 2 (Bad): {message}"


@pytest.mark.parametrize("given", [int, "Trends", Short()])
def test_what_is_no_phase_class_is_refused(given: object):
    assert re.fullmatch(
        r"flow 'viral', phase 1 \(.*\): a phase is a subclass of ekiden.Phase", refused(given)
    )


def test_a_phase_that_cannot_be_made_without_arguments_is_named():
    def init(self, key):
        self.key = key

    assert refused(phase(__init__=init)).startswith(
        "flow 'viral', phase 1 (Bad): a phase is made without arguments: "
    )


def test_asking_for_a_phase_of_another_flow_names_both():
    flow = Flow("viral", input=Theme, phases=[Short])
    with pytest.raises(FlowError, match=r"flow 'viral' has no phase Good"):
        flow.number_of(Good)
