"""Workers end, gently or not, and connections break; the relay goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from ekiden import Context, Flow
from ekiden.core.model import ClaimedTask
from ekiden.errors import ResultInvalid
from ekiden.flows.registry import CompiledFlow
from ekiden.store.tasks import Completion, Handoff, Tasks
from ekiden.store.workers import Workers
from ekiden.worker.committer import Committer
from ekiden.worker.rescuer import Rescuer
from ekiden.worker.worker import Worker
from tests.scripted import ScriptedProvider
from tests.worker.child import slow
from tests.worker.relay import QUICK, Count, Doubled, House, Squares, one_step, sums, working

AUTO = replace(QUICK, auto_phases=True)


@asynccontextmanager
async def child(dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.worker.child", dsn, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def in_the_middle_of_phase_two(house: House) -> str:
    """Wait until a worker is in the step that outlives it; return the session."""
    async with asyncio.timeout(20):
        while not (flows := await house.sessions.flows()) or not flows[0].has_worker:
            await asyncio.sleep(0.01)
        session = await house.begin("slow", AUTO)
        while (2, "INTEGRATE", 0, "RUNNING", 1) not in await house.steps(session):
            await asyncio.sleep(0.01)
    return session


async def test_after_kill_9_another_worker_goes_on_from_the_last_committed_step(
    house: House,
) -> None:
    async with child(house.dsn) as process:
        session = await in_the_middle_of_phase_two(house)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        async with working(house.dsn, slow()):
            await house.until(session)
    tasks = await house.sessions.tasks(session)
    assert [t.attempt for t in tasks] == [1, 1, 1, 2]
    assert await house.outcomes(session, tasks[-1].id) == ["LOST", "COMPLETED"]
    assert tasks[-1].result == 4


async def test_sigterm_gives_back_what_does_not_end_in_time_and_it_does_not_count(
    house: House,
) -> None:
    async with child(house.dsn) as process:
        session = await in_the_middle_of_phase_two(house)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0
    task = (await house.sessions.tasks(session))[-1]
    assert task.status == "QUEUED"
    assert await house.outcomes(session, task.id) == ["RELEASED"]
    assert (
        await house.pool.fetchval(
            "SELECT attempt - budget_from FROM ekiden.api_tasks WHERE id = $1", task.id
        )
        == 0
    )
    (worker,) = await house.sessions.workers()
    assert worker.state == "STOPPED"


async def test_a_draining_worker_finishes_its_step_and_leaves_the_next_to_others(
    house: House,
) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def step(_ctx: object) -> str:
        started.set()
        await finish.wait()
        return "done"

    flow = one_step(step)
    async with working(house.dsn, flow) as worker:
        session = await house.begin("one")
        await asyncio.wait_for(started.wait(), 5)
        worker.stop()
        finish.set()
    think, integrate = await house.sessions.tasks(session)
    assert (think.status, integrate.status) == ("COMPLETED", "QUEUED")
    async with working(house.dsn, flow):
        await house.until(session)


async def test_a_worker_that_is_cancelled_gives_back_what_it_ran(house: House) -> None:
    started = asyncio.Event()

    async def hangs(_ctx: object) -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    worker = Worker(lambda: house.dsn, [one_step(hangs)])
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.ready.wait(), 10)
    session = await house.begin("one")
    await asyncio.wait_for(started.wait(), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (task,) = await house.sessions.tasks(session)
    assert task.status == "QUEUED"


async def test_cut_connections_lose_nothing_and_repeat_nothing(house: House) -> None:
    """Every connection of the worker is cut again and again while 30 sessions run."""
    async with working(house.dsn, sums(), capacity=8):
        sessions = [await house.begin("sums", AUTO, n=5) for _ in range(30)]
        for _ in range(6):
            await house.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'ekiden'"
            )
            await asyncio.sleep(0.03)
        for session in sessions:
            await house.until(session)
            steps = await house.steps(session)
            assert len(steps) == 9
    # A claim may lose its answer to a cut and be given back; nothing completes twice.
    outcomes = await house.pool.fetch(
        "SELECT outcome, count(DISTINCT task_id), count(*) FROM ekiden.attempts GROUP BY outcome"
    )
    assert {row["outcome"] for row in outcomes} <= {"COMPLETED", "RELEASED"}
    assert (30 * 9, 30 * 9) in [tuple(row)[1:] for row in outcomes if row[0] == "COMPLETED"]


async def test_a_worker_declared_lost_begins_anew_and_goes_on(house: House) -> None:
    async with working(house.dsn, sums(), lease=timedelta(seconds=1)) as worker:
        first = worker.id
        await house.pool.execute("UPDATE ekiden.workers SET state = 'LOST'")
        async with asyncio.timeout(5):
            while worker.id == first:
                await asyncio.sleep(0.01)
        session = await house.begin("sums", AUTO)
        await house.until(session)


async def test_a_worker_that_begins_anew_leaves_the_newest_version_of_its_flow(
    house: House,
) -> None:
    """As in the middle of a deployment: what is created then is for those that stay."""

    one, two = [CompiledFlow(Flow("f", input=Count, phases=p)) for p in ([Squares], [Doubled])]
    async with working(house.dsn, one) as worker, working(house.dsn, two):
        first = worker.id
        await house.pool.execute("UPDATE ekiden.workers SET state = 'LOST' WHERE id = $1", first)
        worker._heart.beat_now()
        async with asyncio.timeout(10):
            while worker.id == first:
                await asyncio.sleep(0.01)
        session = await house.begin("f", start=False)
    version = await house.pool.fetchval(
        "SELECT f.version FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id"
        " WHERE s.id = $1",
        session,
    )
    assert version == two.version != one.version


async def test_a_rescue_waits_for_the_lease_of_a_worker_without_a_life_sign(house: House) -> None:
    workers = Workers(house.pool, house.dsn)
    async with working(house.dsn, sums()) as worker:
        rescuer = Rescuer(workers, own_id=lambda: 0)
        assert await rescuer.look() == 0
        await house.pool.execute("UPDATE ekiden.workers SET lease_until = ekiden.now()")
        await rescuer.look()
        lines = {line.id: line.state for line in await house.sessions.workers()}
        assert lines[worker.id] == "LOST"


@asynccontextmanager
async def committing(house: House) -> AsyncIterator[tuple[Committer, list[ClaimedTask]]]:
    """A committer of its own, and three claimed THINK tasks of the flow ``one``."""

    async def never(_ctx: object) -> str:
        raise AssertionError("claimed by the test, not by the worker")

    async with working(house.dsn, one_step(never)) as worker:
        worker.stop()
    sessions = [await house.begin("one") for _ in range(3)]
    tasks = Tasks(house.pool, house.dsn)
    flow_ids = [line.id for line in await house.sessions.flows()]
    claimed = await tasks.claim(1, flow_ids, 10)
    assert len(claimed) == len(sessions)
    committer = Committer(
        lambda: house.dsn,
        tasks,
        worker_id=lambda: 1,
        holds={t.id for t in claimed}.__contains__,
        left_queued=lambda: None,
    )
    await committer.start()
    try:
        yield committer, claimed
    finally:
        await committer.close()


def completion(task: ClaimedTask, result: str = '"fine"') -> Completion:
    return Completion(
        task=task, result=result, event="advance", next_phase=1, next_step="INTEGRATE",
        new_phase=False, hold=False, closes_phase=False,
    )  # fmt: skip


async def test_one_result_that_postgresql_refuses_does_not_take_its_batch_along(
    house: House,
) -> None:
    async with committing(house) as (committer, (one, two, three)):
        futures = [
            committer.submit(completion(one)),
            committer.submit(completion(two, "{not json")),
            committer.submit(completion(three)),
        ]
        first, second, third = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(second, ResultInvalid)
    for following in (first, third):
        assert isinstance(following, list)
        assert [task.step for task in following] == ["INTEGRATE"]


async def test_a_stale_attempt_is_refused(house: House) -> None:
    async with committing(house) as (committer, (one, *_)):
        assert await committer.submit(completion(replace(one, attempt=9))) is None
        assert await committer.submit(completion(one)) is not None
        assert await committer.submit(completion(one)) is None


async def test_a_commit_whose_answer_was_lost_is_settled_by_its_token(house: House) -> None:
    """The commit goes through, its answer does not: the next tasks must still be found."""
    async with committing(house) as (committer, (one, *_)):
        send = committer._send

        async def send_and_lose(handoff: object, batch: object) -> None:
            committer._send = send  # type: ignore[method-assign]
            await handoff.complete(1, [c for c, _ in batch])  # type: ignore[attr-defined]
            raise ConnectionResetError("the answer was lost")

        committer._send = send_and_lose  # type: ignore[method-assign]
        following = await committer.submit(completion(one))
    assert following is not None
    assert [task.step for task in following] == ["INTEGRATE"]
    steps = await house.steps(one.session_id)
    assert steps == [(1, "THINK", 0, "COMPLETED", 1), (1, "INTEGRATE", 0, "RUNNING", 1)]


async def test_a_statement_that_cannot_be_planned_ahead_costs_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_handoff: Handoff) -> None:
        raise asyncpg.InternalServerError("not now")

    monkeypatch.setattr(Handoff, "warm_up", fails)
    async with committing(house) as (committer, (one, *_)):
        assert await committer.submit(completion(one)) is not None


async def test_the_next_batch_is_on_its_way_before_anyone_hears_of_the_last(house: House) -> None:
    """PostgreSQL would wait meanwhile."""
    async with committing(house) as (committer, (one, two, _)):
        assert committer._handoff is not None
        complete, heard = committer._handoff.complete, []

        async def watched(*given: object) -> object:
            heard.append([future.done() for future in futures])
            return await complete(*given)  # type: ignore[arg-type]

        committer._handoff.complete = watched  # type: ignore[method-assign,assignment]
        futures = [committer.submit(completion(one))]
        await asyncio.sleep(0)  # it is on its way
        futures.append(committer.submit(completion(two)))
        assert [[t.step for t in f or ()] for f in await asyncio.gather(*futures)] == [
            ["INTEGRATE"],
            ["INTEGRATE"],
        ]
    assert heard == [[False], [False, False]]


async def test_a_claim_of_what_a_settled_commit_handed_on_already_runs_nothing(
    house: House,
) -> None:
    """The same attempt of a task in two coroutines would ask, and pay for, everything twice."""
    begun, go_on = [], asyncio.Event()

    async def waits(ctx: Context) -> str:
        begun.append(ctx.attempt)
        await go_on.wait()
        return "done"

    async with working(house.dsn, one_step(waits), capacity=2) as worker:
        session = await house.begin("one")
        while not begun:
            await asyncio.sleep(0.01)
        (held,) = await worker._tasks.held_by(worker.id)
        await worker._chains.start([held])
        assert worker._chains.free == 1
        go_on.set()
        await house.until(session)
    assert begun == [1]


@pytest.mark.parametrize("deaths", [3])
async def test_a_task_that_kills_its_worker_three_times_is_parked(
    house: House, deaths: int
) -> None:
    async with committing(house) as (_, (task, *_)):
        tasks, workers = Tasks(house.pool, house.dsn), Workers(house.pool, house.dsn)
        flow_ids = [line.id for line in await house.sessions.flows()]
        for death in range(deaths):
            await workers.rescue([1], max_deaths=deaths)
            if death + 1 < deaths:
                await tasks.claim(1, flow_ids, 10)
    progress = await house.sessions.progress(task.session_id)
    assert progress["status"] == "FAILED"
    assert progress["error"]["kind"] == "Poison"


async def test_a_worker_that_was_given_up_begins_no_new_call(house: House) -> None:
    """It lives, and its step goes on: what it would ask, its successor asks as well."""
    lost = asyncio.Event()

    async def twice(ctx: Context) -> str:
        first = await ctx.ask("first", str)
        if ctx.attempt == 1:
            await house.pool.execute("UPDATE ekiden.api_tasks SET attempt = 2")
            lost.set()
        return first + await ctx.ask("second", str)

    provider = ScriptedProvider(lambda request: request.messages[0].content)
    async with working(house.dsn, one_step(twice), provider=provider):
        await house.begin("one")
        await asyncio.wait_for(lost.wait(), 5)
    assert [entry.request.messages[0].content for entry in provider.log] == ["first"]
