"""Decisions from the command line, and at a gate in a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.program import PATIENCE, TOY, Program

CHOOSY = "tests.cli.guarded:choosy"


async def at_gate(program: Program) -> str:
    ended = await program.run("run", "toy", "--flow", TOY, "--name", "x", "--json")
    assert ended.code == 3, ended.err
    return str(ended.json["sessionId"])


async def test_what_waits_is_listed_edited_approved_and_on_the_record(program: Program) -> None:
    session = await at_gate(program)
    listed = await program.run("sessions", "waiting")
    assert session in listed.out
    assert "1 waiting" in listed.out
    new = program.folder / "new.json"
    new.write_text('{"total": "many"}')
    wrong = await program.run("sessions", "edit", session, "--file", str(new))
    assert wrong.code == 2
    assert "total" in wrong.err
    new.write_text('{"total": 20}')
    edited = await program.run("sessions", "edit", session, "--file", str(new))
    assert edited.code == 0, edited.err
    assert (await program.run("sessions", "approve", session)).code == 0
    ended = await program.run("resume", session, "--flow", TOY, "--json")
    assert ended.json["drafts"][0]["body"] == {"double": 40}
    record = await program.run("sessions", "reviews", session)
    assert [line.split()[3] for line in record.out.splitlines()[1:]] == ["edit", "approve"]


async def test_no_editor_opens_for_an_edit_that_could_not_be_stored(program: Program) -> None:
    opened = program.folder / "opened"
    person = program.but(EDITOR=f"touch {opened} --")
    session = await at_gate(program)

    async def refused(why: str, *words: str) -> None:
        ended = await person.run("sessions", "edit", session, *words)
        assert (ended.code, opened.exists()) == (1, False)
        assert why in ended.err

    await refused("Phase 2 has no output yet", "--phase", "2")
    ended = await program.run("resume", session, "--flow", TOY, "--auto-approve", "--json")
    assert ended.json["status"] == "COMPLETED", ended.err
    await refused("Phase 2 is the last one")
    assert (await program.run("sessions", "rerun", session, "--phase", "1")).code == 0
    await refused("It is running: pause it first.")


async def test_a_phase_goes_back_and_forth_and_a_fork_pays_nothing(program: Program) -> None:
    session = await at_gate(program)
    sent = await program.run("sessions", "reject", session, "--note", "once more", "--json")
    assert (sent.code, sent.json["status"]) == (0, "RUNNING"), sent.err
    assert (await program.run("resume", session, "--flow", TOY, "--json")).code == 3
    assert (await program.run("sessions", "approve", session)).code == 0
    assert (await program.run("resume", session, "--flow", TOY, "--json")).code == 0
    again = await program.run("sessions", "rerun", session, "--phase", "1", "--step", "integrate")
    assert again.code == 0, again.err
    assert "So do the phases that depended on it: 2." in again.out
    forked = await program.run("sessions", "fork", session, "--phase", "0", "--json")
    assert (forked.code, forked.json["status"]) == (0, "RUNNING"), forked.err


async def test_a_budget_and_failed_items_are_decided_by_name(program: Program) -> None:
    session = await at_gate(program)
    for words in (("accept", session), ("retry", session)):
        refused = await program.run("sessions", *words)
        assert refused.code == 1
        assert "has not stopped over items" in refused.err
    assert (await program.run("sessions", "budget", session, "--max-tokens", "10")).code == 0
    assert (await program.run("sessions", "rerun", session, "--step", "nap")).code == 2
    for verb in ("rerun", "edit"):
        assert (await program.run("sessions", verb, session, "--phase", "0")).code == 2


async def test_after_items_have_failed_resume_leaves_it_to_accept_or_retry(
    program: Program,
) -> None:
    loaded = ("--flow", CHOOSY)
    ended = await program.run("run", "choosy", *loaded, "--name", "x", "--mood", "picky", "--json")
    assert (ended.code, ended.json["status"]) == (3, "PAUSED"), ended.err
    session = str(ended.json["sessionId"])
    refused = await program.run("sessions", "resume", session)
    assert refused.code == 1
    for verb in ("accept", "retry"):
        assert f"ekiden sessions {verb} {session}" in refused.err
    left = await program.run("resume", session, *loaded)
    assert left.code == 3, left.err
    assert f"ekiden sessions accept {session}" in left.out
    terminal = Terminal(program, "resume", session, *loaded)
    terminal.says("[a]ccept what there is")
    terminal.types("a")
    terminal.says("Gate 1 of 1: Collect numbers")
    terminal.says("total: 4")
    terminal.says("[q]uit:")
    terminal.types("q")
    assert terminal.end() == 3


async def test_webhooks_are_added_listed_and_stopped(program: Program) -> None:
    assert (await program.run("webhooks", "add", "ftp://example.org")).code == 2
    assert (await program.run("webhooks", "add", "https://a.example", "--event", "x")).code == 2
    added = await program.run("webhooks", "add", "https://a.example/hook")
    assert "whsec_" in added.out
    listed = await program.run("webhooks", "list")
    assert "https://a.example/hook" in listed.out
    assert "whsec_" not in listed.out
    stopped = await program.run("webhooks", "stop", "1", "--json")
    assert stopped.json == {"id": 1, "stopped": True}
    assert (await program.run("webhooks", "stop", "1")).code == 1
    assert "Nothing was sent." in (await program.run("webhooks", "log")).out


class Terminal:
    """A person at a terminal: reads what is shown, types lines."""

    def __init__(self, program: Program, *words: str, ahead: str = "") -> None:
        self._outer, inner = pty.openpty()
        os.write(self._outer, ahead.encode())  # typed before anything runs
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ekiden")), *words],
            cwd=program.folder, env=program.environment | {"TERM": "dumb", "COLUMNS": "100"},
            stdin=inner, stdout=inner, stderr=inner,
        )  # fmt: skip
        os.close(inner)
        self.seen = ""
        self._read = 0  # of what was seen, how much was looked at already

    def says(self, text: str) -> None:
        """Wait until it says this after what it had said before."""
        self._until(lambda: text in self.seen[self._read :], text)
        self._read = self.seen.index(text, self._read) + len(text)

    def types(self, line: str) -> None:
        os.write(self._outer, f"{line}\n".encode())

    def end(self) -> int:
        self._until(lambda: self.process.poll() is not None, "its end")
        os.close(self._outer)
        return self.process.returncode

    def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, f"never came: {what}\n{self.seen}"
            if select.select([self._outer], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self._outer, 65536).decode(errors="replace")
                except OSError:
                    self.process.wait(PATIENCE)  # the other end is closed


@pytest.fixture
def editor(program: Program) -> Path:
    """An editor that writes a wrong total first, then keeps the error it is shown and mends it."""
    script = program.folder / "editor.py"
    script.write_text(
        "import sys, pathlib\n"
        "file = pathlib.Path(sys.argv[1]); text = file.read_text()\n"
        "seen = pathlib.Path(__file__).with_suffix('.seen')\n"
        "seen.write_text(text)\n"
        "new = '\"lots\"' if 'does not fit' not in text else '21'\n"
        "file.write_text('{\"total\": %s}' % new)\n"
    )
    return script


def test_at_a_gate_a_person_edits_sends_back_goes_back_and_approves(
    program: Program, editor: Path
) -> None:
    person = program.but(EDITOR=f"{sys.executable} {editor}")
    terminal = Terminal(person, "run", "toy", "--flow", TOY, "--name", "x")
    terminal.says("Gate 1 of 1: Collect numbers")
    terminal.says("[q]uit:")
    terminal.types("r")
    terminal.says("What should be different?")
    terminal.types("fewer numbers")
    terminal.says("Gate 1 of 1: Collect numbers")
    terminal.says("[q]uit:")
    terminal.types("g")
    terminal.says("To which phase")
    terminal.types("1")
    terminal.says("From which step")
    terminal.types("integrate")
    terminal.says("Phase 1 would run again.")
    terminal.says("Do it?")
    terminal.types("y")
    terminal.says("Gate 1 of 1: Collect numbers")
    terminal.says("[q]uit:")
    terminal.types("e")
    terminal.says("total: 21")
    terminal.says("[q]uit:")
    terminal.types("a")
    terminal.says("double: 42")
    assert terminal.end() == 0
    assert "total: must be a whole number" in editor.with_suffix(".seen").read_text()


def test_what_is_typed_before_a_gate_is_seen_does_not_pass_it(program: Program) -> None:
    terminal = Terminal(program, "run", "toy", "--flow", TOY, "--name", "x", ahead="a\napprove\na")
    terminal.says("[q]uit:")
    terminal.types("r")
    terminal.says("What should be different?")
    terminal.types("fewer numbers\na\napprove")  # pasted: the note is its first line
    terminal.says("Gate 1 of 1: Collect numbers")
    terminal.says("[q]uit:")
    terminal.types("q")
    assert terminal.end() == 3


def test_an_answer_is_a_letter_or_its_whole_word(program: Program) -> None:
    terminal = Terminal(program, "run", "toy", "--flow", TOY, "--name", "x")
    for no_answer in ("and shorter", "aa", "approved", "yes", ""):
        terminal.says("[q]uit:")
        terminal.types(no_answer)
    terminal.says("[q]uit:")
    terminal.types("Approve")
    terminal.says("double: 28")
    assert terminal.end() == 0


def test_leaving_a_gate_says_how_to_go_on(program: Program) -> None:
    terminal = Terminal(program, "run", "toy", "--flow", TOY, "--name", "x")
    terminal.says("[q]uit:")
    terminal.types("q")
    terminal.says("ekiden sessions approve")
    terminal.says("ekiden resume")
    assert terminal.end() == 3


def test_held_steps_are_started_one_by_one(program: Program) -> None:
    held = program.but(AUTO_PROGRESS_STEPS="false")
    terminal = Terminal(held, "run", "toy", "--flow", TOY, "--name", "x")
    for step in ("EXECUTE", "INTEGRATE"):
        terminal.says(f"Start phase 1 {step}?")
        terminal.types("y")
    terminal.says("Gate 1 of 1: Collect numbers")
    terminal.says("[q]uit:")
    terminal.types("q")
    assert terminal.end() == 3
