"""A worker that asks a scripted server, to be killed: python -m tests.worker.wire_child DSN N PORT.

N is the number of the wire format in ``tests.providers.wires.WIRES``.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import cast

from ekiden.worker.worker import Worker
from tests.providers.fake_server import FakeServer
from tests.providers.wires import WIRES
from tests.worker.streaming import says


async def main(dsn: str, number: int, port: int) -> None:
    origin = f"http://127.0.0.1:{port}"
    there = cast("FakeServer", SimpleNamespace(origin=origin, url=f"{origin}/v1"))
    await Worker(lambda: dsn, [says()], provider=WIRES[number].provider(there)).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
