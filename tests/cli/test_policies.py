"""Gates that are not for whoever started the session, from the command line."""

from __future__ import annotations

import pytest

from tests.cli.program import Program
from tests.cli.test_deciding import Terminal

FOUR_EYES = "tests.cli.guarded:four_eyes"


async def test_who_started_a_session_is_on_record_and_may_not_pass_four_eyes(program: Program):
    ann, bob = program.but(LOGNAME="ann"), program.but(LOGNAME="bob")
    ended = await ann.run("run", "four-eyes", "--flow", FOUR_EYES, "--name", "x", "--json")
    assert ended.code == 3, ended.err
    session = ended.json["sessionId"]
    refused = await ann.run("sessions", "approve", session)
    assert refused.code == 1
    assert "ann started this session, so somebody else must approve" in refused.err
    assert (await bob.run("sessions", "approve", session)).code == 0


@pytest.mark.parametrize(
    ("flow", "attribute", "says"),
    [
        ("four-eyes", "four_eyes", "bob started this session, so somebody else must approve"),
        ("by-ann", "by_ann", "bob is none of those who may approve here: ann."),
        ("by-two", "by_two", "Your approval counts; 1 more must approve."),
    ],
)
async def test_auto_approve_ends_at_a_gate_for_others_and_does_not_say_passed(
    program: Program, flow: str, attribute: str, says: str
):
    bob = program.but(LOGNAME="bob")
    loaded = ("--flow", f"tests.cli.guarded:{attribute}")
    ended = await bob.run("run", flow, *loaded, "--name", "x", "--auto-approve", "--json")
    assert (ended.code, ended.json["status"]) == (3, "AWAITING_REVIEW"), ended.err
    assert says in ended.err
    assert "passed" not in ended.err
    session = ended.json["sessionId"]
    assert f"ekiden sessions approve {session}" in ended.err

    again = await bob.run("resume", session, *loaded, "--auto-approve")
    assert again.code == 3, again.err
    assert "passed" not in again.out

    ann = program.but(LOGNAME="ann")
    passed = await ann.run("resume", session, *loaded, "--auto-approve")
    assert passed.code == 0, passed.err
    assert "Gate 1 of 1: Collect numbers — passed (--auto-approve)" in passed.out


async def test_an_approval_that_only_counts_does_not_say_approved(program: Program):
    ann, bob = program.but(LOGNAME="ann"), program.but(LOGNAME="bob")
    loaded = ("--flow", "tests.cli.guarded:by_two")
    ended = await ann.run("run", "by-two", *loaded, "--name", "x", "--json")
    session = ended.json["sessionId"]
    counts = await ann.run("sessions", "approve", session)
    assert (counts.code, counts.out) == (0, "Your approval counts; 1 more must approve.\n")
    passes = await bob.run("sessions", "approve", session)
    assert passes.out.startswith("Approved.\n"), passes.out


async def test_as_json_a_decision_says_what_is_missing_and_what_goes_stale(program: Program):
    ann, bob = program.but(LOGNAME="ann"), program.but(LOGNAME="bob")
    loaded = ("--flow", "tests.cli.guarded:by_two")
    ended = await ann.run("run", "by-two", *loaded, "--name", "x", "--json")
    session = ended.json["sessionId"]
    for who, missing in ((ann, 1), (bob, 0)):
        done = await who.run("sessions", "approve", session, "--json")
        assert (done.json["missing"], done.json["progress"]["missing"]) == (missing, missing)
    ended = await ann.run("resume", session, *loaded, "--json")
    assert ended.json["status"] == "COMPLETED", ended.err
    again = await ann.run("sessions", "rerun", session, "--phase", "1", "--json")
    # The second phase has read nothing of the first.
    assert (again.json["stale"], again.json["kept"]) == ([], [2])


def test_at_a_gate_for_others_a_person_is_asked_again_and_may_leave(program: Program):
    ann = program.but(LOGNAME="ann")
    terminal = Terminal(ann, "run", "four-eyes", "--flow", FOUR_EYES, "--name", "x")
    terminal.says("[q]uit:")
    terminal.types("a")
    terminal.says("somebody else must approve")
    terminal.says("[q]uit:")
    terminal.types("q")
    assert terminal.end() == 3
