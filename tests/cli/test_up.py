"""What runs for long: everything at once, and each part alone."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ekiden.core.model import Options
from ekiden.store.connection import open_pool
from ekiden.store.sessions import Sessions
from tests.cli.program import PATIENCE, TOY, Program, Running, command_of, until


def url_of(up: Running) -> str:
    up.says("Ctrl-C stops it")
    return up.out.split("ready at ")[1].split()[0]


def call(url: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def post(url: str) -> tuple[int, Any]:
    return call(url, method="POST")


@asynccontextmanager
async def open_sessions(dsn: str) -> AsyncIterator[Sessions]:
    async with open_pool(dsn) as pool:
        yield Sessions(pool, dsn)


def worker_of(up: Running) -> int | None:
    return next((pid for pid, command in up.children().items() if " worker" in command), None)


async def test_up_serves_a_session_over_http(program: Program) -> None:
    with program.started("up", "--port", "0", "--flow", TOY) as up:
        base = f"{url_of(up)}/api/toy/cot-session"
        status, created = call(f"{base}/create", {"name": "x"})
        assert status == 201
        here = f"{base}/{created['sessionId']}"
        assert post(f"{here}/process-async")[0] == 202

        def at_gate() -> Any:
            progress = call(f"{here}/progress")[1]
            return progress if progress["requiresManualTrigger"] else None

        assert until(at_gate)["completedPhases"] == [1]
        assert post(f"{here}/proceed-next-phase")[0] == 200
        until(lambda: call(f"{here}/progress")[1]["status"] == "COMPLETED")
        assert up.end() == 0
    assert not up.children()


async def test_held_steps_run_one_for_each_process_async(program: Program) -> None:
    held = program.but(AUTO_PROGRESS_STEPS="false")
    with held.started("up", "--port", "0", "--flow", TOY) as up:
        base = f"{url_of(up)}/api/toy/cot-session"
        here = f"{base}/{call(f'{base}/create', {'name': 'x'})[1]['sessionId']}"
        ran = []
        for _ in range(3):
            before = call(f"{here}/progress")[1]
            ran.append(before["currentStep"])
            assert post(f"{here}/process-async")[0] == 202

            def at_rest() -> Any:
                progress = call(f"{here}/progress")[1]
                return progress["requiresManualTrigger"] and progress

            after = until(at_rest)
            completed = [s["step"] for s in after["phases"][0]["steps"] if s["open"] == 0]
            assert [s for s in completed if s in ran] == ran
        assert ran == ["THINK", "EXECUTE", "INTEGRATE"]
        assert after["status"] == "AWAITING_REVIEW"


async def test_a_dead_child_is_replaced_and_said(program: Program) -> None:
    with program.started("up", "--port", "0", "--flow", TOY) as up:
        url = url_of(up)
        for name in ("worker", "serve"):
            pid = next(p for p, command in up.children().items() if f" {name}" in command)
            kill(pid)
            until(lambda name=name: any(f" {name}" in c for c in up.children().values()))
        up.says("The worker 1 ended by signal 9; another is started")
        up.says("The API ended by signal 9; another is started")
        # The listening socket was never closed: the call waits for the new API.
        assert call(f"{url}/healthz")[0] == 200
        assert up.end(signal.SIGINT) == 0


async def test_no_child_outlives_a_supervisor_that_was_killed(program: Program) -> None:
    with program.started("up", "--port", "0", "--flow", TOY) as up:
        url_of(up)
        children = up.children()
        assert len(children) == 2
        up.kill()
        until(lambda: not any(command_of(pid) for pid in children))


async def test_up_brings_its_own_database_and_restarts_it(alone: Program) -> None:
    with alone.started("up", "--port", "0", "--flow", TOY) as up:
        url = url_of(up)
        postgres = next(p for p, command in up.children().items() if "postgres" in command)
        kill(postgres)
        up.says("it was started again")
        until(lambda: call(f"{url}/readyz")[0] == 200)
        base = f"{url}/api/toy/cot-session"
        until(lambda: call(f"{base}/create", {"name": "x"})[0] == 201)
        assert up.end() == 0


def database_of(url: str) -> str:
    """Return the row of the settings page that says which database it is, and from where."""
    with urllib.request.urlopen(f"{url}/settings", timeout=PATIENCE) as page:
        row = re.search(r"<tr><td[^>]*>DATABASE_URL</td>.*?</tr>", page.read().decode())
    assert row is not None
    return row[0]


async def test_the_settings_say_where_the_database_is_from(alone: Program, database: str) -> None:
    with alone.but(WORKER_ENABLED="false").started("up", "--port", "0") as up:
        assert "embedded database" in database_of(url_of(up))
    (alone.folder / "out.txt").unlink()
    (alone.folder / ".env").write_text(f"DATABASE_URL={database}\n")
    with alone.but(WORKER_ENABLED="false").started("up", "--port", "0") as up:
        assert ".env file" in database_of(url_of(up))


async def test_without_workers_up_says_so(program: Program) -> None:
    with program.but(WORKER_ENABLED="false").started("up", "--port", "0") as up:
        url_of(up)
        assert "no worker (WORKER_ENABLED=false)" in up.out
        assert len(up.children()) == 1


async def test_a_port_in_use_is_one_line(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await program.run("up", "--port", str(port))
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert f"Port {port}" in ended.err


async def test_a_wrong_setting_of_a_child_ends_everything(program: Program) -> None:
    ended = await program.but(EKIDEN_MODEL="odd").run("up", "--port", "0")
    assert ended.code == 2
    assert "EKIDEN_MODEL" in ended.err


async def test_another_worker_goes_on_where_one_was_killed(
    program: Program, database: str, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    async with open_sessions(database) as sessions:
        with program.started("worker", "--flow", TOY) as first:
            await asyncio.to_thread(first.says, "worker_started")
            session_id, _ = await sessions.create(
                "toy",
                title="x",
                input={"name": "x", "numbers": [1, 2, 3], "mood": "good", "hold": str(hold)},
                options=Options(auto_phases=True),
                start=True,
            )
            await asyncio.to_thread(until, hold.with_suffix(".reached").exists)
            first.kill()
        hold.touch()
        with program.started("worker", "--flow", TOY):
            while (await sessions.progress(session_id))["status"] != "COMPLETED":
                await asyncio.sleep(0.02)
        tasks = await sessions.tasks(session_id)
        attempts = {(t.phase, t.step, t.item): t.attempt for t in tasks}
        assert attempts.pop((2, "INTEGRATE", 0)) == 2
        assert set(attempts.values()) == {1}
        interrupted = await sessions.attempts(session_id, tasks[-1].id)
        assert [a.outcome for a in interrupted] == ["LOST", "COMPLETED"]


async def test_a_worker_lets_its_step_end_on_sigterm(
    program: Program, database: str, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    async with open_sessions(database) as sessions:
        with program.started("worker", "--flow", TOY) as worker:
            await asyncio.to_thread(worker.says, "worker_started")
            session_id, _ = await sessions.create(
                "toy",
                title="x",
                input={"name": "x", "numbers": [], "mood": "good", "hold": str(hold)},
                options=Options(auto_phases=True),
                start=True,
            )
            await asyncio.to_thread(until, hold.with_suffix(".reached").exists)
            worker.process.terminate()
            await asyncio.to_thread(worker.says, "worker_draining")
            hold.touch()
            assert await asyncio.to_thread(worker.process.wait, PATIENCE) == 0
        assert (await sessions.progress(session_id))["status"] == "COMPLETED"


async def test_a_worker_waits_for_a_database_that_is_not_there(alone: Program) -> None:
    nowhere = alone.but(DATABASE_URL="postgresql://x:s3cret@127.0.0.1:1/x")
    with nowhere.started("worker", "--flow", TOY) as worker:
        until(lambda: worker.err.count("127.0.0.1:1, database x cannot be reached") >= 2)
        assert "s3cret" not in worker.err
        assert worker.end() == 0


def kill(pid: int) -> None:
    import os

    os.kill(pid, signal.SIGKILL)
