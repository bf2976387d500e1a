"""The relay: steps hand on by themselves, phases wait for a person."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import asyncpg

from ekiden import Context, Flow, Phase
from ekiden.core.model import Options
from ekiden.flows.registry import CompiledFlow
from tests.worker.relay import QUICK, Count, House, one_step, sums, working


async def test_steps_advance_by_themselves_and_the_phase_waits_for_a_person(house: House) -> None:
    async with working(house.dsn, sums()):
        session = await house.begin("sums", n=4)
        progress = await house.until(session, "AWAITING_REVIEW")
        assert progress["completedPhases"] == [1]
        assert progress["requiresManualTrigger"]
        assert progress["canProceed"]
        assert await house.steps(session) == [
            (1, "THINK", 0, "COMPLETED", 1),
            *((1, "EXECUTE", item, "COMPLETED", 1) for item in range(4)),
            (1, "INTEGRATE", 0, "COMPLETED", 1),
        ]
        await house.sessions.approve(session, actor="me")
        progress = await house.until(session)
    assert progress["completedPhases"] == [1, 2]
    (draft,) = await house.sessions.drafts(session)
    assert draft.body == {"sum": 2 * (0 + 1 + 4 + 9)}


async def test_no_draft_exists_before_the_session_completes(house: House) -> None:
    async with working(house.dsn, sums()):
        session = await house.begin("sums")
        await house.until(session, "AWAITING_REVIEW")
    assert await house.sessions.drafts(session) == []


async def test_auto_progress_phases_passes_no_gate(house: House) -> None:
    async with working(house.dsn, sums()):
        session = await house.begin("sums", replace(QUICK, auto_phases=True))
        await house.until(session)
    events = [event.type for event in await house.sessions.events(session)]
    assert "gate_opened" not in events
    assert events[-1] == "session_completed"


async def test_without_auto_progress_steps_each_start_runs_exactly_one_step(house: House) -> None:
    async with working(house.dsn, sums()):
        session = await house.begin("sums", replace(QUICK, auto_steps=False), start=False)
        ran = []
        for _ in range(10):
            progress = await house.sessions.progress(session)
            if progress["status"] == "COMPLETED":
                break
            if progress["canProceed"]:
                await house.sessions.approve(session, actor="me")
                continue
            assert progress["waitingFor"]["kind"] == "process-async"
            before = len([t for t in await house.steps(session) if t[3] == "COMPLETED"])
            await house.sessions.start(session)
            async with asyncio.timeout(10):
                while True:
                    progress = await house.sessions.progress(session)
                    waiting = progress["waitingFor"]
                    if progress["status"] != "RUNNING" or (
                        waiting and waiting["kind"] == "process-async"
                    ):
                        break
                    await asyncio.sleep(0.005)
            done = [t for t in await house.steps(session) if t[3] == "COMPLETED"][before:]
            ran.append({(phase, step) for phase, step, *_ in done})
    assert ran == [
        {(1, "THINK")},
        {(1, "EXECUTE")},
        {(1, "INTEGRATE")},
        {(2, "THINK")},
        {(2, "INTEGRATE")},
    ]


async def test_a_fan_out_over_nothing_goes_straight_to_integrate(house: House) -> None:
    async with working(house.dsn, sums()):
        session = await house.begin("sums", n=0)
        await house.until(session, "AWAITING_REVIEW")
    assert [step for _, step, *_ in await house.steps(session)] == ["THINK", "INTEGRATE"]


async def test_a_fan_out_larger_than_the_workers_runs_each_item_once(house: House) -> None:
    async with (
        working(house.dsn, sums(), capacity=3) as one,
        working(house.dsn, sums(), capacity=3) as two,
    ):
        sessions = [await house.begin("sums", n=40) for _ in range(5)]
        for session in sessions:
            await house.until(session, "AWAITING_REVIEW")
            steps = await house.steps(session)
            assert len(steps) == 42
            assert all(status == "COMPLETED" and attempt == 1 for *_, status, attempt in steps)
        ran_on = {t.worker_id for s in sessions for t in await house.sessions.tasks(s)}
    assert ran_on == {one.id, two.id}


async def test_what_an_earlier_phase_gave_is_recorded_as_read(house: House) -> None:
    async with working(house.dsn, sums()):
        session = await house.begin("sums", replace(QUICK, auto_phases=True))
        await house.until(session)
    reads = await house.pool.fetch(
        "SELECT phase, step, reads FROM ekiden.api_tasks WHERE reads IS NOT NULL"
    )
    assert [tuple(row) for row in reads] == [(2, "THINK", [1])]


async def test_a_listener_hears_every_completed_task(house: House) -> None:
    heard: list[dict[str, object]] = []
    connection = await asyncpg.connect(house.dsn)
    await connection.add_listener(
        "task_completed", lambda _c, _p, _ch, payload: heard.append(json.loads(str(payload)))
    )
    async with working(house.dsn, sums()):
        session = await house.begin("sums", n=2)
        await house.until(session, "AWAITING_REVIEW")
        async with asyncio.timeout(5):
            while len(heard) < 4:
                await asyncio.sleep(0.005)
    await connection.close()
    tasks = {task.id: task.result for task in await house.sessions.tasks(session)}
    assert {entry["taskId"]: entry["result"] for entry in heard} == tasks
    assert {entry["sessionId"] for entry in heard} == {session}


async def test_a_result_of_five_megabytes_is_stored_and_handed_on(house: House) -> None:
    async def large(_ctx: object) -> str:
        return "駅" * 1_700_000

    async with working(house.dsn, one_step(large)):
        session = await house.begin("one")
        await house.until(session)
    sizes = await house.pool.fetchval(
        "SELECT array_agg(octet_length(result::text)) FROM ekiden.api_tasks"
    )
    assert sizes == [5_100_002, 5_100_002]


async def test_a_result_from_outside_is_checked_by_a_worker_and_completes_the_task(
    house: House,
) -> None:
    never = asyncio.Event()

    async def outside(_ctx: object) -> str:
        await never.wait()
        return "made here"

    async with working(house.dsn, one_step(outside)):
        session = await house.begin("one")
        (task,) = await house.sessions.tasks(session)
        async with asyncio.timeout(5):
            while task.status != "RUNNING":
                (task,) = await house.sessions.tasks(session)
        await house.sessions.deliver(session, task_id=task.id, attempt=1, result="from outside")
        await house.until(session)
        never.set()
    assert (await house.sessions.tasks(session))[0].result == "from outside"


async def test_two_workers_on_many_sessions_lose_nothing_and_repeat_nothing(house: House) -> None:
    options = Options(auto_phases=True)
    async with working(house.dsn, sums(), capacity=8), working(house.dsn, sums(), capacity=8):
        sessions = await asyncio.gather(*(house.begin("sums", options, n=n % 7) for n in range(40)))
        for session in sessions:
            await house.until(session)
    rows = await house.pool.fetch("SELECT outcome, count(*) FROM ekiden.attempts GROUP BY outcome")
    tasks = await house.pool.fetchval("SELECT count(*) FROM ekiden.api_tasks")
    assert [tuple(row) for row in rows] == [("COMPLETED", tasks)]


async def test_a_wrong_result_from_outside_fails_the_task_and_resume_drops_it(house: House) -> None:
    started = asyncio.Event()

    class Numbers(Phase):
        """Numbers"""

        async def think(self, ctx: Context) -> list[int]:
            started.set()
            await asyncio.sleep(0.3 if ctx.attempt == 1 else 0)
            return [1]

        async def integrate(self, ctx: Context, plan: list[int]) -> int:
            return len(plan)

    flow = CompiledFlow(Flow("numbers", input=Count, phases=[Numbers]))
    async with working(house.dsn, flow):
        session = await house.begin("numbers")
        await asyncio.wait_for(started.wait(), 5)
        (task,) = await house.sessions.tasks(session)
        await house.sessions.deliver(session, task_id=task.id, attempt=1, result="no list")
        progress = await house.until(session, "FAILED")
        assert progress["error"]["kind"] == "ResultInvalid"
        await house.sessions.resume(session, actor="me")
        await house.until(session)
