"""One session in a terminal: its exit codes, its one JSON object, and its gates."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cli.program import TOY, Program, until


async def test_without_a_terminal_it_stops_at_the_first_gate(program: Program) -> None:
    ended = await program.run("run", "toy", "--flow", TOY, "--name", "remote work", "--json")
    assert ended.code == 3, ended.err
    told = ended.json
    assert set(told) == {"sessionId", "status", "progress", "error"}
    assert told["status"] == "AWAITING_REVIEW"
    assert told["progress"]["completedPhases"] == [1]
    assert told["progress"]["requiresManualTrigger"] is True
    assert f"ekiden sessions approve {told['sessionId']}" in ended.err


async def test_approved_elsewhere_it_is_resumed_to_its_drafts(program: Program) -> None:
    session = (await program.run("run", "toy", "--flow", TOY, "--name", "x", "--json")).json
    approved = await program.run("sessions", "approve", session["sessionId"])
    assert approved.code == 0, approved.err
    ended = await program.run("resume", session["sessionId"], "--flow", TOY, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["status"] == "COMPLETED"
    assert [draft["body"] for draft in ended.json["drafts"]] == [{"double": 28}]


async def test_a_gate_that_is_not_approved_stops_a_resume_again(program: Program) -> None:
    session = (await program.run("run", "toy", "--flow", TOY, "--name", "x", "--json")).json
    ended = await program.run("resume", session["sessionId"], "--flow", TOY, "--json")
    assert (ended.code, ended.json["status"]) == (3, "AWAITING_REVIEW")


async def test_auto_approve_passes_and_prints_each_gate(program: Program) -> None:
    ended = await program.run("run", "toy", "--flow", TOY, "--name", "x", "--auto-approve")
    assert ended.code == 0, ended.err
    assert "Gate 1 of 1: Collect numbers" in ended.out
    assert "total: 14" in ended.out
    assert "Draft 1: The number" in ended.out
    assert "ollama:none" in ended.out
    assert not ended.err


async def test_a_failed_step_says_why_and_can_be_resumed(program: Program) -> None:
    words = ("run", "toy", "--flow", TOY, "--name", "x", "--mood", "broken", "--auto-approve")
    ended = await program.run(*words, "--json")
    assert ended.code == 1
    assert ended.json["status"] == "FAILED"
    assert ended.json["error"]["message"] == "the well is dry"
    assert "drafts" not in ended.json
    assert "the well is dry" in ended.err
    assert f"ekiden resume {ended.json['sessionId']}" in ended.err

    again = await program.run("resume", ended.json["sessionId"], "--flow", TOY, "--json")
    assert (again.code, again.json["status"]) == (1, "FAILED")
    assert again.json["error"]["attempt"] == 2


async def test_a_retry_is_told_with_its_reason_and_steers_no_terminal(program: Program) -> None:
    words = ("run", "toy", "--flow", TOY, "--name", "x", "--mood", "unlucky", "--auto-approve")
    ended = await program.run(*words)
    assert ended.code == 0, ended.err
    assert "EXECUTE, attempt 1 failed: RuntimeError: bad luck" in ended.out
    assert "\x1b" not in ended.out


async def test_what_only_waits_is_told_as_a_wait(program: Program) -> None:
    words = ("run", "toy", "--flow", TOY, "--name", "x", "--mood", "waiting", "--auto-approve")
    ended = await program.run(*words)
    assert ended.code == 0, ended.err
    assert "EXECUTE waits: the ferry is full. It looks again in" in ended.out
    assert "failed" not in ended.out + ended.err


async def test_held_steps_stop_it_one_by_one(program: Program) -> None:
    held = program.but(AUTO_PROGRESS_STEPS="false")
    ended = await held.run("run", "toy", "--flow", TOY, "--name", "x", "--json")
    assert (ended.code, ended.json["status"]) == (3, "RUNNING")
    assert ended.json["progress"]["currentStep"] == "EXECUTE"
    session_id = ended.json["sessionId"]
    ended = await held.run("resume", session_id, "--flow", TOY, "--json")
    assert (ended.code, ended.json["progress"]["currentStep"]) == (3, "INTEGRATE")
    ended = await held.run("resume", session_id, "--flow", TOY, "--auto-approve", "--json")
    assert (ended.code, ended.json["status"]) == (0, "COMPLETED")


async def test_without_gates_it_runs_through(program: Program) -> None:
    ended = await program.but(AUTO_PROGRESS_PHASES="true").run(
        "run", "toy", "--flow", TOY, "--input", '{"name": "x", "numbers": [4]}', "--json"
    )
    assert ended.code == 0, ended.err
    assert ended.json["drafts"][0]["body"] == {"double": 32}


async def test_ctrl_c_leaves_a_session_that_can_be_resumed(
    program: Program, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    words = ("run", "toy", "--flow", TOY, "--name", "x", "--auto-approve", "--json")
    with program.started(*words, "--hold", str(hold)) as running:
        until(hold.with_suffix(".reached").exists, lambda: running.err)
        running.process.send_signal(signal.SIGINT)
        running.says("Ctrl-C again stops at once")
        assert running.end(signal.SIGINT) == 130
        running.says("ekiden resume ")
    session_id = running.err.split("ekiden resume ")[1].split()[0]
    hold.touch()
    ended = await program.run("resume", session_id, "--flow", TOY, "--auto-approve", "--json")
    assert (ended.code, ended.json["status"]) == (0, "COMPLETED"), ended.err


async def test_a_step_that_ends_in_time_is_kept_on_ctrl_c(program: Program, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    words = ("run", "toy", "--flow", TOY, "--name", "x", "--auto-approve", "--json")
    with program.started(*words, "--hold", str(hold)) as running:
        until(hold.with_suffix(".reached").exists, lambda: running.err)
        running.process.send_signal(signal.SIGINT)
        running.says("Ctrl-C again stops at once")
        hold.touch()
        assert running.process.wait(60) == 130
    assert '"status":"COMPLETED"' in running.out


async def test_watch_follows_what_runs_elsewhere_and_exits_as_run_does(
    program: Program, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    words = ("run", "toy", "--flow", TOY, "--name", "x", "--auto-approve")
    with program.started(*words, "--hold", str(hold)) as running:
        until(hold.with_suffix(".reached").exists, lambda: running.err)
        session_id = running.out.split("Session")[1].split()[0]
        with program.started("watch", session_id) as watching:
            watching.says("INTEGRATE runs")
            hold.touch()
            assert watching.process.wait(60) == 0
        assert running.process.wait(60) == 0


async def test_ctrl_c_in_watch_leaves_a_session_that_goes_on(
    program: Program, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    elsewhere = program.but()
    elsewhere.folder = tmp_path / "elsewhere"  # what it says is kept there
    elsewhere.folder.mkdir()
    words = ("run", "toy", "--flow", TOY, "--name", "x", "--auto-approve")
    with program.started(*words, "--hold", str(hold)) as running:
        until(hold.with_suffix(".reached").exists, lambda: running.err)
        session_id = running.out.split("Session")[1].split()[0]
        with elsewhere.started("watch", session_id) as watching:
            watching.says("INTEGRATE runs")
            assert watching.end(signal.SIGINT) == 130
            left = f"A worker goes on with it; or here: ekiden resume {session_id}"
            watching.says(f"No longer watched. {left}")
            assert "Stopp" not in watching.out
        hold.touch()
        assert running.process.wait(60) == 0


async def test_with_nothing_set_it_brings_its_own_database(alone: Program) -> None:
    ended = await alone.run("run", "toy", "--flow", TOY, "--name", "x", "--json")
    assert ended.code == 3, ended.err
    session_id = ended.json["sessionId"]
    assert (await alone.run("sessions", "approve", session_id)).code == 0
    listed = await alone.run("sessions", "list", "--json")
    (one,) = listed.json["sessions"]
    assert (one["sessionId"], one["status"]) == (session_id, "RUNNING")


async def test_a_session_of_another_version_of_the_flow_is_not_run(program: Program) -> None:
    session = (await program.run("run", "toy", "--flow", TOY, "--name", "x", "--json")).json
    await program.run("sessions", "approve", session["sessionId"])
    unknown = await program.run("resume", session["sessionId"])
    assert unknown.code == 2
    assert "--flow module:name" in unknown.err
