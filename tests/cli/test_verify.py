"""``ekiden verify``: a table for people, an object for machines, an exit code for scripts."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from ekiden.store.verify import INVARIANTS
from tests.cli.program import TOY, Program


@pytest.fixture
async def session(program: Program) -> str:
    """A session that has completed."""
    ended = await program.run(
        "run", "toy", "--flow", TOY, "--name", "x", "--auto-approve", "--json"
    )
    session_id: str = ended.json["sessionId"]
    return session_id


async def break_it(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("DELETE FROM ekiden.events WHERE type = 'session_created'")
    await connection.close()


async def test_a_sound_database_is_a_table_of_what_was_examined_and_exit_0(
    program: Program, session: str
) -> None:
    ended = await program.run("verify")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].endswith(": 1 sessions, 7 tasks, 7 attempts, 0 calls")
    for invariant in INVARIANTS:
        (line,) = (line for line in lines if f" {invariant.name} " in line)
        assert invariant.description in line
        assert line.startswith(("✔", "·"))  # a dot: there was nothing to judge
    assert any("completions_are_told_once" in line and "7 tasks" in line for line in lines)
    assert lines[-1] == f"All {len(INVARIANTS)} invariants hold."


async def test_a_violation_is_named_with_its_ids_and_exit_1(
    program: Program, session: str, database: str
) -> None:
    await break_it(database)
    ended = await program.run("verify")
    assert ended.code == 1
    assert f"✖ sessions_are_told_once: 1\n    {session}\n" in ended.out
    assert f"Violated: 1 of {len(INVARIANTS)} invariants." in ended.out


async def test_json_is_one_object(program: Program, session: str, database: str) -> None:
    sound = await program.run("verify", "--json")
    assert sound.code == 0
    assert {k: v for k, v in sound.json.items() if k not in ("database", "checkedAt")} == {
        "sessions": 1,
        "tasks": 7,
        "attempts": 7,
        "calls": 0,
        "invariants": sound.json["invariants"],
        "violations": 0,
    }
    assert [i["name"] for i in sound.json["invariants"]] == [i.name for i in INVARIANTS]
    await break_it(database)
    broken = await program.run("verify", "--json")
    assert (broken.code, broken.json["violations"]) == (1, 1)
    assert [i for i in broken.json["invariants"] if i["violations"]] == [
        {
            "name": "sessions_are_told_once",
            "description": "one event a creation and an end",
            "of": "sessions",
            "examined": 1,
            "violations": 1,
            "ids": [session],
        }
    ]


async def test_one_session_can_be_checked(program: Program, session: str, database: str) -> None:
    other = (
        await program.run("run", "toy", "--flow", TOY, "--name", "y", "--json")
    ).json["sessionId"]  # fmt: skip
    connection = await asyncpg.connect(database)
    await connection.execute("DELETE FROM ekiden.events WHERE session_id = $1", session)
    await connection.close()
    assert (await program.run("verify", "--session", other)).code == 0
    assert (await program.run("verify", "--session", session)).code == 1
    unknown = await program.run("verify", "--session", "nonsense")
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err.count("\n") == 1


async def test_it_changes_nothing_not_even_the_schema(
    program: Program, database: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("DROP SCHEMA ekiden CASCADE")
    ended = await program.run("verify")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "ekiden migrate" in ended.err
    assert await connection.fetchval("SELECT to_regnamespace('ekiden')") is None
    await connection.close()
