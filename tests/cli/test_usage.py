"""What is wrong is said in one line, with the right exit code, before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.program import TOY, Ended, Program


def one_line(ended: Ended) -> str:
    assert not ended.out
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


@pytest.fixture
def nowhere(alone: Program) -> Program:
    """No database must be needed to say that something is wrong."""
    return alone.but(DATABASE_URL="postgresql://someone:s3cret@127.0.0.1:1/nothing")


COMMANDS = [
    ("run", "viral", "--theme", "x"),
    ("demo",),
    ("resume", "x"),
    ("watch", "x"),
    ("up",),
    ("serve",),
    ("worker",),
    ("migrate",),
    ("sessions", "list"),
    ("sources", "list"),
    ("models", "pull"),
    ("doctor",),
    ("verify",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_setting_that_does_not_parse_is_named_and_ends_every_command(
    nowhere: Program, words: tuple[str, ...]
) -> None:
    ended = nowhere.but(MAX_RETRIES="many")(*words)
    assert ended.code == 2
    assert "MAX_RETRIES=many" in one_line(ended)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "toy", "--flow", TOY, "--name", "x"),
        ("resume", "01a20a2f-f395-72e2-baef-37be7c736c19"),
        ("watch", "01a20a2f-f395-72e2-baef-37be7c736c19"),
        ("migrate",),
        ("verify",),
        ("sessions", "list"),
        ("sources", "list"),
        ("up", "--port", "0"),
        ("serve", "--port", "0"),
    ],
    ids=" ".join,
)
def test_a_database_that_cannot_be_reached_is_one_line_with_its_address(
    nowhere: Program, words: tuple[str, ...]
) -> None:
    ended = nowhere(*words)
    assert ended.code == 1
    assert "127.0.0.1:1" in one_line(ended)
    assert "s3cret" not in ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "nope"), "no flow 'nope'"),
        (("run", "toy", "--flow", "no_such_module:toy"), "no_such_module"),
        (("run", "toy", "--flow", TOY), "name: Field required"),
        (("run", "toy", "--flow", TOY, "--nmae", "x"), "--name"),
        (("run", "toy", "--flow", TOY, "--name"), "--name needs a value"),
        (("run", "toy", "--flow", TOY, "--name", "x", "--mood", "odd"), "mood"),
        (("run", "toy", "--flow", TOY, "--input", "{"), "--input is not JSON"),
        (("run", "toy", "--flow", TOY, "--input-file", "gone.json"), "gone.json"),
        (("run", "toy", "two", "--flow", TOY, "--name", "x"), "'two'"),
        (("run", "--name", "x"), "ekiden run FLOW"),
        (("sessions", "list", "--status", "ODD"), "--status ODD"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_use_is_one_line_and_exit_2(
    nowhere: Program, words: tuple[str, ...], says: str
) -> None:
    ended = nowhere(*words)
    assert ended.code == 2, ended.err
    assert says in one_line(ended)


@pytest.mark.parametrize("command", ["up", "serve"])
def test_strangers_may_not_knock_without_a_key(nowhere: Program, command: str) -> None:
    ended = nowhere(command, "--host", "0.0.0.0")
    assert ended.code == 2
    assert "EKIDEN_API_KEY" in one_line(ended)


def test_an_unknown_model_is_a_setting_that_is_wrong(program: Program) -> None:
    ended = program.but(EKIDEN_MODEL="odd")("run", "toy", "--flow", TOY, "--name", "x")
    assert ended.code == 2
    assert "EKIDEN_MODEL" in one_line(ended)


@pytest.mark.parametrize("verb", ["show", "approve", "pause", "resume", "cancel", "export"])
def test_a_session_that_does_not_exist_is_one_line_and_exit_1(program: Program, verb: str) -> None:
    for session_id in ("nonsense", "01a20a2f-f395-72e2-baef-37be7c736c19"):
        ended = program("sessions", verb, session_id)
        assert ended.code == 1
        assert session_id in one_line(ended)


HEAVY = ["asyncio", "asyncpg", "fastapi", "openai", "orjson", "rich", "structlog", "uvicorn"]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["up", "--help"]])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys; from ekiden.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout
    assert ended.stderr == "[]\n"
