"""Whatever a real worker did, the invariants hold; and they are judged on one snapshot.

That each of them can be violated is in ``test_verify_broken.py``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from ekiden.cli.verifying import read_text
from ekiden.core.metrics import Measure
from ekiden.errors import DatabaseError, DatabaseUnreachable, NotFound
from ekiden.store import metrics
from ekiden.store import verify as verifying
from ekiden.store.queries import load_queries, sql
from ekiden.store.verify import INVARIANTS, PARTIALS_ARE_PREFIXES, Finding, Report, verify
from tests.store.helpers import Relay, advance
from tests.store.lived import AUTO, live
from tests.store.test_metrics import count, counted
from tests.store.test_plans import analyze, fill
from tests.worker.relay import House, open_house, sums, working


async def check(dsn: str, **arguments: Any) -> Report:
    return await verify(dsn, read=read_text, **arguments)


def red(report: Report) -> dict[str, list[str]]:
    """The invariants that are violated, with the offending ids."""
    return {f.invariant.name: f.ids for f in report.findings if f.violations}


def found(report: Report, name: str) -> Finding:
    return next(f for f in report.findings if f.invariant.name == name)


async def test_an_empty_database_violates_nothing(database: str) -> None:
    report = await check(database)
    assert (report.sessions, report.tasks, report.violations) == (0, 0, 0)
    assert [f.invariant for f in report.findings] == list(INVARIANTS)


async def test_nothing_is_violated_by_all_that_can_happen_to_sessions(database: str) -> None:
    sessions = await live(database)
    report = await check(database)
    assert red(report) == {}
    assert report.sessions == len(sessions)
    # Each of them had something to judge: green is not for want of rows.
    assert [f.invariant.name for f in report.findings if not f.examined] == []
    by_status = ("running", "waiting", "paused", "failed", "ended")
    places = [f for f in report.findings if f.invariant.name.startswith(by_status)]
    assert sum(f.examined for f in places) == len(sessions)
    one_by_one = [await check(database, session_id=session) for session in sessions.values()]
    assert [red(one) for one in one_by_one] == [{}] * len(sessions)
    for whole, *parts in zip(report.findings, *(one.findings for one in one_by_one), strict=True):
        assert whole.examined == sum(part.examined for part in parts), whole.invariant.name


async def test_no_hand_off_under_way_is_taken_for_a_violation(database: str) -> None:
    async with open_house(database) as house, working(database, sums(), capacity=32):
        looks = 0
        while looks < 3:  # that fell into the work: on a busy machine a look takes long
            at_work = asyncio.create_task(_keep_busy(house, sessions=150))
            while not at_work.done():
                report = await check(database)
                assert red(report) == {}
                looks += found(report, "running_sessions_have_work").examined > 0
            await at_work
        assert red(await check(database)) == {}


async def _keep_busy(house: House, sessions: int) -> None:
    """Sessions with gates, without, cancelled and paused, all at once."""

    async def one(number: int) -> None:
        if number % 3 == 0:
            await house.until(await house.begin("sums", AUTO, n=5))
            return
        session = await house.begin("sums", n=3)
        await house.until(session, "AWAITING_REVIEW")
        if number % 3 == 1:
            await house.sessions.cancel(session, actor="me")
            return
        await house.sessions.approve(session, actor="me")
        await house.until(session)

    for first in range(0, sessions, 30):
        await asyncio.gather(*(one(n) for n in range(first, first + 30)))


async def test_all_is_judged_on_the_same_snapshot(database: str) -> None:
    """What goes wrong between the first invariant and the last is not seen by any."""
    async with open_house(database) as house, working(database, sums()):
        session = await house.begin("sums", AUTO)
        await house.until(session)
    admin = await asyncpg.connect(database)
    begun = asyncio.get_running_loop().create_future()
    ruined = asyncio.Event()

    async def ruin() -> None:
        await begun
        await admin.execute("DELETE FROM ekiden.events")
        ruined.set()

    spoiling = asyncio.create_task(ruin())
    try:

        def progress(done: int, _total: int, _name: str) -> None:
            if done == 1 and not begun.done():
                begun.set_result(None)

        judge = verifying._judge_partials

        async def after_the_ruin(*arguments: Any) -> Finding:
            await ruined.wait()  # the invariants of the history come after this one
            return await judge(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verifying, "_judge_partials", after_the_ruin)
            assert red(await check(database, progress=progress)) == {}
        assert "completions_are_told_once" in red(await check(database))
    finally:
        spoiling.cancel()
        await admin.close()


async def test_what_is_counted_does_not_wait_for_it(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MARGIN", timedelta(0))
    task = await relay.started()
    judge = verifying._judge_partials
    attempts = []

    async def later(*arguments: Any) -> Finding:
        await relay.complete(advance(task))  # after the snapshot
        attempts.append(count(await counted(relay), Measure.ATTEMPT))
        return await judge(*arguments)

    monkeypatch.setattr(verifying, "_judge_partials", later)
    await check(relay.dsn)
    assert attempts == [1]


async def test_progress_is_told(database: str) -> None:
    told: list[tuple[int, int, str]] = []
    await check(database, progress=lambda *said: told.append(said))
    assert told == [(n, len(INVARIANTS), i.name) for n, i in enumerate(INVARIANTS)]


async def test_a_session_that_does_not_exist_is_said(database: str) -> None:
    for unknown in ("nonsense", str(uuid4())):
        with pytest.raises(NotFound, match=unknown):
            await check(database, session_id=unknown)


async def test_a_database_without_the_schema_or_out_of_reach_is_said(database: str) -> None:
    admin = await asyncpg.connect(database)
    await admin.execute("DROP SCHEMA ekiden CASCADE")
    await admin.close()
    with pytest.raises(DatabaseError, match="ekiden migrate"):
        await check(database)
    with pytest.raises(DatabaseUnreachable):
        await check("postgresql://x@127.0.0.1:1/x")


async def test_an_invariant_that_takes_too_long_is_given_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {**load_queries(), "verify_counts": "SELECT pg_sleep(60), $1::uuid"}
    monkeypatch.setattr("ekiden.store.verify.sql", slow.__getitem__)
    with pytest.raises(DatabaseError, match=r"longer than 0\.2 s"):
        await check(database, timeout=timedelta(seconds=0.2))


def test_every_query_of_verify_is_an_invariant_and_every_invariant_has_one() -> None:
    queries = {name for name in load_queries() if name.startswith("verify_")}
    others = {"verify_settings", "verify_counts", "verify_partials_and_answers"}
    named = {f"verify_{i.name}" for i in INVARIANTS if i is not PARTIALS_ARE_PREFIXES}
    assert queries - others == named
    assert len({i.name for i in INVARIANTS}) == len(INVARIANTS)
    assert all(0 < len(i.description) <= 60 for i in INVARIANTS)


def test_the_page_lists_every_invariant_with_what_it_is_of() -> None:
    page = (Path(__file__).parents[2] / "docs/verify.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \S", page, re.MULTILINE)
    assert rows == [(i.name, i.of) for i in INVARIANTS]
    assert f"of the {len(INVARIANTS)} lines" in page


@pytest.mark.parametrize("seen", ["all", "nothing"])
async def test_no_invariant_compares_all_rows_with_all_rows(relay: Relay, seen: str) -> None:
    await fill(relay)
    if seen == "all":
        await analyze(relay)
    await relay.connection.execute("SET plan_cache_mode = force_custom_plan")
    await relay.connection.execute("SET enable_nestloop = off")
    for invariant in INVARIANTS:
        name = invariant.name if invariant is not PARTIALS_ARE_PREFIXES else "partials_and_answers"
        await relay.connection.execute(f"PREPARE asked(uuid) AS {sql(f'verify_{name}')}")
        plan = await relay.connection.fetchval("EXPLAIN (FORMAT JSON) EXECUTE asked(NULL)")
        await relay.connection.execute("DEALLOCATE asked")
        for loop in _nested_loops(json.loads(plan)[0]["Plan"]):
            inner = loop["Plans"][1]
            assert _by_key(inner), f"{name}: {json.dumps(inner)[:500]}"


def _nested_loops(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if plan["Node Type"] == "Nested Loop":
        yield plan
    for child in plan.get("Plans", []):
        yield from _nested_loops(child)


def _by_key(inner: dict[str, Any]) -> bool:
    """Whether the inner side of a loop is found by index, or is of the few rows of flows."""
    small = {"flows", "workers"}
    if inner["Node Type"] in {"Function Scan", "CTE Scan"} or inner.get("Relation Name") in small:
        return True
    if "Index Name" in inner:
        return True
    return bool(inner.get("Plans")) and all(_by_key(child) for child in inner["Plans"])
