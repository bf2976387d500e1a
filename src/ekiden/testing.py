"""What a flow author needs to test steps without a database, a worker or a model.

    ctx = FakeContext(Order(text="a relay of runners"), answers=[Plan(words=["relay"])])
    plan = asyncio.run(Measure().think(ctx))

Steps are plain coroutine functions: what the engine would give them is given by hand, and what they
asked for is looked at afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ekiden.core.flow import Context, Phase
from ekiden.errors import AnswerInvalid
from ekiden.search.protocol import Source

__all__ = ["FakeContext", "FakeFeedback", "Source"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FakeFeedback:
    """What a person said when the phase was sent back."""

    note: str
    previous: Any = None


class FakeContext(Context):
    """A ``ctx`` for tests, see ``ekiden.Context``.

    Args:
        input: the session's input, an instance of the flow's input model.
        answers: what ``ask`` returns, in turn; an exception among them is raised.
        sources: what ``search`` returns, whatever the query.
        outputs: outputs of earlier phases, by their class.
        attempt: which attempt this is, from 1.
        feedback: what a person wants to be different.
        variables: what a person gave this run of the phase.

    Attributes:
        asked: the prompts so far.
        searched: the queries so far.
    """

    def __init__(
        self,
        input: Any = None,  # noqa: A002 - its name in every ctx
        *,
        answers: Iterable[Any] = (),
        sources: Sequence[Source] = (),
        outputs: Mapping[type[Phase], Any] | None = None,
        attempt: int = 1,
        feedback: FakeFeedback | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self.asked: list[str] = []
        self.searched: list[str] = []
        self._input = input
        self._answers = iter(answers)
        self._sources = list(sources)
        self._outputs = dict(outputs or {})
        self._attempt = attempt
        self._feedback = feedback
        self._variables = dict(variables or {})

    @property
    def session_id(self) -> str:
        """A session that is none."""
        return "00000000-0000-7000-8000-000000000000"

    @property
    def input(self) -> Any:
        """The session's input."""
        return self._input

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._attempt

    @property
    def feedback(self) -> FakeFeedback | None:
        """What a person wants to be different this time."""
        return self._feedback

    @property
    def variables(self) -> dict[str, Any]:
        """What a person gave this run of the phase."""
        return dict(self._variables)

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
        """Return the next answer; one that ``check`` complains about takes a further one.

        Raises:
            AnswerInvalid: ``check`` complained about the last repair as well.
            AssertionError: there is no answer left, or it is not an ``answer``.
        """
        del system, max_tokens, temperature
        self.asked.append(prompt)
        value = self._next(answer, prompt)
        if check is None:
            return value
        while (complaint := check(value)) is not None:
            if repairs <= 0:
                raise AnswerInvalid(complaint)
            repairs -= 1
            value = self._next(answer, prompt)
        return value

    def _next(self, answer: type[T], prompt: str) -> T:
        try:
            value = next(self._answers)
        except StopIteration:
            raise AssertionError(
                f"The step asks once more than there are answers: {prompt}"
            ) from None
        if isinstance(value, BaseException):
            raise value
        if not isinstance(value, answer):
            raise AssertionError(  # noqa: TRY004 - a test is wrong, or the step is
                f"The step asks for {answer.__name__}, and the next answer is {value!r}."
            )
        return value

    async def search(self, query: str, *, limit: int = 5) -> Sequence[Source]:
        """Return the first sources."""
        self.searched.append(query)
        return self._sources[:limit]

    def output(self, phase: type[Phase]) -> Any:
        """Return the output of an earlier phase.

        Raises:
            AssertionError: none was given for it.
        """
        if phase not in self._outputs:
            raise AssertionError(
                f"The step reads the output of {phase.__name__}: give outputs={{…}}."
            )
        return self._outputs[phase]
