"""What was typed in an editor is never lost, whatever happens when it is to be stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ekiden.cli import editing
from ekiden.errors import DatabaseUnreachable, EkidenError, InputInvalid, StaleRevision
from tests.cli.program import TOY, Program
from tests.cli.test_deciding import Terminal, at_gate

AGAIN = "ekiden sessions edit ID"
Types = Callable[[str], None]


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Types:
    """Makes the editor one that does this to ``file``."""

    def be(code: str) -> None:
        monkeypatch.setenv("VISUAL", f"{sys.executable} {script(tmp_path, code)}")
        monkeypatch.setattr(editing.tempfile, "tempdir", str(tmp_path))

    return be


def script(folder: Path, code: str) -> Path:
    made = folder / "editor.py"
    made.write_text(f"import pathlib, subprocess, sys\nfile = pathlib.Path(sys.argv[1])\n{code}\n")
    return made


def edit(keep: Callable[[Any], None]) -> bool:
    return editing.edit({"total": 1}, what="The output", again=AGAIN, keep=keep)


def kept(message: str) -> Path:
    """Return the file that a message names, which is what its command takes."""
    said, _, command = message.partition("Go on with it: ")
    named = Path(command.removeprefix(f"{AGAIN} --file "))
    assert f"What you typed is in {named}." in said
    return named


@pytest.mark.parametrize("error", [StaleRevision("It changed."), DatabaseUnreachable("Gone.")])
def test_what_cannot_be_stored_is_in_the_file_that_the_error_names(
    types: Types, error: EkidenError
):
    types("""file.write_text('# mine\\n{"total": 21}')""")

    def keep(_value: Any) -> None:
        raise error

    said = error.message
    with pytest.raises(type(error)) as caught:
        edit(keep)
    assert caught.value.message.startswith(said)
    assert json.loads(kept(caught.value.message).read_text()) == {"total": 21}


def test_what_nobody_expected_is_told_in_the_same_way(types: Types):
    types("file.write_text('[2]')")

    def keep(_value: Any) -> None:
        raise OSError("pool is closed")

    with pytest.raises(EkidenError, match="The output was not stored: pool is closed") as caught:
        edit(keep)
    assert kept(caught.value.message).read_text() == "[2]\n"


def test_an_editor_that_dies_loses_nothing_that_it_had_saved(types: Types):
    types("file.write_text('[2'); sys.exit(1)")
    with pytest.raises(EkidenError, match="ended with code 1") as caught:
        edit(lambda _value: None)
    assert kept(caught.value.message).read_text() == "[2\n"


def test_an_editor_that_changed_nothing_leaves_nothing(types: Types, tmp_path: Path):
    types("sys.exit(1)")
    with pytest.raises(EkidenError, match=r"nothing was changed\.$"):
        edit(lambda _value: None)
    assert [file.name for file in tmp_path.iterdir()] == ["editor.py"]


BYTES = r"""
text = file.read_bytes()
if b"does not fit" not in text:
    file.write_bytes(b'"\xff"')
elif b"codec" in text:
    file.write_bytes('"a\u2028b"'.encode())
else:
    file.write_bytes(text + b" ")
"""


def test_bytes_that_are_no_text_and_separators_that_are_text_stay(types: Types):
    seen = []

    def keep(value: Any) -> None:
        seen.append(value)
        if len(seen) == 1:
            raise InputInvalid("Wrong.")

    types(BYTES)
    assert edit(keep)
    assert seen == ["a\u2028b"] * 2


SOMEBODY_ELSE = """
if '21' not in file.read_text():
    other = pathlib.Path(__file__).with_name('other.json')
    other.write_text('{"total": 5}')
    subprocess.run([*COMMAND, 'sessions', 'edit', SESSION, '--file', str(other)], check=True)
file.write_text('{"total": 21}')
"""


def meanwhile(program: Program, session: str) -> Program:
    """The same, with an editor during which somebody else edits the same output."""
    command = [sys.executable, "-m", "ekiden.cli"]
    code = f"COMMAND, SESSION = {command!r}, {session!r}{SOMEBODY_ELSE}"
    editor = f"{sys.executable} {script(program.folder, code)}"
    return program.but(VISUAL=editor, TMPDIR=str(program.folder))


async def test_an_edit_of_what_has_changed_meanwhile_goes_on_with_the_command_it_names(
    program: Program,
):
    session = await at_gate(program)
    ended = await meanwhile(program, session).run("sessions", "edit", session)
    assert ended.code == 1
    assert "Look again, then decide." in ended.err
    command = ended.err.partition("Go on with it: ekiden ")[2].split()
    assert command[:-1] == ["sessions", "edit", session, "--phase", "1", "--file"]
    again = await program.run(*command)
    assert again.code == 0, again.err
    shown = await program.run("sessions", "show", session, "--json")
    assert [r["output"]["total"] for r in shown.json["revisions"]] == [14, 5, 21]


async def test_at_the_terminal_the_gate_is_then_shown_as_it_is_now(program: Program):
    session = await at_gate(program)
    terminal = Terminal(meanwhile(program, session), "resume", session, "--flow", TOY)
    terminal.says("[q]uit:")
    terminal.types("e")
    terminal.says("What you typed is in ")
    terminal.says(f"ekiden sessions edit {session} --phase 1 --file ")
    terminal.says("total: 5")
    terminal.says("[q]uit:")
    terminal.types("q")
    assert terminal.end() == 3
