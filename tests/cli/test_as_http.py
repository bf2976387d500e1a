"""What the command line says as JSON is what HTTP says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from ekiden.api.settings import ApiSettings
from ekiden.store.connection import open_pool
from ekiden.store.sessions import Sessions
from tests.api.conftest import client_of
from tests.cli.program import TOY, Program
from tests.cli.test_sessions import told
from tests.many import fill_up_drafts

BASE = "/api/toy/cot-session"


@pytest.fixture
async def client(database: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        open_pool(database) as pool,
        client_of(Sessions(pool, database), ApiSettings()) as client,
    ):
        yield client


@pytest.fixture
async def session(program: Program) -> str:
    """A session at a gate, with budgets, a decision and two outputs of a phase."""
    ended = await program.run("run", "toy", "--flow", TOY, "--name", "x", "--json")
    session = str(ended.json["sessionId"])
    await told(program, "budget", session, "--max-cost", "2.5")
    await told(program, "budget", session, "--phase", "2", "--max-tokens", "7")
    await told(program, "reject", session, "--note", "once more")
    assert (await program.run("resume", session, "--flow", TOY)).code == 3
    return session


def names(value: Any) -> Any:
    """Return what the names in a JSON value are."""
    if isinstance(value, dict):
        return {name: names(inner) for name, inner in value.items()}
    return [names(inner) for inner in value] if isinstance(value, list) else None


async def test_looking_says_the_same(
    program: Program, client: httpx2.AsyncClient, session: str
) -> None:
    async def http(path: str) -> Any:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert await told(program, "list") == await http(BASE)
    assert await told(program, "reviews", session) == await http(f"{BASE}/{session}/reviews")
    waiting = await told(program, "waiting")
    assert names(waiting) == names(await http("/api/waiting"))
    assert waiting["sessions"][0]["sessionId"] == session
    shown, one = await told(program, "show", session), await http(f"{BASE}/{session}")
    progress = shown.pop("progress")  # a clock runs in it
    assert names(progress) == names(await http(f"{BASE}/{session}/progress"))
    assert shown == {**one, "drafts": []}
    budgets = await told(program, "budget", session)
    assert budgets == {name: one[name] for name in ("sessionId", "budget", "budgets")}
    old, new = (str(revision["id"]) for revision in one["revisions"])
    compared = await http(f"{BASE}/{session}/compare?old={old}&new={new}")
    assert await told(program, "compare", old, new) == compared


async def test_a_list_that_is_cut_says_what_follows_as_http_does(
    program: Program, client: httpx2.AsyncClient, session: str
) -> None:
    assert (await program.run("sessions", "fork", session, "--phase", "0")).code == 0
    cut = await told(program, "list", "--limit", "1")
    assert cut == (await client.get(f"{BASE}?limit=1")).json()
    assert len(cut["sessions"]) == 1
    assert cut["nextCursor"] == cut["sessions"][0]["sessionId"]


async def test_all_drafts_are_there_however_many(
    program: Program, client: httpx2.AsyncClient, session: str, database: str
) -> None:
    ended = await program.run("resume", session, "--flow", TOY, "--auto-approve")
    assert ended.code == 0, ended.err
    async with open_pool(database) as pool:
        await fill_up_drafts(pool, 150)
    drafts = (await client.get(f"{BASE}/{session}/drafts")).json()["drafts"]
    assert [draft["number"] for draft in drafts] == list(range(1, 151))
    assert (await told(program, "show", session))["drafts"] == drafts
    assert (await program.run("resume", session, "--json")).json["drafts"] == drafts
    assert (await program.run("sessions", "export", session)).json["drafts"] == drafts
