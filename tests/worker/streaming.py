"""A worker that streams half an answer and waits: python -m tests.worker.streaming DSN."""

from __future__ import annotations

import asyncio
import sys

from ekiden.flows.registry import CompiledFlow
from ekiden.providers.protocol import ModelRequest
from ekiden.worker.worker import Worker
from tests.scripted import ScriptedProvider, Streamed
from tests.worker.relay import one_step

PIECES = ("The sash ", "is handed ", "over in ", "the zone.")
ANSWER_ID = "answer-1"


def says() -> CompiledFlow:
    """A flow whose one question is answered with plain text."""

    async def ask(ctx: object) -> str:
        return str(await ctx.ask("say it", str))  # type: ignore[attr-defined]

    return one_step(ask)


def half(_request: ModelRequest) -> Streamed:
    return Streamed(pieces=PIECES[:2], then=asyncio.Event(), answer_id=ANSWER_ID)


async def main(dsn: str) -> None:
    await Worker(lambda: dsn, [says()], provider=ScriptedProvider(half)).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
