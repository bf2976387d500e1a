"""Archive and bring back over HTTP, one and many."""

from __future__ import annotations

import httpx2

from tests.api.relay import Relay


async def made(client: httpx2.AsyncClient, base: str, *, cancel: bool = True) -> str:
    session: str = (await client.post(f"{base}/create", json={"theme": "x"})).json()["sessionId"]
    if cancel:
        assert (await client.post(f"{base}/{session}/cancel")).status_code == 200
    return session


async def test_one_session_is_archived_and_brought_back(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session, runs = await made(client, base), await made(client, base, cancel=False)
    away = await client.post(f"{base}/{session}/archive", json={"actor": "Mika"})
    assert away.status_code == 200
    assert away.json()["status"] == "CANCELLED"
    since = away.json()["archivedAt"]
    assert since
    assert (await client.get(f"{base}/{session}")).json()["archivedAt"] == since
    assert [s["sessionId"] for s in (await client.get(base)).json()["sessions"]] == [runs]
    (line,) = (await client.get(f"{base}?archived=true")).json()["sessions"]
    assert (line["sessionId"], line["archivedAt"]) == (session, since)
    refused = await client.post(f"{base}/{runs}/archive")
    assert refused.status_code == 409
    assert "only a finished one" in refused.json()["detail"]
    back = await client.post(f"{base}/{session}/unarchive")
    assert back.json()["archivedAt"] is None


async def test_many_are_archived_at_once_and_those_of_other_flows_are_not_there(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session, runs = await made(client, base), await made(client, base, cancel=False)
    await relay.open("other")
    stranger = await made(client, "/api/other/cot-session")
    given = {"sessionIds": [session, runs, stranger, "x"]}
    answer = await client.post(f"{base}/archive", json=given)
    assert answer.status_code == 200
    told = {s["sessionId"]: (s["archived"], s["refused"]) for s in answer.json()["sessions"]}
    assert told[session] == (True, None)
    assert "only a finished one" in told[runs][1]
    assert "There is no session" in told[stranger][1]
    assert "There is no session" in told["x"][1]
    assert (await client.post(f"{base}/unarchive", json=given)).json()["sessions"][0] == {
        "sessionId": session, "archived": False, "refused": None,
    }  # fmt: skip
    for wrong in ({}, {"sessionIds": []}, {"sessionIds": ["x"] * 1001}, {"sessionIds": "x"}):
        assert (await client.post(f"{base}/archive", json=wrong)).status_code == 422


async def test_the_stream_of_an_archived_session_ends_and_is_not_asked_for_again(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    session = await made(client, base)
    await client.post(f"{base}/{session}/archive")
    cancelled, archived = (await relay.sessions.events(session))[-2:]
    assert archived.type == "session_archived"
    answer = await client.get(
        f"{base}/{session}/events", headers={"Last-Event-ID": str(cancelled.id)}
    )
    assert "event: session_archived" in answer.text  # and it has ended, or this would not return
    answer = await client.get(
        f"{base}/{session}/events", headers={"Last-Event-ID": str(archived.id)}
    )
    assert answer.status_code == 204
