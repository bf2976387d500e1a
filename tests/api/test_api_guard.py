from __future__ import annotations

import re

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from ekiden.api.app import create_app
from ekiden.api.settings import ApiSettings, check_bind
from ekiden.errors import SettingsError
from tests.api.conftest import client_of
from tests.api.relay import Relay, SilentDoorbell

KEY = {"Authorization": "Bearer open sesame"}
OPEN = {"/healthz", "/readyz"}
LOGIN = {"/login", "/static/{version}/{name}"}  # what somebody without a login is shown


def every_route(relay: Relay) -> list[tuple[str, str]]:
    app = create_app(relay.sessions, doorbell=SilentDoorbell(), settings=ApiSettings())
    return [
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        for method in sorted(route.methods or {"GET"})
    ]


def is_page(path: str) -> bool:
    known = (
        "/inbox", "/events", "/bulk", "/sessions/", "/new", "/drafts", "/monitoring", "/settings",
        "/logout",
    )  # fmt: skip
    return path == "/" or path.startswith(known)


async def test_every_route_but_health_wants_the_key(relay: Relay, with_key: httpx2.AsyncClient):
    routes = every_route(relay)
    assert len(routes) > 20
    for method, path in [*routes, ("GET", "/nowhere"), ("GET", "/healthz/"), ("GET", "//healthz")]:
        answer = await with_key.request(method, f"http://localhost{path}")
        if path in OPEN:
            assert answer.status_code == 200, path
        elif path in LOGIN:
            expected = {"/login": {"GET": 200, "POST": 415}}.get(path, {"GET": 404})
            assert answer.status_code == expected[method], path
        elif is_page(path) and method == "GET":  # a person is asked to log in, and shown nothing
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/login?next=/"), path
            assert answer.content == b"", path
        else:
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            kind = "text/html; charset=utf-8" if is_page(path) else "application/problem+json"
            assert answer.headers["content-type"] == kind


async def test_only_the_very_key_opens(with_key: httpx2.AsyncClient):
    for wrong in (
        "Bearer", "Bearer ", "Bearer open", "Bearer open sesame!", "Basic open sesame",
        "open sesame", "Bearer Open Sesame", "Bearer \u00e9",
    ):  # fmt: skip
        answer = await with_key.get(
            "/api/flows", headers={"Authorization": wrong.encode("latin-1")}
        )
        assert answer.status_code == 401, wrong
    assert (await with_key.get("/api/flows", headers=KEY)).status_code == 200
    lower = {"Authorization": "bearer open sesame"}
    assert (await with_key.get("/api/flows", headers=lower)).status_code == 200


async def test_a_key_beyond_ascii_opens(relay: Relay):
    async with client_of(relay.sessions, ApiSettings(api_key="駅伝-écoute")) as client:
        key = {"Authorization": "Bearer 駅伝-écoute".encode()}
        assert (await client.get("/api/flows", headers=key)).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.168.1.5", "example.org", ""])
def test_listening_to_others_wants_a_key_that_nobody_guesses(host: str):
    for key in ("", " " * 20, "fifteen letters"):
        with pytest.raises(SettingsError, match="EKIDEN_API_KEY"):
            check_bind(host, key)
    check_bind(host, "sixteen letters!")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str):
    check_bind(host, "")


HOSTS = [
    ("localhost", 200),
    ("LOCALHOST:8080", 200),
    ("127.0.0.1:8080", 200),
    ("[::1]:8080", 200),
    ("evil.example", 421),
    ("evil.example:8080", 421),
    ("localhost.evil.example", 421),
    ("127.0.0.1.evil.example", 421),
    ("localhost@evil.example", 421),
    ("192.168.1.5", 421),
    ("", 421),
    ("[::1", 421),
]


async def test_a_rebound_name_is_not_served(client: httpx2.AsyncClient):
    for host, status in HOSTS:
        for path in ("/api/flows", "/healthz"):
            assert (await client.get(path, headers={"Host": host})).status_code == status


async def test_with_a_key_a_proxy_may_send_its_name(with_key: httpx2.AsyncClient):
    answer = await with_key.get("/api/flows", headers={**KEY, "Host": "ekiden.example"})
    assert answer.status_code == 200


SENDERS = [
    ({}, 201),
    ({"Sec-Fetch-Site": "same-origin"}, 201),
    ({"Sec-Fetch-Site": "none"}, 201),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
    ({"Origin": "http://localhost"}, 201),
    ({"Origin": "http://localhost:3000"}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://["}, 403),
]


async def test_pages_of_other_sites_change_nothing(client: httpx2.AsyncClient, base: str):
    made = 0
    for headers, status in SENDERS:
        answer = await client.post(f"{base}/create", json={"theme": "t"}, headers=headers)
        assert answer.status_code == status, headers
        made += status == 201
        assert len((await client.get(base)).json()["sessions"]) == made


KINDS = [
    ("application/json", 201),
    ("application/json; charset=utf-8", 201),
    ("APPLICATION/JSON", 201),
    ("application/vnd.x+json", 201),
    ("text/plain", 415),
    ("application/x-www-form-urlencoded", 415),
    ("", 415),
]


async def test_a_body_must_say_that_it_is_json(client: httpx2.AsyncClient, base: str):
    for kind, status in KINDS:
        answer = await client.post(
            f"{base}/create", content=b'{"theme": "t"}', headers={"Content-Type": kind}
        )
        assert answer.status_code == status


async def test_every_answer_carries_the_headers_that_protect(client: httpx2.AsyncClient, base: str):
    answers = [
        await client.get("/api/flows"),
        await client.get("/nowhere"),
        await client.get("/healthz", headers={"Host": "evil.example"}),
        await client.post("/api/flows"),
        await client.post(f"{base}/create", content=b"{"),
    ]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


# What some views must be told.
_ASKED = {"stale": {"phase": 1}, "compare": {"old": 1, "new": 1}}


async def test_no_get_changes_anything(relay: Relay, client: httpx2.AsyncClient, base: str):
    other = (await client.post(f"{base}/create", json={"theme": "t", "start": True})).json()
    await relay.run_phase(other["sessionId"])  # makes revision 1
    given = {"theme": "t", "start": True}
    made = (await client.post(f"{base}/create", json=given)).json()["sessionId"]
    tables = ("sessions", "api_tasks", "events", "reviews", "revisions", "attempts", "calls")

    async def state() -> list[object]:
        return [
            [tuple(r) for r in await relay.pool.fetch(f"SELECT * FROM ekiden.{table}")]
            for table in tables
        ]

    before = await state()
    task = (await client.get(f"{base}/{made}/tasks")).json()["tasks"][0]["id"]
    await relay.fail(made)
    call = await relay.pool.fetchval(
        "INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model,"
        " request_hash, request, answer, outcome, started_at, finished_at)"
        " VALUES ($1, $2, 1, 1, 'ask', 'p', 'm', '', '{}', 'x', 'ANSWERED', now(), now())"
        " RETURNING id",
        made,
        task,
    )
    await client.post(f"{base}/{made}/cancel")  # so that the event stream ends
    before = await state()
    for method, path in every_route(relay):
        if method == "GET" and path != "/events":  # which never ends by itself
            url = path.format(
                flow="demo", sessionId=made, taskId=task, session_id=made, task_id=task,
                revision=1, form="json", version="0", name="0", draft=1, callId=call,
            )  # fmt: skip
            answer = await client.get(url, params=_ASKED.get(path.rpartition("/")[2], {}))
            # Of the pages some have nothing to show of it, or nowhere to go without a login.
            fine = {200, 204, 303, 404} if is_page(path) or path in LOGIN else {200}
            assert answer.status_code in fine, url
    assert await state() == before


async def test_paths_and_methods_that_do_nothing_are_problems(client: httpx2.AsyncClient):
    for path in ("/nowhere", "/nowhere/", "/docs", "/redoc", "/api/flows/"):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.json()["instance"] == path
    answer = await client.delete("/api/flows")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.json()["type"] == "urn:ekiden:problem:method-not-allowed"


async def test_openapi_is_behind_the_key_and_describes_problems(with_key: httpx2.AsyncClient):
    schema = (await with_key.get("/openapi.json", headers=KEY)).json()
    assert schema["security"] == [{"key": []}]
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert "application/problem+json" in operation["responses"]["503"]["content"]
            assert ("401" in operation["responses"]) == (path not in OPEN)
    assert "HTTPValidationError" not in str(schema)
    for name in re.findall(r"#/components/schemas/([\w-]+)", str(schema)):
        assert name in schema["components"]["schemas"]
