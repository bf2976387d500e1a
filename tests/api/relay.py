"""A flow without code, and a worker by hand: brings sessions into the states a test wants."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg

from ekiden.core.machine import decide
from ekiden.core.model import ClaimedTask, Error, StepKind
from ekiden.store.sessions import Sessions
from ekiden.store.tasks import Completion, Handoff, Tasks
from ekiden.store.workers import Workers

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "theme": {"type": "string", "minLength": 1, "maxLength": 40},
        "count": {"anyOf": [{"type": "integer", "maximum": 10}, {"type": "null"}]},
        "tone": {"$ref": "#/$defs/Tone"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
    },
    "required": ["theme"],
    "additionalProperties": False,
    "$defs": {"Tone": {"enum": ["calm", "loud"]}},
}
STEPS = (StepKind.THINK, StepKind.INTEGRATE)
PHASES = [
    {"name": n, "title": n.title(), "titles": {"ja": n}, "steps": list(STEPS), "fansOut": False}
    for n in ("first", "second")
]


class Relay:
    """The store, and a worker that does what the test says."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self.pool = pool
        self.sessions = Sessions(pool, dsn)
        self.tasks = Tasks(pool, dsn)
        self.workers = Workers(pool, dsn)
        self.flow_id = 0
        self.worker_id = 0

    async def open(self, name: str = "demo") -> None:
        """Register the flow, and a worker that knows it."""
        self.flow_id = await self.workers.register_flow(
            name=name, version="v1", title="Demo flow", phases=PHASES, input_schema=SCHEMA
        )
        self.worker_id = await self.workers.register(
            software="0", model="none:none", flow_ids=[self.flow_id], capacity=4,
            lease=timedelta(minutes=5),
        )  # fmt: skip

    async def claim(self, session_id: str) -> ClaimedTask:
        (task,) = await self.tasks.claim(self.worker_id, [self.flow_id], 1, session_id)
        return task

    async def complete(self, task: ClaimedTask, result: str = '{"made": true}') -> None:
        """Complete a task; the next one is left in the queue."""
        follows = decide(
            lambda _phase: STEPS, len(PHASES), phase=task.phase, step=StepKind(task.step),
            auto_steps=True, gate=True,
        )  # fmt: skip
        done = Completion(
            task=task, result=result, event=follows.event, next_phase=follows.phase,
            next_step=follows.step, new_phase=follows.new_phase, hold=follows.hold,
            closes_phase=task.step == StepKind.INTEGRATE,
            next_count=int(follows.event == "advance"), room=0,
            drafts=[("A draft", '{"text": "hello"}', "[]")] if follows.event == "finish" else [],
        )  # fmt: skip
        async with self.pool.acquire() as connection:
            handed = await Handoff(connection).complete(self.worker_id, [done])  # type: ignore[arg-type]
        assert handed.accepted == {0}

    async def run_phase(self, session_id: str) -> None:
        for _step in STEPS:
            await self.complete(await self.claim(session_id))

    async def fail(self, session_id: str, message: str = "It broke.") -> None:
        task = await self.claim(session_id)
        await self.tasks.fail(task, Error(kind="StepError", message=message, retryable=False))


class SilentDoorbell:
    """A doorbell that nobody rings, for tests that do not listen."""

    listening = False

    def subscribe(self, _channel: str) -> _Silence:
        return _Silence()


class _Silence:
    async def __aenter__(self) -> _Silence:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        pass

    async def wait(self, timeout: float | None = None) -> list[str]:
        await asyncio.wait_for(asyncio.Event().wait(), timeout)
        return []
