"""A known session, run again by the real program: offline, elsewhere, and one step of it."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from tests.cli.answering import FLOW, says
from tests.cli.program import TOY, Program
from tests.providers.fake_server import FakeServer


@pytest.fixture
async def completed(asking: Program) -> str:
    ended = await asking.run("run", "asking", *FLOW, "--theme", "fruit", "--json")
    assert ended.code == 0, ended.err
    session_id: str = ended.json["sessionId"]
    return session_id


async def test_a_recording_replays_elsewhere_with_nothing_there(
    asking: Program, alone: Program, completed: str, model: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "session.json"
    wrote = await asking.run(
        "sessions", "export", completed, "--format", "recording", "--output", str(file)
    )
    assert wrote.code == 0, wrote.err
    asked = len(model.requests)
    # No model, no database: only the file.
    elsewhere = alone.but(DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")
    ended = await elsewhere.run("sessions", "replay", str(file), *FLOW)
    assert ended.code == 0, ended.out + ended.err
    assert "All 4 steps are as they were." in ended.out
    assert "1 EXECUTE item 1: same  (1 calls)" in ended.out
    assert len(model.requests) == asked


async def test_replay_says_where_todays_code_would_ask_something_else(
    asking: Program, completed: str, model: FakeServer
) -> None:
    asked = len(model.requests)
    changed = asking.but(ASKING_PROMPT="Another word for")
    ended = await changed.run("sessions", "replay", completed, *FLOW)
    assert ended.code == 1
    assert "1 THINK: same" in ended.out
    assert "1 EXECUTE: asks something else" in ended.out
    assert '-   "One word for fruit that is red."' in ended.out
    assert '+   "Another word for fruit that is red."' in ended.out
    assert "2 of 4 steps would be different." in ended.out
    found = (await changed.run("sessions", "replay", completed, *FLOW, "--json")).json
    assert found["differs"] and found["sameVersion"]
    assert [s["verdicts"] for s in found["steps"]] == [
        ["same"], ["asks something else"], ["asks something else"], ["same"],
    ]  # fmt: skip
    assert len(model.requests) == asked


async def test_a_failed_session_fails_again_as_it_did(program: Program) -> None:
    run = ("run", "toy", "--flow", TOY, "--name", "x", "--mood", "broken", "--auto-approve")
    failed = (await program.run(*run, "--json")).json
    ended = await program.run("sessions", "replay", failed["sessionId"], "--flow", TOY)
    assert ended.code == 0, ended.out
    assert "2 THINK: same" in ended.out


async def test_one_step_is_tried_and_the_session_stays_as_it_is(
    asking: Program, completed: str, model: FakeServer, database: str
) -> None:
    connection = await asyncpg.connect(database)
    digest = (
        "SELECT (SELECT md5(string_agg(t::text, '' ORDER BY id)) FROM ekiden.api_tasks t),"
        " (SELECT count(*) FROM ekiden.calls), (SELECT count(*) FROM ekiden.attempts),"
        " (SELECT count(*) FROM ekiden.events)"
    )
    before = tuple(await connection.fetchrow(digest))
    asked = len(model.requests)
    step = ("step", completed, "1", "execute", "--dry-run", *FLOW)
    ended = await asking.run(*step)
    assert ended.code == 0, ended.err
    assert "1 calls answered from the ledger, 0 asked anew" in ended.out
    assert "The result that is stored is the same." in ended.out
    assert len(model.requests) == asked

    model.reply = says("pear")
    changed = (await asking.but(ASKING_PROMPT="A juicy word for").run(*step, "--json")).json
    assert (changed["result"], changed["askedAnew"], changed["answersTaken"]) == ("pear", 1, 0)
    assert changed["difference"][-2:] == ['-"apple"', '+"pear"']
    fresh = (await asking.run(*step, "--fresh", "--item", "1", "--json")).json
    assert (fresh["result"], fresh["item"], fresh["askedAnew"]) == ("pear", 1, 1)
    assert len(model.requests) == asked + 2
    assert tuple(await connection.fetchrow(digest)) == before
    await connection.close()


async def test_what_cannot_be_tried_is_refused_in_words(
    asking: Program, completed: str, tmp_path: Path
) -> None:
    for words, code, said in (
        (("step", completed, "1", "THINK", *FLOW), 2, "--dry-run"),
        (("step", completed, "2", "THINK", "--dry-run", *FLOW), 1, "It has: 1 THINK, 1 EXECUTE"),
        (("step", completed, "1", "EXECUTE", "--item", "7", "--dry-run", *FLOW), 1, "0 to 1"),
        (("sessions", "replay", completed), 2, "no flow 'asking'"),
        (("sessions", "replay", "nothing", *FLOW), 1, "no session"),
    ):
        ended = await asking.run(*words)
        assert ended.code == code, (words, ended.err)
        assert said in ended.err
    other = tmp_path / "other.json"
    for text, said in (("{", "no JSON"), ("{}", "--format recording"),
                       ('{"ekidenRecording": 1, "calls": 3}', "damaged")):  # fmt: skip
        other.write_text(text)
        ended = await asking.run("sessions", "replay", str(other), *FLOW)
        assert ended.code == 1
        assert said in ended.err


async def test_a_recorded_session_goes_on_in_another_database(
    program: Program, alone: Program, tmp_path: Path
) -> None:
    made = await program.run("run", "toy", "--flow", TOY, "--name", "x", "--json")
    session, file = made.json["sessionId"], str(tmp_path / "toy.json")
    await program.run("sessions", "export", session, "--format", "recording", "--output", file)
    came = await alone.run("sessions", "import", file)
    assert came.code == 0, came.err
    assert f"Session {session} is here now, AWAITING_REVIEW." in came.out
    again = await alone.run("sessions", "import", file)
    assert again.code == 1
    assert "in this database already" in again.err
    assert (await alone.run("sessions", "approve", session)).code == 0
    ended = await alone.run("resume", session, "--flow", TOY, "--auto-approve", "--json")
    assert ended.json["status"] == "COMPLETED"
    assert (await alone.run("verify")).code == 0
    assert (await alone.run("sessions", "replay", session, "--flow", TOY)).code == 0
