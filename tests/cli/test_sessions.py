"""Looking at sessions and deciding, whether or not anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ekiden.cli.ways import going_on
from tests.cli.program import TOY, Program


@pytest.fixture
async def at_gate(program: Program) -> str:
    """A session that waits at its first gate."""
    ended = await program.run("run", "toy", "--flow", TOY, "--name", "remote work", "--json")
    session_id: str = ended.json["sessionId"]
    return session_id


async def told(program: Program, *words: str) -> Any:
    ended = await program.run("sessions", *words, "--json")
    assert ended.code == 0, ended.err
    return ended.json


async def test_list_shows_a_table_and_finds_by_status(program: Program, at_gate: str) -> None:
    table = (await program.run("sessions", "list")).out.splitlines()
    assert table[0].split() == ["ID", "FLOW", "STATUS", "AT", "CHANGED", "TITLE"]
    assert table[1].startswith(f"{at_gate}  toy   AWAITING_REVIEW  1 INTEGRATE")
    assert table[1].endswith("remote work")
    assert (await told(program, "list", "--status", "completed"))["sessions"] == []
    for narrowed in (("--status", "failed"), ("--flow", "other")):
        none = await program.run("sessions", "list", *narrowed)
        assert none.out == "No session fits.\n"


async def test_show_has_progress_and_outputs(program: Program, at_gate: str) -> None:
    text = (await program.run("sessions", "show", at_gate)).out
    assert "1 Collect numbers: THINK COMPLETED  EXECUTE COMPLETED 3/3" in text
    assert "total: 14" in text
    assert f"ekiden sessions approve {at_gate}" in text
    shown = await told(program, "show", at_gate)
    assert shown["revisions"][0]["output"] == {"total": 14}


async def test_show_has_what_is_used_of_budgets(program: Program, at_gate: str) -> None:
    await told(program, "budget", at_gate, "--max-cost", "2.5", "--max-tokens", "20000")
    await told(program, "budget", at_gate, "--phase", "2", "--max-tokens", "100")
    text = (await program.run("sessions", "show", at_gate)).out
    assert "Budget   0.0000 of 2.5 USD, 0 of 20,000 tokens used\n" in text
    assert "Budget   phase 2: 0 of 100 tokens used\n" in text
    first = (await told(program, "show", at_gate))["budget"]
    assert (first["maxCostUsd"], first["maxTokens"], first["tokens"]) == (2.5, 20000, 0)


async def test_show_says_of_each_output_whether_it_still_waits(
    program: Program, at_gate: str
) -> None:
    assert (await program.run("sessions", "reject", at_gate, "--note", "more")).code == 0
    assert (await program.run("resume", at_gate, "--flow", TOY)).code == 3
    text = (await program.run("sessions", "show", at_gate)).out
    states = [line.rpartition(", ")[2] for line in text.splitlines() if "── Output" in line]
    assert states == ["not approved)", "waits for approval)"]


async def test_nobody_goes_on_where_no_worker_lives(program: Program, at_gate: str) -> None:
    passed = (await program.run("sessions", "approve", at_gate)).out
    assert "No living worker knows flow 'toy'" in passed
    assert f"ekiden resume {at_gate}" in passed
    assert "A worker goes on" not in passed


async def test_what_is_held_waits_to_be_started(program: Program, at_gate: str) -> None:
    forked = (await program.run("sessions", "fork", at_gate, "--phase", "0")).out
    session = forked.split("New session ")[1].split(".")[0]
    resumed = (await program.run("sessions", "resume", session)).out
    for said in (forked, resumed):
        assert "Phase 1 THINK waits to be started" in said
        assert f"To start it here: ekiden resume {session}" in said
        assert "A worker goes on" not in said


@pytest.mark.parametrize("kind", [None, "claim", "retry", "provider", "answer"])
def test_a_worker_that_lives_goes_on(kind: str | None) -> None:
    waiting = kind and {"kind": kind, "message": ""}
    said = going_on({"sessionId": "7", "waitingFor": waiting})
    assert said == "A worker goes on with it; or here: ekiden resume 7"


async def test_a_gate_is_passed_once_and_then_there_is_none(program: Program, at_gate: str) -> None:
    stale = await program.run("sessions", "approve", at_gate, "--revision", "999")
    assert stale.code == 1
    assert "999" in stale.err
    passed = await told(program, "approve", at_gate, "--comment", "good")
    assert (passed["status"], passed["progress"]["currentPhase"]) == ("RUNNING", 2)
    again = await program.run("sessions", "approve", at_gate)
    assert again.code == 1
    assert "no gate" in again.err


async def test_pause_resume_and_cancel(program: Program, at_gate: str) -> None:
    refused = await program.run("sessions", "pause", at_gate)
    assert refused.code == 1  # at a gate nothing runs that could be paused
    await told(program, "approve", at_gate)
    assert (await told(program, "pause", at_gate))["status"] == "PAUSED"
    assert (await told(program, "resume", at_gate))["status"] == "RUNNING"
    assert (await told(program, "cancel", at_gate))["status"] == "CANCELLED"
    ended = await program.run("resume", at_gate, "--flow", TOY)
    assert ended.code == 1
    assert "cancelled" in ended.err


async def test_export_has_everything_and_the_drafts_as_markdown(
    program: Program, tmp_path: Path, at_gate: str
) -> None:
    await told(program, "approve", at_gate)
    assert (await program.run("resume", at_gate, "--flow", TOY)).code == 0
    file = tmp_path / "all.json"
    assert (await program.run("sessions", "export", at_gate, "--output", str(file))).code == 0
    everything = json.loads(file.read_text())
    assert set(everything) == {"session", "progress", "revisions", "tasks", "events", "drafts"}
    assert len(everything["tasks"]) == 7
    assert all(task["attempts"] for task in everything["tasks"])
    markdown = (await program.run("sessions", "export", at_gate, "--format", "md")).out
    assert markdown.startswith("# remote work\n\n## 1. The number\n\ndouble: 28\n")


async def test_doctor_says_where_settings_come_from_and_hides_secrets(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=s3cret\n")
    ended = await program.run("doctor", "--json")
    assert ended.code == 0, ended.out
    found = ended.json
    origin = {s["name"]: (s["value"], s["from"]) for s in found["settings"]}
    assert origin["MAX_RETRIES"] == ("3", "default")
    assert origin["RETRY_DELAY"] == ("0", "environment")
    assert origin["OPENAI_API_KEY"] == ("(set)", ".env")
    assert "s3cret" not in ended.out
    assert {f["what"]: f["state"] for f in found["findings"]}["database"] == "ok"


async def test_doctor_finds_a_setting_under_whatever_name_it_was_given(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("EKIDEN_MODEL_TOY_1=ollama:file\nGEMINI_API_KEY=other\n")
    given = program.but(GOOGLE_API_KEY="s3cret", EKIDEN_MODEL_TOY="ollama:small")
    found = (await given.run("doctor", "--json")).json["settings"]
    origin = {s["name"]: (s["value"], s["from"]) for s in found}
    assert origin["GEMINI_API_KEY"] == ("(set)", "environment")
    assert origin["EKIDEN_MODEL_TOY"] == ("ollama:small", "environment")
    assert origin["EKIDEN_MODEL_TOY_1"] == ("ollama:file", ".env")
    assert origin["EKIDEN_FALLBACK_MODEL_*"] == ("(not set)", "default")
    assert "EKIDEN_MODEL_*" not in origin


async def test_doctor_exits_1_when_something_is_broken(program: Program) -> None:
    ended = await program.but(DATABASE_URL="postgresql://x:s3cret@127.0.0.1:1/x").run("doctor")
    assert ended.code == 1
    assert "✖ database: PostgreSQL at 127.0.0.1:1" in ended.out
    assert "s3cret" not in ended.out


async def test_sources_are_added_listed_and_removed(program: Program, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "coffee.md").write_text("# Coffee\n\nBrew it slowly.\n")
    (notes / "image.bin").write_bytes(b"\0")
    added = await program.run("sources", "add", str(notes))
    assert added.code == 0, added.err
    assert "1 documents" in added.out
    assert "image.bin" in added.err
    listed = await program.run("sources", "list", "--json")
    assert listed.json == [{"source": str(notes), "documents": 1}]
    removed = await program.run("sources", "remove", str(notes), "--json")
    assert removed.json == {"source": str(notes), "removed": 1}
    assert (await program.run("sources", "remove", str(notes))).code == 1
    assert (await program.run("sources", "add", str(tmp_path / "gone"))).code == 1


async def test_archive_puts_away_and_unarchive_brings_back(program: Program, at_gate: str) -> None:
    refused = await program.run("sessions", "archive", at_gate, "nothing")
    assert refused.code == 1
    assert f"Session {at_gate} is AWAITING_REVIEW: only a finished one" in refused.out
    assert "There is no session nothing." in refused.out
    await told(program, "cancel", at_gate)
    assert await told(program, "archive", at_gate) == [
        {"sessionId": at_gate, "archived": True, "refused": None}
    ]
    assert (await told(program, "list"))["sessions"] == []
    archived = (await told(program, "list", "--archived"))["sessions"]
    assert [s["sessionId"] for s in archived] == [at_gate]
    back = await program.run("sessions", "unarchive", at_gate)
    assert back.out == f"Session {at_gate} is in the lists.\n"
    assert (await told(program, "list", "--archived"))["sessions"] == []
