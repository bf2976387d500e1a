"""Answers that come in pieces, and what of them is in the database.

python -m tests.worker.streaming DSN     a worker that streams half an answer and waits
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ekiden.core.records import PartialText
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.protocol import ModelRequest
from ekiden.worker.worker import Worker
from tests.scripted import Said, ScriptedProvider, Streamed
from tests.worker.relay import House, one_step

PIECES = ("The sash ", "is handed ", "over in ", "the zone.")
TEXT = "".join(PIECES)
ANSWER_ID = "answer-1"


def says() -> CompiledFlow:
    """A flow whose one question is answered with plain text."""

    async def ask(ctx: object) -> str:
        return str(await ctx.ask("say it", str))  # type: ignore[attr-defined]

    return one_step(ask)


def half(_request: ModelRequest) -> Streamed:
    return Streamed(pieces=PIECES[:2], then=asyncio.Event(), answer_id=ANSWER_ID)


async def until(true: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(20):
        while not (found := await true()):
            await asyncio.sleep(0.01)
    return found


async def are(one: int, other: int) -> bool:
    return one == other


async def only_task(house: House, session: str) -> int:
    return (await house.sessions.tasks(session))[0].id


async def texts(house: House, session: str) -> list[PartialText]:
    tasks = await house.sessions.tasks(session)
    return await house.sessions.partials.texts(session, tasks[0].id) if tasks else []


async def ledger(house: House) -> list[tuple[Any, ...]]:
    rows = await house.pool.fetch(
        "SELECT attempt, number, outcome, answer, input_tokens, output_tokens FROM ekiden.calls"
        " ORDER BY id"
    )
    return [tuple(row.values()) for row in rows]


def in_turn(*said: Said) -> Iterator[Said]:
    return iter(said)


async def main(dsn: str) -> None:
    await Worker(lambda: dsn, [says()], provider=ScriptedProvider(half)).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
