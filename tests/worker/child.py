"""A worker in a process of its own, to be killed: python -m tests.worker.child DSN."""

from __future__ import annotations

import asyncio
import signal
import sys

from ekiden import Context, Flow, Phase
from ekiden.flows.registry import CompiledFlow
from ekiden.worker.worker import Worker, WorkerOptions
from tests.worker.relay import Count


class Early(Phase):
    """Two quick steps"""

    async def think(self, ctx: Context) -> int:
        return 1

    async def integrate(self, ctx: Context, plan: int) -> int:
        return plan + 1


class Slow(Phase):
    """A quick step and one that outlives its first worker"""

    async def think(self, ctx: Context) -> int:
        return int(ctx.output(Early)) + 1

    async def integrate(self, ctx: Context, plan: int) -> int:
        if ctx.attempt == 1:
            await asyncio.sleep(3600)
        return plan + 1


def slow() -> CompiledFlow:
    return CompiledFlow(Flow("slow", input=Count, phases=[Early, Slow]))


async def main(dsn: str) -> None:
    worker = Worker(lambda: dsn, [slow()], options=WorkerOptions(drain=0.2))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
