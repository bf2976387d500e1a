"""The time limit of a step: ``asyncio.timeout``, without a clock where nothing is waited for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from ekiden.worker.within import TimeIsUp, Within


async def answers(*waits: float, answer: object = 42) -> object:
    """Wait as often as asked, then answer, or raise the answer if it is an exception."""
    for seconds in waits:
        await asyncio.sleep(seconds)
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.mark.parametrize("waits", [(), (0,), (0, 0.01, 0)])
async def test_the_answer_and_the_error_are_the_coroutines(waits: tuple[float, ...]):
    assert await Within(5, answers(*waits)) == 42
    with pytest.raises(KeyError):
        await Within(5, answers(*waits, answer=KeyError()))
    with pytest.raises(TimeoutError):  # its own: the limit was not reached
        await Within(5, answers(*waits, answer=TimeoutError()))


async def test_what_takes_too_long_is_cancelled_and_may_clean_up():
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)  # awaits once more on its way out
            cleaned.append("up")

    with pytest.raises(TimeIsUp):
        await Within(0.02, slow())
    assert cleaned == ["up"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # the next await is not cancelled as well
    await asyncio.sleep(0)


async def test_a_coroutine_that_will_not_be_cancelled_answers():
    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return "after all"

    assert await Within(0.02, stubborn()) == "after all"  # as asyncio.timeout has it


async def test_a_cancel_from_outside_is_passed_on():
    seen = []

    async def waits() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def step() -> None:
        await Within(5, waits())

    running = asyncio.create_task(step())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == ["cancelled"]


async def test_tasks_locks_and_groups_work_inside():
    lock = asyncio.Lock()

    async def one(number: int) -> int:
        async with lock:
            await asyncio.sleep(0)
            return number

    async def many() -> list[int]:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(n)) for n in range(5)]
        return [task.result() for task in tasks] + list(await asyncio.gather(one(5), one(6)))

    assert await Within(5, many()) == list(range(7))


async def test_an_awaitable_that_is_no_coroutine_has_a_limit_as_well():
    loop = asyncio.get_running_loop()
    never, soon = loop.create_future(), loop.create_future()
    loop.call_soon(soon.set_result, 42)
    assert await Within(5, soon) == 42
    with pytest.raises(TimeIsUp):
        await Within(0.02, never)
