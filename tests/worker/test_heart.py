"""The heart beats whatever the steps do; deaths are seen at once; nobody runs on unleased."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from ekiden.store.doorbell import LOOK_AT_EVERYTHING, Doorbell
from ekiden.store.tasks import Tasks
from ekiden.store.workers import Workers
from ekiden.worker import heart as heart_module
from tests.recovery.load import control
from tests.worker.child import slow
from tests.worker.network import between
from tests.worker.relay import QUICK, House, one_step, sums, working
from tests.worker.test_death import child, in_the_middle_of_phase_two

AUTO = replace(QUICK, auto_phases=True)
SHORT = timedelta(seconds=1)


async def until(condition, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


def leases(dsn: str, seconds: float) -> list[float]:
    """The seconds left of every worker's lease, looked at again and again; blocks."""
    seen: list[float] = []

    async def look() -> None:
        connection = await asyncpg.connect(dsn)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            left = await connection.fetchval(
                "SELECT min(extract(epoch FROM lease_until - now())) FROM ekiden.workers"
            )
            seen.append(float(left))
            await asyncio.sleep(0.05)
        await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(look()))
    thread.start()
    thread.join()
    return seen


@pytest.mark.alone
async def test_a_step_that_blocks_the_event_loop_does_not_cost_the_lease(house: House) -> None:
    seen: list[float] = []

    async def blocks(_ctx: object) -> str:
        seen.extend(leases(house.dsn, 2.5))  # the whole event loop stands still meanwhile
        return "done"

    async with working(house.dsn, one_step(blocks), lease=SHORT) as worker:
        first = worker.id
        session = await house.begin("one", AUTO)
        await house.until(session)
        assert worker.id == first
    assert min(seen) > 0
    assert await house.outcomes(session, (await house.sessions.tasks(session))[0].id) == [
        "COMPLETED"
    ]


@pytest.mark.alone
async def test_a_peer_sees_a_killed_worker_at_once_though_its_lease_is_long(house: House) -> None:
    async with child(house.dsn) as process, working(house.dsn, slow(), capacity=1) as peer:
        # The child is to run the slow step: the peer is kept out until it does.
        peer._chains.free = 0
        session = await in_the_middle_of_phase_two(house)
        peer._chains.free = 1
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        await process.wait()
        await house.until(session)
        took = time.monotonic() - killed
    (task,) = [t for t in await house.sessions.tasks(session) if t.attempt > 1]
    assert await house.outcomes(session, task.id) == ["LOST", "COMPLETED"]
    # The next beat comes after 12 s, the lease ends after 60: only the life sign is this quick.
    assert took < heart_module.BEAT / 2


async def test_a_worker_that_cannot_renew_stops_its_steps_before_its_lease_ends(
    house: House,
) -> None:
    started, stopped_with = asyncio.Event(), []

    async def hangs(ctx) -> str:
        if ctx.attempt > 1:
            return "done"
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left = await house.pool.fetchval(
                "SELECT extract(epoch FROM lease_until - now()) FROM ekiden.workers"
            )
            stopped_with.append(float(left))
            raise
        return "never"

    async with between(house.dsn) as (proxy, through):
        lease = timedelta(seconds=2)
        async with working(
            house.dsn, one_step(hangs), lease=lease, listen_dsn=lambda: through
        ) as worker:
            session = await house.begin("one", AUTO)
            await asyncio.wait_for(started.wait(), 10)
            proxy.set("cut")

            async def stopped() -> bool:
                return bool(stopped_with)

            await until(stopped)
            assert 0 < stopped_with[0] < 2
            assert worker._fenced
            proxy.set("pass")
            await house.until(session)


async def elsewhere(workers: Workers, lease: timedelta) -> tuple[int, int]:
    """A flow that no worker of a test knows, and a worker that is said to."""
    flow = await workers.register_flow(
        name="other", version="1", title="", phases=[{"steps": ["THINK"]}], input_schema={}
    )
    worker = await workers.register(
        software="0", model="none", flow_ids=[flow], capacity=1, lease=lease
    )
    return flow, worker


async def test_a_look_around_that_cannot_end_costs_no_beat_and_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heart_module, "FULL_LOOK", 0.1)
    monkeypatch.setattr(heart_module, "_LOOK", 0.2)
    lease = timedelta(seconds=2)
    workers, tasks = Workers(house.pool, house.dsn), Tasks(house.pool, house.dsn)
    beats: set[object] = set()

    async def three_leases_have_passed() -> bool:
        beats.add(await house.pool.fetchval("SELECT seen_at FROM ekiden.workers"))
        return len(beats) > 3 * 5

    async with working(house.dsn, sums(), lease=lease) as worker, control(house.dsn) as other:
        first = worker.id
        async with other.transaction():
            await other.execute("LOCK TABLE ekiden.sessions IN ACCESS EXCLUSIVE MODE")
            await until(three_leases_have_passed, 30)
        assert worker.id == first
        await house.until(await house.begin("sums", AUTO))

        flow, gone = await elsewhere(workers, lease)
        session = await house.begin("other")
        (task,) = await tasks.claim(gone, [flow], 1)
        await workers.stop(gone)

        async def rescued() -> bool:
            return await house.outcomes(session, task.id) == ["LOST"]

        await until(rescued)


async def test_what_the_dead_had_on_its_way_is_found_soon_after_a_rescue(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rescue here is too soon; the beats ask for one look at most, as all are gone by then."""
    monkeypatch.setattr(heart_module, "LATER_LOOK", 0.1)
    workers, rescue = Workers(house.pool, house.dsn), Workers.rescue
    await elsewhere(workers, timedelta(0))
    flow, gone = await elsewhere(workers, timedelta(hours=1))
    session = await house.begin("other")
    (task,) = await house.sessions.tasks(session)

    async def rescue_too_soon(self: Workers, *dead: Any, **known: Any) -> int:
        found = await rescue(self, *dead, **known)
        await Tasks(self._pool, house.dsn).claim(gone, [flow], 1)  # in the heart's thread
        await self.stop(gone)
        return found

    async def rescued() -> bool:
        return await house.outcomes(session, task.id) == ["LOST"] * 3

    monkeypatch.setattr(Workers, "rescue", rescue_too_soon)
    async with working(house.dsn, sums()):
        await until(rescued)


async def test_cancel_stops_the_call_that_runs(house: House) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def hangs(_ctx: object) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    async with working(house.dsn, one_step(hangs)):
        session = await house.begin("one", AUTO)
        await asyncio.wait_for(started.wait(), 10)
        await house.sessions.cancel(session, actor="a person")
        await asyncio.wait_for(stopped.wait(), heart_module.BEAT / 2)
    (task,) = await house.sessions.tasks(session)
    assert task.status == "CANCELLED"
    assert await house.outcomes(session, task.id) == ["CANCELLED"]


async def test_cancel_stops_nothing_of_another_session(house: House) -> None:
    started: dict[str, asyncio.Event] = {}
    go = asyncio.Event()

    async def waits(ctx) -> str:
        started[ctx.session_id].set()
        await go.wait()
        return "done"

    async with working(house.dsn, one_step(waits)) as worker:
        one, two = [await house.begin("one", AUTO, start=False) for _ in range(2)]
        for session in (one, two):
            started[session] = asyncio.Event()
            await house.sessions.start(session)
            await asyncio.wait_for(started[session].wait(), 10)
        await house.sessions.cancel(one, actor="a person")

        async def only_one_left() -> bool:
            return len(worker._chains) == 1

        await until(only_one_left)
        go.set()
        await house.until(two)
    assert [s[4] for s in await house.steps(two)] == [1, 1]


async def test_a_half_open_socket_is_noticed_and_nothing_is_missed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekiden.store.doorbell._QUIET", 0.5)
    async with (
        between(house.dsn) as (proxy, through),
        Doorbell(lambda: through) as bell,
        bell.subscribe("bell") as subscription,
    ):
        await asyncio.wait_for(bell.connected.wait(), 10)
        await subscription.wait()
        proxy.set("black-hole")
        await house.pool.execute("SELECT pg_notify('bell', 'lost')")

        async def gave_up() -> bool:
            return not bell.listening

        await until(gave_up)
        proxy.set("pass")
        assert LOOK_AT_EVERYTHING in await subscription.wait(30)
        await house.pool.execute("SELECT pg_notify('bell', 'heard')")
        assert await subscription.wait(5) == ["heard"]


async def test_an_idle_worker_asks_next_to_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every statement of the worker's backends is seen, with its beats ten times as fast.

    Ended ones are counted: while one runs, its start is first that of Bind, then that of Execute.
    """
    look = 3  # transactions at most: a connection, and what it asks
    assert 1 / heart_module.BEAT + look / heart_module.FULL_LOOK <= 0.1
    monkeypatch.setattr(heart_module, "BEAT", 1.2)
    asked: set[tuple[int, object, str]] = set()
    async with working(house.dsn, sums()):
        await asyncio.sleep(2)  # the start is not idleness
        began = await house.pool.fetchval("SELECT clock_timestamp()")
        for _ in range(300):
            for row in await house.pool.fetch(
                "SELECT pid, state_change, query FROM pg_stat_activity "
                "WHERE application_name = 'ekiden' AND datname = current_database() "
                "AND state = 'idle' AND state_change > $1",
                began,
            ):
                asked.add((row["pid"], row["state_change"], row["query"][:60]))
            await asyncio.sleep(0.02)
        seconds = await house.pool.fetchval(
            "SELECT extract(epoch FROM clock_timestamp() - $1)", began
        )
    assert 1 <= len(asked) <= float(seconds) / 1.2 + 1, asked


async def test_a_claim_that_is_answered_while_the_worker_begins_anew_is_run(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins, claimed = asyncio.Event(), asyncio.Event()
    claim, register = Tasks.claim, Workers.register

    async def claim_late(*arguments: Any) -> Any:
        tasks = await claim(*arguments)
        if tasks and not claimed.is_set():
            await house.pool.execute("UPDATE ekiden.workers SET state = 'LOST'")
            worker._heart.beat_now()
            await begins.wait()
            claimed.set()
        return tasks

    async def register_slowly(*arguments: Any, **known: Any) -> int:
        begins.set()
        await claimed.wait()
        await asyncio.sleep(0.1)  # what was claimed is started meanwhile
        return await register(*arguments, **known)

    async def answers(_ctx: object) -> str:
        return "done"

    async with working(house.dsn, one_step(answers)) as worker:
        first = worker.id
        monkeypatch.setattr(Tasks, "claim", claim_late)
        monkeypatch.setattr(Workers, "register", register_slowly)
        session = await house.begin("one", AUTO)
        await house.until(session)

        async def begun_anew() -> bool:
            return worker.id != first

        await until(begun_anew)
