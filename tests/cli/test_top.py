"""``ekiden top``: one look, for people and for programs, and a live one."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ekiden.api.counting import Counting
from ekiden.cli.watching import look, picture
from ekiden.store.connection import open_pool
from ekiden.store.sessions import Sessions
from tests.cli.program import TOY, Program


@pytest.fixture
async def at_gate(program: Program) -> str:
    """A session with two retries behind it that waits at a gate."""
    ended = await program.run(
        "run", "toy", "--flow", TOY, "--name", "x", "--mood", "unlucky", "--json"
    )
    session_id: str = ended.json["sessionId"]
    await asyncio.sleep(4.2)  # what ended is counted once it is so old
    return session_id


async def test_one_look_has_the_figures(program: Program, at_gate: str) -> None:
    seen: Any = (await program.run("top", "--json")).json
    assert seen["attempts"]["total"] == 8
    assert seen["attempts"]["outcomes"] == {"COMPLETED": 5, "RETRIED": 3}
    assert [(e["kind"], e["step"], e["count"]) for e in seen["errors"]] == [
        ("RuntimeError", "EXECUTE", 3)
    ]
    assert seen["now"]["sessions"] == {"AWAITING_REVIEW": 1}
    assert seen["costPerHour"] == 0
    assert (await program.run("top", "--json", "--flow", "other")).json["attempts"]["total"] == 0

    shown = (await program.run("top", "--once")).out
    assert "1 AWAITING_REVIEW" in shown
    assert "8 attempts, 38 % wrong" in shown
    assert "3 × RuntimeError at toy phase 1 EXECUTE (50 % of its attempts)" in shown
    assert "No worker is here" in shown
    assert "toy: Phase 1" in shown


async def test_what_others_wrote_cannot_steer_the_terminal(
    program: Program, database: str, at_gate: str
) -> None:
    async with open_pool(database) as pool:
        await pool.execute("UPDATE ekiden.sessions SET title = E'\\x1b[2Jboo', status = 'RUNNING'")
        sessions = Sessions(pool, database)
        seen = await look(sessions, Counting(sessions.metrics), None)
    out = io.StringIO()
    Console(file=out, width=200).print(picture(seen))
    assert "boo" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_in_a_terminal_it_stays_until_ctrl_c(program: Program, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [str(Path(sys.executable).with_name("ekiden")), "top", "--every", "0.5"]
    environment = program._environment | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        said = b""
        while said.count(b"ekiden top") < 3:  # it looks again and again
            said += os.read(leader, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(leader, 65536):
                said += chunk
        except OSError:  # the terminal is closed
            pass
        assert process.wait(20) == 0
    os.close(leader)
    assert b"Traceback" not in said
