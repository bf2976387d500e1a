from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx2

from ekiden.core.model import Error, Options
from tests.api.relay import Relay


async def created(client: httpx2.AsyncClient, **body: object) -> str:
    answer = await client.post("/api/demo/cot-session/create", json={"theme": "tea", **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["sessionId"])


async def test_create_takes_the_input_at_the_top_level(client: httpx2.AsyncClient, base: str):
    answer = await client.post(f"{base}/create", json={"theme": "remote work"})
    assert answer.status_code == 201
    session = answer.json()
    assert answer.headers["location"] == f"{base}/{session['sessionId']}"
    assert session["title"] == "remote work"
    assert session["waitingFor"]["kind"] == "process-async"
    shown = (await client.get(answer.headers["location"])).json()
    assert shown["input"] == {"theme": "remote work"}
    assert shown["createdAt"].endswith("Z")


async def test_create_takes_the_input_as_an_object_with_options(
    client: httpx2.AsyncClient, base: str
):
    body = {
        "input": {"theme": "tea", "count": 2},
        "title": "My tea",
        "start": True,
        "options": {
            "autoProgressSteps": False,
            "autoProgressPhases": True,
            "maxRetries": 7,
            "retryDelay": 1500,
            "workerTimeout": 2000,
            "gates": {"1": {"approvals": 2}},
            "models": {"": "openai:gpt-5", "1.THINK": "anthropic:claude"},
        },
    }
    answer = await client.post(f"{base}/create", json=body)
    assert answer.json()["title"] == "My tea"
    assert answer.json()["waitingFor"]["kind"] == "claim"
    shown = (await client.get(answer.headers["location"])).json()
    assert shown["input"] == body["input"]
    assert shown["options"] == body["options"]


async def test_options_beside_a_top_level_input_are_not_input(
    client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, options={"maxRetries": 0}, title="T")
    shown = (await client.get(f"{base}/{session_id}")).json()
    assert shown["input"] == {"theme": "tea"}
    assert shown["options"]["maxRetries"] == 0


async def test_options_left_out_come_from_the_settings(client: httpx2.AsyncClient, base: str):
    shown = (await client.get(f"{base}/{await created(client)}")).json()
    default = Options()
    assert shown["options"]["maxRetries"] == default.max_retries
    assert shown["options"]["workerTimeout"] == 300_000


MISFITS = [
    ({}, "theme", "is required"),
    ({"theme": 5}, "theme", "must be text"),
    ({"theme": "x" * 41}, "theme", "must have at most 40 characters"),
    ({"theme": ""}, "theme", "must have at least 1 characters"),
    ({"theme": "t", "colour": 1}, "colour", "is not known here"),
    ({"theme": "t", "count": "two"}, "count", "must be a whole number or null"),
    ({"theme": "t", "count": 11}, "count", "must be at most 10"),
    ({"theme": "t", "tone": "shrill"}, "tone", "must be one of: calm, loud"),
    ({"theme": "t", "tags": ["ok", "too long"]}, "tags.1", "must have at most 5 characters"),
    ({"input": {"theme": "t"}, "tittle": "x"}, "tittle", "is not known here"),
    ({"theme": "t", "options": {"maxRetries": 101}}, "options.maxRetries", None),
    ({"theme": "t", "options": {"maxRetries": True}}, "options.maxRetries", None),
    ({"theme": "t", "options": {"retries": 1}}, "options.retries", "is not known here"),
    ({"theme": "t", "start": "yes"}, "start", None),
    ({"theme": "t", "title": ""}, "title", None),
    (["tea"], "", "must be a JSON object: the session's input"),
]


async def test_input_that_does_not_fit_is_refused_by_field(client: httpx2.AsyncClient, base: str):
    for body, field, message in MISFITS:
        answer = await client.post(f"{base}/create", json=body)
        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"
        (problem,) = answer.json()["errors"]
        assert problem["field"] == field
        assert message is None or problem["message"] == message
        assert (await client.get(base)).json()["sessions"] == []


async def test_every_field_that_does_not_fit_is_named(client: httpx2.AsyncClient, base: str):
    answer = await client.post(f"{base}/create", json={"count": 99, "tone": 1, "more": 1})
    fields = {e["field"] for e in answer.json()["errors"]}
    assert fields == {"theme", "count", "tone", "more"}


async def test_a_repeated_key_creates_one_session(client: httpx2.AsyncClient, base: str):
    key = {"Idempotency-Key": "abc"}
    answers = await asyncio.gather(
        *(client.post(f"{base}/create", json={"theme": "tea"}, headers=key) for _ in range(8))
    )
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["sessionId"] for a in answers}) == 1
    assert sum("idempotent-replayed" not in a.headers for a in answers) == 1
    other = await client.post(f"{base}/create", json={"theme": "coffee"}, headers=key)
    assert other.status_code == 409


async def test_an_empty_key_is_refused(client: httpx2.AsyncClient, base: str):
    for key in ("", "x" * 256):
        answer = await client.post(
            f"{base}/create", json={"theme": "t"}, headers={"Idempotency-Key": key}
        )
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


VIEWS = ["", "/progress", "/tasks", "/tasks/1/attempts", "/drafts", "/events"]


async def test_what_is_not_there_is_404(relay: Relay, client: httpx2.AsyncClient, base: str):
    session_id = await created(client)
    await relay.open("other")
    for path in VIEWS:
        for session in (
            f"{base}/0198c0de-0000-7000-8000-000000000000",
            f"{base}/no-uuid",
            f"{base}/%00",
            f"/api/other/cot-session/{session_id}",
            f"/api/nosuch/cot-session/{session_id}",
        ):
            answer = await client.get(session + path)
            assert answer.status_code == 404, session
            assert answer.json()["type"] == "urn:ekiden:problem:not-found"


async def test_an_unknown_flow_is_404(client: httpx2.AsyncClient):
    for flow in ("nosuch", "%00", "%F0%9F%8F%83"):
        assert (await client.post(f"/api/{flow}/cot-session/create", json={})).status_code == 404
        assert (await client.get(f"/api/{flow}/cot-session")).status_code == 404


async def test_process_async_starts_once_and_may_be_repeated(client: httpx2.AsyncClient, base: str):
    session = f"{base}/{await created(client)}"
    first = await client.post(f"{session}/process-async")
    again = await client.post(f"{session}/process-async")
    assert (first.status_code, again.status_code) == (202, 202)
    assert (first.json()["started"], again.json()["started"]) == (1, 0)
    assert first.json()["currentStep"] == "THINK"


async def test_progress_carries_the_five_fields(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    await relay.run_phase(session_id)
    answer = await client.get(f"{base}/{session_id}/progress")
    progress = answer.json()
    assert progress["currentPhase"] == 1
    assert progress["currentStep"] == "INTEGRATE"
    assert progress["completedPhases"] == [1]
    assert progress["canProceed"] is True
    assert progress["requiresManualTrigger"] is True
    assert answer.headers["etag"] == f'"{progress["revision"]}"'
    assert (await client.get(f"{base}/{session_id}")).headers["etag"] == answer.headers["etag"]


async def test_a_session_goes_from_theme_to_draft(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    session = f"{base}/{session_id}"
    await relay.run_phase(session_id)
    proceeded = await client.post(
        f"{session}/proceed-next-phase", json={"comment": "good", "actor": "ann"}
    )
    assert proceeded.status_code == 200
    assert proceeded.json()["currentPhase"] == 2
    assert "etag" not in proceeded.headers
    await relay.run_phase(session_id)
    progress = (await client.get(f"{session}/progress")).json()
    assert progress["status"] == "COMPLETED"
    assert progress["completedPhases"] == [1, 2]
    (draft,) = (await client.get(f"{session}/drafts")).json()["drafts"]
    assert draft["body"] == {"text": "hello"}
    assert (await client.get("/api/drafts")).json()["drafts"] == [draft]
    revisions = (await client.get(session)).json()["revisions"]
    assert [(r["phase"], r["author"], r["output"]) for r in revisions] == [
        (1, "model", {"made": True}),
        (2, "model", {"made": True}),
    ]
    tasks = (await client.get(f"{session}/tasks")).json()["tasks"]
    assert [(t["phase"], t["step"], t["status"]) for t in tasks] == [
        (phase, step, "COMPLETED") for phase in (1, 2) for step in ("THINK", "INTEGRATE")
    ]
    review = await relay.pool.fetchrow("SELECT actor, comment FROM ekiden.reviews")
    assert review is not None
    assert tuple(review) == ("ann", "good")


async def test_without_a_gate_proceed_is_409(client: httpx2.AsyncClient, base: str):
    answer = await client.post(f"{base}/{await created(client)}/proceed-next-phase")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:ekiden:problem:no-gate"


async def test_proceed_approves_only_the_revision_that_was_seen(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    await relay.run_phase(session_id)
    url = f"{base}/{session_id}/proceed-next-phase"
    etag = (await client.get(f"{base}/{session_id}/progress")).headers["etag"]
    for stale in ('"999999"', f"W/{etag}", "garbage", '"9223372036854775808"', f'{etag}, "1"'):
        answer = await client.post(url, headers={"If-Match": stale})
        assert answer.status_code == 412, stale
        assert answer.json()["type"] == "urn:ekiden:problem:stale-revision"
    assert (await client.post(url, headers={"If-Match": etag})).status_code == 200


async def test_a_repeated_key_is_one_decision(relay: Relay, client: httpx2.AsyncClient, base: str):
    session_id = await created(client, start=True)
    await relay.run_phase(session_id)
    url, key = f"{base}/{session_id}/proceed-next-phase", {"Idempotency-Key": "k"}
    for replayed in (None, "true", "true"):
        answer = await client.post(url, headers=key)
        assert (answer.status_code, answer.json()["currentPhase"]) == (200, 2)
        assert answer.headers.get("idempotent-replayed") == replayed
    await relay.run_phase(session_id)
    other = await created(client, start=True)
    await relay.run_phase(other)
    reused = await client.post(f"{base}/{other}/proceed-next-phase", headers=key)
    assert reused.status_code == 409


async def test_a_key_of_one_gate_is_refused_at_another(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    url, key = f"{base}/{session_id}", {"Idempotency-Key": "k"}

    async def proceed() -> int:
        await relay.run_phase(session_id)
        seen = {"If-Match": (await client.get(f"{url}/progress")).headers["etag"]}
        return (await client.post(f"{url}/proceed-next-phase", headers=key | seen)).status_code

    assert await proceed() == 200
    await relay.run_phase(session_id)
    await client.post(f"{url}/review", json={"verb": "rerun", "phase": 1})
    assert await proceed() == 409
    assert (await client.get(f"{url}/progress")).json()["canProceed"] is True


async def test_what_is_used_of_a_budget_is_in_the_sessions_answer(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    plain = (await client.get(f"{base}/{await created(client)}")).json()
    assert (plain["budget"], plain["budgets"]) == (None, {})
    options = {"budget": {"maxCostUsd": 1.5}, "budgets": {"2": {"maxTokens": 100}}}
    session_id = await created(client, start=True, options=options)
    task = await relay.claim(session_id)
    await relay.pool.execute(
        "INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model,"
        " request_hash, request, answer, outcome, input_tokens, output_tokens, cost_usd,"
        " started_at, finished_at) VALUES ($1, $2, 1, 1, 'ask', 'p', 'm', '', '', 'a', 'ANSWERED',"
        " 30, 12, 0.25, now(), now())",
        session_id, task.id,
    )  # fmt: skip
    await relay.pool.execute(
        "INSERT INTO ekiden.reservations VALUES ($1, $2, 1, 2, 1, 0.125, 8)", session_id, task.id
    )
    shown = (await client.get(f"{base}/{session_id}")).json()
    assert shown["budget"] == {
        "maxCostUsd": 1.5, "maxTokens": None, "costUsd": 0.25, "tokens": 42,
        "reservedCostUsd": 0.125, "reservedTokens": 8, "callsWithoutPrice": 0,
    }  # fmt: skip
    assert shown["budgets"] == {
        "2": {
            "maxCostUsd": None, "maxTokens": 100, "costUsd": 0.0, "tokens": 0,
            "reservedCostUsd": 0.0, "reservedTokens": 0, "callsWithoutPrice": 0,
        }
    }  # fmt: skip


async def test_pause_resume_and_cancel(client: httpx2.AsyncClient, base: str):
    session = f"{base}/{await created(client, start=True)}"
    for verb, status in (
        ("pause", "PAUSED"),
        ("pause", "PAUSED"),
        ("resume", "RUNNING"),
        ("resume", "RUNNING"),
        ("cancel", "CANCELLED"),
        ("cancel", "CANCELLED"),
    ):
        answer = await client.post(f"{session}/{verb}", json={"actor": "ann"})
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    for verb in ("pause", "resume", "process-async", "proceed-next-phase"):
        assert (await client.post(f"{session}/{verb}")).status_code == 409


async def test_a_task_that_only_waits_is_a_wait_and_no_error(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    task = await relay.claim(session_id)
    full = Error(kind="NotNow", message="full", retryable=True)
    await relay.tasks.retry(task, full, timedelta(minutes=10), counts=False)
    progress = (await client.get(f"{base}/{session_id}/progress")).json()
    assert progress["error"] is None
    assert progress["waitingFor"] == {"kind": "provider", "message": "It waits: full"}
    wait, (line,) = progress["wait"], await relay.sessions.tasks(session_id)
    assert (wait["kind"], wait["message"], wait["taskId"]) == ("provider", "full", task.id)
    assert datetime.fromisoformat(wait["until"]) == line.available_at


async def test_a_failed_session_says_why_and_resumes(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    await relay.fail(session_id, "No key for the model.")
    progress = (await client.get(f"{base}/{session_id}/progress")).json()
    assert progress["error"]["message"] == "No key for the model."
    assert progress["waitingFor"]["kind"] == "resume"
    started = await client.post(f"{base}/{session_id}/process-async")
    assert started.status_code == 409
    assert "Resume it" in started.json()["detail"]
    resumed = await client.post(f"{base}/{session_id}/resume")
    assert resumed.json()["status"] == "RUNNING"
    assert resumed.json()["error"] is None


async def test_continue_async_without_a_body_rings_and_shows_progress(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session = f"{base}/{await created(client, start=True)}"
    heard: asyncio.Queue[object] = asyncio.Queue()

    def hear(*args: object) -> None:
        heard.put_nowait(args)

    async with relay.pool.acquire() as listening:
        await listening.add_listener("task_queued", hear)
        for body in ({"content": b""}, {"json": {}}):
            answer = await client.post(f"{session}/continue-async", **body)
            assert answer.status_code == 200
            assert answer.json()["status"] == "RUNNING"
            await asyncio.wait_for(heard.get(), 5)
        await listening.remove_listener("task_queued", hear)


async def test_a_result_from_outside_counts_under_its_token_only(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    url = f"{base}/{session_id}/continue-async"
    task = await relay.claim(session_id)
    delivery = {"taskId": task.id, "attempt": task.attempt, "result": {"plan": [1, 2.5, "x"]}}
    stale = await client.post(url, json={**delivery, "attempt": task.attempt + 1})
    assert stale.status_code == 409
    assert (await client.post(url, json=delivery)).status_code == 200
    assert (await client.post(url, json=delivery)).status_code == 409
    again = await relay.claim(session_id)
    assert again.delivered == '{"plan":[1,2.5,"x"]}'


MISDELIVERIES = [
    ({"taskId": 1, "attempt": 1}, "result"),
    ({"taskId": 2**63, "attempt": 1, "result": 1}, "taskId"),
    ({"taskId": 1, "attempt": 2**31, "result": 1}, "attempt"),
    ({"taskId": "1", "attempt": 1, "result": 1}, "taskId"),
    ({"taskId": 1, "attempt": 1, "result": 1, "token": 1}, "token"),
]


async def test_a_delivery_that_does_not_fit_is_refused_by_field(
    client: httpx2.AsyncClient, base: str
):
    for body, field in MISDELIVERIES:
        answer = await client.post(f"{base}/{await created(client)}/continue-async", json=body)
        assert answer.status_code == 422
        assert [e["field"] for e in answer.json()["errors"]] == [field]


async def test_attempts_and_calls_of_a_task_are_shown(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session_id = await created(client, start=True)
    waiting = (await client.get(f"{base}/{session_id}/tasks")).json()["tasks"][0]
    attempts = f"{base}/{session_id}/tasks/{waiting['id']}/attempts"
    assert (await client.get(attempts)).json() == {
        "taskId": waiting["id"],
        "task": waiting,
        "attempts": [],
        "calls": [],
    }
    task = await relay.claim(session_id)
    await relay.pool.execute(
        """INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model,
               request_hash, request, answer, outcome, cost_usd, started_at, finished_at)
           VALUES ($1, $2, 1, 1, 'ask', 'openai', 'm', 'h', 'r', 'abc', 'ANSWERED', 0.25,
               now(), now())""",
        session_id,
        task.id,
    )
    shown = (await client.get(attempts)).json()
    assert [a["outcome"] for a in shown["attempts"]] == ["RUNNING"]
    assert [(c["costUsd"], c["answerBytes"]) for c in shown["calls"]] == [(0.25, 3)]
    for number, status in ((task.id + 999, 404), (2**63, 422), (0, 422), ("x", 422)):
        answer = await client.get(f"{base}/{session_id}/tasks/{number}/attempts")
        assert answer.status_code == status


async def test_a_list_is_walked_page_by_page(client: httpx2.AsyncClient, base: str):
    made = [await created(client) for _ in range(5)]
    cancelled = made[2]
    await client.post(f"{base}/{cancelled}/cancel")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get(base, params={"limit": "2", **cursor})).json()
        seen += [s["sessionId"] for s in page["sessions"]]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert seen == made[::-1]
    only = (await client.get(base, params={"status": "CANCELLED"})).json()["sessions"]
    assert [s["sessionId"] for s in only] == [cancelled]
    for query in ("status=DONE", "limit=0", "limit=201", "cursor=x", "limit=" + "9" * 5000):
        answer = await client.get(f"{base}?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


async def test_flows_and_workers_are_listed(client: httpx2.AsyncClient):
    (flow,) = (await client.get("/api/flows")).json()["flows"]
    assert (flow["name"], flow["hasWorker"]) == ("demo", True)
    assert flow["inputSchema"]["required"] == ["theme"]
    assert [p["name"] for p in flow["phases"]] == ["first", "second"]
    (worker,) = (await client.get("/api/workers")).json()["workers"]
    assert worker.keys() == {
        "id", "host", "pid", "state", "busy", "capacity", "startedAt", "seenAt",
        "model", "software",
    }  # fmt: skip
    assert worker["state"] == "ALIVE"


async def test_tasks_come_in_running_order_page_by_page(
    client: httpx2.AsyncClient, relay: Relay, base: str
):
    body = {"theme": "x", "start": True}
    session = (await client.post(f"{base}/create", json=body)).json()["sessionId"]
    await relay.run_phase(session)
    await client.post(f"{base}/{session}/proceed-next-phase")
    await relay.run_phase(session)
    url = f"{base}/{session}/tasks"
    whole = (await client.get(url)).json()
    assert whole["nextCursor"] is None
    assert [(t["phase"], t["step"]) for t in whole["tasks"]] == [
        (phase, step) for phase in (1, 2) for step in ("THINK", "INTEGRATE")
    ]
    assert [t["result"] for t in whole["tasks"]] == [{"made": True}] * 4
    found: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"limit": 3}
    for pages in (3, 1):
        page = (await client.get(url, params=asked)).json()
        assert len(page["tasks"]) == pages
        found += page["tasks"]
        asked["cursor"] = page["nextCursor"]
    assert found == whole["tasks"]
    assert asked["cursor"] is None
    last = {"cursor": whole["tasks"][-1]["id"]}
    assert (await client.get(url, params=last)).json() == {"tasks": [], "nextCursor": None}
    for wrong, status in (({"cursor": 2**62}, 404), ({"limit": 501}, 422), ({"limit": 0}, 422)):
        assert (await client.get(url, params=wrong)).status_code == status
