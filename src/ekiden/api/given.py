"""What callers send, as OpenAPI shows it. camelCase outside."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from ekiden.api.limits import INT64_MAX
from ekiden.core.model import Options

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


class OptionsGiven(Given):
    """How a session runs; what is left out comes from the settings."""

    auto_progress_steps: bool | None = Field(
        None, description="false: each step waits for process-async"
    )
    auto_progress_phases: bool | None = Field(
        None, description="true: no gate between phases, nobody looks"
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

    def over(self, default: Options) -> Options:
        """Return the options with ``default`` where nothing was given."""
        return Options(
            auto_steps=_given(self.auto_progress_steps, default.auto_steps),
            auto_phases=_given(self.auto_progress_phases, default.auto_phases),
            max_retries=_given(self.max_retries, default.max_retries),
            retry_delay=_given(_milliseconds(self.retry_delay), default.retry_delay),
            timeout=_given(_milliseconds(self.worker_timeout), default.timeout),
        )


class Creation(Given):
    """A new session. The input's fields may also stand at the top level, without ``input``."""

    input: dict[str, Any] = Field(description="what the flow's inputSchema asks for")
    title: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, description="what people see; else it is taken from the input"
    )
    start: bool = Field(False, description="start the first step at once, without process-async")
    options: OptionsGiven | None = None


Actor = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Decision(Given):
    """Who decides, and why."""

    actor: Actor = Field("api", description="for the record; the key is what is checked")
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class Act(Given):
    """Who does it."""

    actor: Actor = Field("api", description="for the record; the key is what is checked")


class Delivery(Given):
    """The result of a running task, from outside."""

    task_id: Annotated[int, Field(ge=1, le=INT64_MAX)]
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1, description="the token of the attempt")]
    result: Any = Field(description="what the step returns; a worker checks it")
