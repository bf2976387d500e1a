"""Decisions over HTTP: every verb, what was seen, once however many ask."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest

from tests.api.conftest import Start
from tests.api.relay import Relay

BASE = "/api/demo/cot-session"


async def at_gate(client: httpx2.AsyncClient, relay: Relay, **options: Any) -> str:
    """Make a session that waits at the gate of its first phase; return its address."""
    body = {"theme": "x", "start": True, "actor": "starter", **options}
    session = (await client.post(f"{BASE}/create", json=body)).json()["sessionId"]
    await relay.run_phase(session)
    return f"{BASE}/{session}"


async def review(client: httpx2.AsyncClient, session: str, **of: Any) -> httpx2.Response:
    headers = of.pop("headers", {})
    return await client.post(f"{session}/review", json=of, headers=headers)


async def test_an_edit_is_a_new_revision_that_is_then_approved(
    client: httpx2.AsyncClient, relay: Relay
):
    session = await at_gate(client, relay)
    seen = (await client.get(f"{session}/progress")).headers["etag"]
    edited = await review(client, session, verb="edit", output={"made": "by hand"}, actor="ann")
    assert edited.status_code == 200
    assert edited.json()["status"] == "AWAITING_REVIEW"
    assert edited.headers["etag"] == f'"{edited.json()["edited"]}"' != seen
    stale = await review(client, session, verb="approve", headers={"If-Match": seen})
    assert stale.status_code == 412
    assert stale.json()["type"] == "urn:ekiden:problem:stale-revision"
    passed = await review(
        client, session, verb="approve", headers={"If-Match": edited.headers["etag"]}
    )
    assert passed.json()["currentPhase"] == 2
    shown = (await client.get(session)).json()["revisions"]
    assert [(r["author"], r["approvedBy"], r["output"]) for r in shown] == [
        ("model", None, {"made": True}),
        ("ann", "api", {"made": "by hand"}),
    ]


async def test_a_reject_needs_a_note_and_begins_the_phase_again(
    client: httpx2.AsyncClient, relay: Relay
):
    session = await at_gate(client, relay)
    bare = await review(client, session, verb="reject")
    assert bare.status_code == 422
    assert bare.json()["errors"] == [
        {"field": "comment", "message": "is required to reject an output"}
    ]
    sent = (await review(client, session, verb="reject", comment="shorter", actor="ann")).json()
    assert (sent["status"], sent["currentPhase"], sent["currentStep"]) == ("RUNNING", 1, "THINK")
    assert sent["phases"][0]["generation"] == 2
    (line,) = (await client.get(f"{session}/reviews")).json()["reviews"]
    assert (line["verb"], line["actor"], line["comment"]) == ("reject", "ann", "shorter")
    assert line["waitedMs"] >= 0


async def test_a_completed_session_can_be_taken_up_again_from_any_phase(
    client: httpx2.AsyncClient, relay: Relay
):
    session = await at_gate(client, relay)
    await review(client, session, verb="approve")
    await relay.run_phase(session.rpartition("/")[2])
    assert (await client.get(f"{session}/progress")).json()["status"] == "COMPLETED"
    # Nothing was read through ctx.output, so the second phase depends on nothing.
    assert (await client.get(f"{session}/stale", params={"phase": 1})).json() == {
        "phase": 1, "stale": [], "kept": [2],
    }  # fmt: skip
    again = (await review(client, session, verb="rerun", phase=1, step="INTEGRATE")).json()
    assert (again["status"], again["kept"], again["completedAt"]) == ("RUNNING", [2], None)
    await relay.complete(await relay.claim(session.rpartition("/")[2]), '{"made": 2}')
    done = (await review(client, session, verb="approve")).json()
    assert done["status"] == "COMPLETED"
    shown = (await client.get(session)).json()["revisions"]
    first, second = (r["id"] for r in shown if r["phase"] == 1)
    compared = await client.get(f"{session}/compare", params={"old": first, "new": second})
    assert compared.json()["changes"] == [{"op": "replace", "path": "/made", "old": True, "new": 2}]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"verb": "dance"}, 422),
        ({"verb": "edit"}, 422),
        ({"verb": "budget"}, 422),
        ({"verb": "rerun", "step": "SLEEP"}, 422),
        ({"verb": "rerun", "phase": 0}, 422),  # 0 is the session, and only for a budget
        ({"verb": "edit", "phase": 0, "output": 1}, 422),
        ({"verb": "approve", "phase": 0}, 422),
        ({"verb": "rerun", "phase": 2}, 409),  # it has not run yet
        ({"verb": "rerun", "step": "EXECUTE"}, 409),  # the phase has none
        ({"verb": "edit", "phase": 2, "output": 1}, 409),
        ({"verb": "accept"}, 409),
        ({"verb": "approve", "phase": 2}, 409),
        ({"verb": "approve", "actor": "flow"}, 422),  # what approves by itself
        ({"verb": "approve", "phace": 1}, 422),
    ],
)
async def test_what_cannot_be_decided_is_refused_and_changes_nothing(
    client: httpx2.AsyncClient, relay: Relay, given: dict[str, Any], status: int
):
    session = await at_gate(client, relay)
    before = (await client.get(f"{session}/progress")).json()
    answer = await review(client, session, **given)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await client.get(f"{session}/progress")).json() == before | {
        "waitedForPeopleMs": pytest.approx(before["waitedForPeopleMs"], abs=5000)
    }


async def test_a_budget_is_the_new_one_as_a_whole(client: httpx2.AsyncClient, relay: Relay):
    session = await at_gate(client, relay)
    for budget, holds in (
        ({"maxCostUsd": 0.5, "maxTokens": 70}, [(0.5, 70)]),
        ({"maxTokens": 80}, [(None, 80)]),
        ({}, []),
    ):
        set_ = await review(client, session, verb="budget", phase=0, budget=budget)
        assert set_.status_code == 200
        found = await relay.sessions.budgets.of(session.rpartition("/")[2])
        assert [(b.max_cost_usd and float(b.max_cost_usd), b.max_tokens) for b in found] == holds


async def test_a_decision_sent_again_with_its_key_is_done_once(
    client: httpx2.AsyncClient, relay: Relay
):
    session = await at_gate(client, relay)
    key = {"Idempotency-Key": "again"}
    for replayed in (None, "true", "true"):
        answer = await review(client, session, verb="reject", comment="no", headers=key)
        assert answer.status_code == 200
        assert answer.headers.get("idempotent-replayed") == replayed
    assert len((await client.get(f"{session}/reviews")).json()["reviews"]) == 1
    other = await review(client, session, verb="rerun", headers=key)
    assert other.status_code == 409


async def test_a_key_stands_for_all_that_was_asked_for(client: httpx2.AsyncClient, relay: Relay):
    session = await at_gate(client, relay, options={"gates": {"1": {"approvals": 2}}})
    of_edit, of_gate = ({"Idempotency-Key": key} for key in ("edit", "gate"))

    async def said(**asked: Any) -> tuple[int, str | None]:
        answer = await review(client, session, **asked)
        return answer.status_code, answer.headers.get("idempotent-replayed")

    for output, told in (({}, (200, None)), ({}, (200, "true")), ([], (409, None))):
        assert await said(verb="edit", output=output, headers=of_edit) == told
    standing = {"If-Match": (await client.get(f"{session}/progress")).headers["etag"]}
    assert await said(verb="approve", actor="ann", headers=of_gate | standing) == (200, None)
    for asked in (
        {"actor": "ann", "headers": of_gate},  # whatever stands
        {"actor": "bob", "headers": of_gate | standing},
        {"actor": "ann", "headers": of_gate | standing, "comment": "why"},
    ):
        assert await said(verb="approve", **asked) == (409, None), asked
    assert await said(verb="approve", actor="ann", headers=of_gate | standing) == (200, "true")
    shown = (await client.get(f"{session}/reviews")).json()["reviews"]
    assert [(r["verb"], r["actor"]) for r in shown] == [("edit", "api"), ("approve", "ann")]


async def test_a_key_of_before_it_was_kept_what_for_is_known_by_its_verb(
    client: httpx2.AsyncClient, relay: Relay
):
    session = await at_gate(client, relay)
    key = {"Idempotency-Key": "old"}
    await review(client, session, verb="reject", comment="no", headers=key)
    await relay.pool.execute("UPDATE ekiden.reviews SET asked = NULL")
    again = await review(client, session, verb="reject", comment="no", headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert (await review(client, session, verb="rerun", headers=key)).status_code == 409


async def test_gates_of_one_session_may_ask_for_more_than_the_flow(
    client: httpx2.AsyncClient, relay: Relay
):
    gates = {"1": {"approvals": 2, "fourEyes": True}}
    session = await at_gate(client, relay, options={"gates": gates})
    assert (await client.get(session)).json()["options"]["gates"] == gates
    mine = await review(client, session, verb="approve", actor="starter")
    assert mine.status_code == 409
    assert "four eyes" in mine.json()["detail"]
    assert (await review(client, session, verb="approve", actor="ann")).json()["missing"] == 1
    seen = (await client.get(f"{session}/progress")).json()
    assert (seen["approvedBy"], seen["missing"]) == (["ann"], 1)
    assert (await review(client, session, verb="approve", actor="bob")).json()["missing"] == 0


async def test_proceeding_says_that_others_must_approve_as_well(
    client: httpx2.AsyncClient, relay: Relay
):
    session = await at_gate(client, relay, options={"gates": {"1": {"approvals": 2}}})
    for who, (phase, missing) in (("ann", (1, 1)), ("bob", (2, 0))):
        said = await client.post(f"{session}/proceed-next-phase", json={"actor": who})
        told = said.json()
        assert (told["currentPhase"], told["missing"]) == (phase, missing), said.text


@pytest.mark.parametrize(
    "options",
    [
        {"gates": {"0": {}}},
        {"gates": {"1": {"approvals": 3, "approvers": ["a", "b"]}}},
        {"gates": {"1": {"mode": "perhaps"}}},
        {"models": {"1.SLEEP": "openai:gpt-5"}},
        {"models": {"1": "gpt-5"}},
        {"budget": {"maxCostUsd": -1}},
        {"budgets": {"33": {"maxTokens": 1}}},
    ],
)
async def test_options_that_make_no_sense_name_the_field(
    client: httpx2.AsyncClient, relay: Relay, options: dict[str, Any]
):
    answer = await client.post(f"{BASE}/create", json={"theme": "x", "options": options})
    assert answer.status_code == 422
    assert any(e["field"].startswith("options") for e in answer.json()["errors"]), answer.json()


async def test_a_fork_shares_what_is_approved_and_begins_after_it(
    client: httpx2.AsyncClient, relay: Relay
):
    session = await at_gate(client, relay)
    early = await client.post(f"{session}/fork", json={"phase": 1})
    assert early.status_code == 409, "nothing is approved yet"
    await review(client, session, verb="approve")
    made = await client.post(f"{session}/fork", json={"phase": 1, "title": "another"})
    assert made.status_code == 201
    told = made.json()
    assert made.headers["location"] == f"{BASE}/{told['sessionId']}"
    assert (told["title"], told["currentPhase"], told["completedPhases"]) == ("another", 2, [1])
    assert told["forkOf"] == session.rpartition("/")[2]
    assert (await client.post(f"{session}/fork", json={"phase": 2})).status_code == 409


async def test_a_fork_sent_again_with_its_key_makes_one_session(serve: Start, relay: Relay):
    client = await serve()
    session = await at_gate(client, relay)
    await review(client, session, verb="approve")
    key = {"Idempotency-Key": "once"}

    async def fork(of: str = session, phase: int = 1) -> httpx2.Response:
        return await client.post(f"{of}/fork", json={"phase": phase}, headers=key)

    at_once = await asyncio.gather(*(fork() for _ in range(8)))
    assert {a.status_code for a in at_once} == {201}
    assert len({a.headers["location"] for a in at_once}) == 1
    assert Counter(a.headers.get("idempotent-replayed") for a in at_once) == {"true": 7, None: 1}
    # Whatever has become of what it was made of, it is still the same fork.
    await review(client, session, verb="rerun", phase=1)
    again = await fork()
    assert again.headers["location"] == at_once[0].headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    other = await at_gate(client, relay)
    for else_ in (await fork(phase=0), await fork(of=other, phase=0)):
        assert else_.status_code == 409
        assert "Idempotency-Key" in else_.json()["detail"]
    created = await client.post(f"{BASE}/create", json={"theme": "x"}, headers=key)
    assert created.status_code == 409
    key = {"Idempotency-Key": "of a create"}
    await client.post(f"{BASE}/create", json={"theme": "x"}, headers=key)
    assert (await fork(phase=0)).status_code == 409


async def test_what_waits_for_people_is_one_list_longest_first(
    client: httpx2.AsyncClient, relay: Relay
):
    first, second = [await at_gate(client, relay) for _ in range(2)]
    await review(client, second, verb="edit", output={"made": 1})
    queue = (await client.get("/api/waiting")).json()
    assert [s["sessionId"] for s in queue["sessions"]] == [
        first.rpartition("/")[2],
        second.rpartition("/")[2],
    ], "an edit does not make anybody wait anew"
    assert queue["times"]["waiting"] == 2
    assert queue["sessions"][0]["phaseTitle"] == "First"
    assert (await client.get("/api/waiting", params={"flow": "other"})).json()["sessions"] == []


async def test_of_all_that_click_at_once_each_gate_lets_one_pass(serve: Start, relay: Relay):
    client = await serve()
    sessions = [await at_gate(client, relay) for _ in range(8)]

    async def click(session: str, n: int) -> int:
        verb = {"verb": "approve"} if n % 2 else {"verb": "reject", "comment": "no"}
        return (await client.post(f"{session}/review", json=verb)).status_code

    for session in sessions:
        seen = Counter(await asyncio.gather(*(click(session, n) for n in range(32))))
        assert seen == {200: 1, 409: 31}
        assert len((await client.get(f"{session}/reviews")).json()["reviews"]) == 1
