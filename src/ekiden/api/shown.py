"""What callers are shown, as OpenAPI shows it: the base of all, and what every route may answer.

camelCase outside, times in UTC.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Shown(BaseModel):
    """What callers are shown."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        from_attributes=True,
    )


class FieldProblem(Shown):
    """What is wrong with one field."""

    field: str = Field(description="dotted path; empty for the body as a whole")
    message: str


class Problem(Shown):
    """RFC 9457 problem details: why a request was refused, and what to do."""

    type: str = Field(description="urn:ekiden:problem:…, stable")
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] | None = None


class Health(Shown):
    """That it is well."""

    status: str
