"""Ekiden with a past: a million finished tasks in its tables, and all that was kept of them."""

from __future__ import annotations

import sys
from math import ceil

import past
from peers import common
from peers.ekiden_ import PACKAGES, client, worker
from peers.ekiden_ import set_up as set_up_empty

KEEPS = "the same, beside 1,000,000 finished tasks with their attempts and events"
__all__ = ["PACKAGES", "client", "worker"]
FINISHED = 1_000_000


async def set_up(dsn: str) -> None:
    await set_up_empty(dsn)
    await past.finished(dsn, ceil(FINISHED / common.STEPS))


if __name__ == "__main__":
    common.main(sys.modules[__name__])
