"""Flows, workers and drafts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from ekiden.api.shown import Shown
from ekiden.core import records


class FlowShown(Shown):
    """The newest version of a flow."""

    name: str
    version: str
    title: str
    phases: list[dict[str, Any]]
    input_schema: dict[str, Any]
    has_worker: bool
    registered_at: datetime


class FlowList(Shown):
    """The flows that workers have registered."""

    flows: list[FlowShown]


class WorkerShown(Shown):
    """One worker."""

    id: int
    host: str
    pid: int
    state: str
    busy: int
    capacity: int
    started_at: datetime
    seen_at: datetime
    model: str | None
    software: str


class WorkerList(Shown):
    """The workers present, and those that left within a day."""

    workers: list[WorkerShown]


class DraftShown(Shown):
    """One draft of a completed session."""

    id: int
    session_id: str
    number: int
    title: str
    body: dict[str, Any]
    sources: list[Any]
    created_at: datetime


class DraftList(Shown):
    """Drafts."""

    drafts: list[DraftShown]

    @classmethod
    def of(cls, lines: Sequence[records.DraftLine]) -> Self:
        """Show drafts."""
        return cls(drafts=[DraftShown.model_validate(line) for line in lines])
