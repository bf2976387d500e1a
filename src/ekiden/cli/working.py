"""What ``ekiden worker`` does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from ekiden import telemetry, tracing
from ekiden.cli import exits
from ekiden.cli.child import tell_ready, tie_to_supervisor
from ekiden.cli.compose import Database, build_worker, open_parts, open_store, run_async
from ekiden.config import Settings, load_settings
from ekiden.errors import DatabaseUnreachable
from ekiden.flows.registry import CompiledFlow, load_flows

_MAX_PAUSE = 15.0  # seconds between tries to reach the database


def work(references: Sequence[str]) -> int:
    """Work until SIGTERM or Ctrl-C; then let running steps end."""
    tie_to_supervisor()
    settings = load_settings()
    telemetry.set_up_logging()
    tracing.set_up()
    flows = load_flows(references)
    with Database(settings) as database:
        run_async(_work(settings, database, flows))
    return exits.COMPLETED


async def _work(settings: Settings, database: Database, flows: Sequence[CompiledFlow]) -> None:
    stopping = _signals()
    pause = 0.5
    while not stopping.is_set():
        try:
            await _work_once(settings, database, flows, stopping)
            return
        except DatabaseUnreachable as error:
            telemetry.emit("database_lost", error=error.message, next_try_s=round(pause, 1))
        try:
            async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311 - jitter
                await stopping.wait()
        except TimeoutError:
            pause = min(pause * 2, _MAX_PAUSE)


async def _work_once(
    settings: Settings,
    database: Database,
    flows: Sequence[CompiledFlow],
    stopping: asyncio.Event,
) -> None:
    async with AsyncExitStack() as stack:
        pool, _ = await stack.enter_async_context(open_store(database))
        parts = await stack.enter_async_context(open_parts(settings, pool, database.dsn()))
        worker = build_worker(settings, database, flows, parts)
        running = asyncio.create_task(worker.run(), name="worker")
        ready = asyncio.create_task(worker.ready.wait(), name="ready")
        asked = asyncio.create_task(stopping.wait(), name="asked")
        try:
            await asyncio.wait({running, ready, asked}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                tell_ready()
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            worker.stop()
            ready.cancel()
            asked.cancel()
            await asyncio.gather(ready, asked, return_exceptions=True)
            await running


def _signals() -> asyncio.Event:
    """Return an event that the first signal sets; the second ends the process."""
    stopping = asyncio.Event()

    def hear(number: int) -> None:
        if stopping.is_set():
            sys.stderr.flush()
            os._exit(128 + number)  # what it held is rescued at once
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear, number)
    return stopping
