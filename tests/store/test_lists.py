"""The lists of the pages: what a search finds, and how PostgreSQL goes about it."""

from __future__ import annotations

import json

import asyncpg
import pytest

from ekiden.core.model import Options
from ekiden.store.queries import sql
from tests.store.helpers import FLOW, Relay
from tests.store.test_plans import Plan, fill, nodes_of

TITLES = ("Home COFFEE brewing", "在宅勤務の休み方", "Café 100%", "a_b", "caf", "ＡＩと暮らす")


async def titled(relay: Relay, title: str) -> str:
    session, _ = await relay.sessions.create(FLOW, title=title, input={}, options=Options())
    return session


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("coffee", {"Home COFFEE brewing"}),
        ("E CO", {"Home COFFEE brewing"}),
        ("勤務の休", {"在宅勤務の休み方"}),
        ("休", {"在宅勤務の休み方"}),
        ("CAF", {"Café 100%", "caf"}),
        ("%", {"Café 100%"}),
        ("_", {"a_b"}),
        ("\\", set()),
        ("勤務 休", set()),
        ("", set(TITLES)),
    ],
)
async def test_a_search_finds_any_part_of_a_title_in_any_case(
    relay: Relay, words: str, found: set[str]
):
    for title in TITLES:
        await titled(relay, title)
    assert {row.title for row in await relay.sessions.lists.sessions(words=words)} == found


async def test_a_search_and_the_archive_go_together_and_page_by_page(relay: Relay):
    made = [await titled(relay, f"coffee {n}") for n in range(6)]
    for session in made[:4]:
        await relay.sessions.cancel(session, actor="me")
    await relay.sessions.archive.put(made[:4], actor="me")
    lists = relay.sessions.lists
    asked = {"words": "COFFEE", "archived": True, "statuses": ["CANCELLED"], "flow": FLOW}
    # Ids of one millisecond are in no order on PostgreSQL 15, whose function knows no finer time.
    *newest, oldest = sorted(made[:4], reverse=True)
    first = await lists.sessions(**asked, limit=3)
    assert [row.id for row in first] == newest
    assert [row.id for row in await lists.sessions(**asked, after=first[-1].id)] == [oldest]
    rest = [row.id for row in await lists.sessions(words="COFFEE")]
    assert rest == sorted(made[4:], reverse=True)


async def planned(connection: asyncpg.Connection, arguments: str) -> list[Plan]:
    """Return the nodes of the list's plan for what is asked."""
    async with connection.transaction():
        await connection.execute(sql("plan_anew"))
        await connection.execute(f"PREPARE asked AS {sql('page_sessions')}")
        told = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked({arguments})")
        await connection.execute("DEALLOCATE asked")
    return list(nodes_of(json.loads(told)[0]["Plan"]))


async def test_a_search_reads_titles_in_the_index_and_no_rows(relay: Relay):
    await fill(relay)
    await relay.connection.execute("VACUUM (ANALYZE) ekiden.sessions")
    for words, cased in (("'coffee'", "true"), ("'勤務'", "false")):
        nodes = await planned(relay.connection, f"NULL, NULL, {words}, NULL, 41, false, {cased}")
        scans = {n["Index Name"]: n["Node Type"] for n in nodes if "Index Name" in n}
        assert scans["sessions_shown"] == "Index Only Scan", words


async def test_the_lists_walk_their_own_index_however_many_are_put_away(relay: Relay):
    await fill(relay)
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET status = 'CANCELLED', completed_at = now(), archived_at = now()"
        " WHERE id IN (SELECT id FROM ekiden.sessions ORDER BY id DESC LIMIT 2000)"
    )
    await relay.connection.execute("VACUUM (ANALYZE) ekiden.sessions")
    for archived, index in (("false", "sessions_shown"), ("true", "sessions_archived")):
        nodes = await planned(relay.connection, f"NULL, NULL, NULL, NULL, 41, {archived}, false")
        assert index in {n.get("Index Name") for n in nodes}
