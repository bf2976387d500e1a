"""Alerts on a real database, told to a real receiver: each raised once, resolved once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from ekiden.api.settings import ApiSettings
from ekiden.core.alerts import ENOUGH, Limits
from ekiden.core.model import Budget
from ekiden.errors import CannotHeal
from ekiden.store import metrics
from ekiden.store.alerts import Alerts, Looked
from ekiden.store.errands import EVENTS, Errands
from ekiden.store.workers import Workers
from ekiden.worker import errands, watch
from ekiden.worker.watch import QUIET, Watch
from ekiden.worker.webhooks import new_secret
from tests.api.conftest import client_of
from tests.worker.deciding import PRICE, First, Priced, Second, echo, five
from tests.worker.relay import QUICK, House, one_step, sums, working
from tests.worker.test_costs import counted
from tests.worker.test_errands import Receiver, receiving, settled

TOLD = ["alert.raised", "alert.resolved"]
ALONE = Limits(error_rate=0, queue_age=0, stuck_session=0, budget=0, workers_lost=0)
FIRST = ("alert.raised", "DONE", 1)
LAST = ("alert.resolved", "DONE", 1)


class Desk:
    """Somebody who is told of alerts, and looks when the test says so."""

    def __init__(self, house: House, receiver: Receiver) -> None:
        self.house = house
        self.receiver = receiver
        self.alerts = Alerts(house.pool, house.dsn)

    async def look(self, **limits: float) -> Looked:
        looked = await self.alerts.look(replace(ALONE, **limits))
        assert looked is not None
        return looked

    async def told(self, how_many: int) -> list[dict[str, Any]]:
        await settled(self.house, how_many)
        # Two that are due together may arrive in any order.
        return sorted(self.receiver.told(), key=lambda told: TOLD.index(told["type"]))


@pytest_asyncio.fixture
async def desk(house: House) -> AsyncIterator[Desk]:
    async with receiving() as receiver:
        await Errands(house.pool, house.dsn).add_webhook(receiver.url, new_secret(), TOLD)
        yield Desk(house, receiver)


async def _breaks(_ctx: object) -> str:
    raise CannotHeal("the well is dry")


async def test_an_error_rate_is_told_until_it_is_low_again(
    house: House, desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(metrics, "MARGIN", timedelta(0))

    async def breaks_when_told(ctx: Any) -> str:
        if ctx.input.n:
            raise CannotHeal("the well is dry")
        return "fine"

    async with working(house.dsn, one_step(breaks_when_told)):
        ids = [await house.begin("one", n=1) for _ in range(ENOUGH - 1)]
        for id_ in ids:
            await house.until(id_, "FAILED")
        await house.sessions.metrics.roll_up()
        assert not (await desk.look(error_rate=0.5)).raised  # too few to say
        await house.until(await house.begin("one", n=1), "FAILED")
        await house.sessions.metrics.roll_up()
        assert (await desk.look(error_rate=0.5)).open == 1
        assert not (await desk.look(error_rate=0.5)).raised
        ids = [await house.begin("one", n=0) for _ in range(ENOUGH)]  # two attempts each
        for id_ in ids:
            await house.until(id_)
        await house.sessions.metrics.roll_up()
        assert len((await desk.look(error_rate=0.5)).resolved) == 1
        raised, resolved = await desk.told(2)
    assert (raised["type"], resolved["type"]) == tuple(TOLD)
    assert (raised["data"]["kind"], raised["data"]["flow"]) == ("error_rate", "one")
    assert (raised["data"]["value"], raised["data"]["threshold"]) == (1.0, 0.5)
    assert "100 % of the attempts of flow one went wrong" in raised["data"]["message"]["en"]
    assert resolved["data"]["id"] == raised["data"]["id"]
    assert resolved["data"]["resolvedAt"] is not None


async def test_a_queue_that_nobody_takes_from_is_told_once_however_many_look(
    house: House, desk: Desk
):
    async with working(house.dsn, sums()):
        pass  # the flow is known, and nobody is here
    session = await house.begin("sums", replace(QUICK, auto_phases=True))
    await house.pool.execute("UPDATE ekiden.api_tasks SET available_at = now() - interval '6 min'")
    limits = replace(ALONE, queue_age=300)
    async with AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(asyncpg.create_pool(house.dsn, min_size=4, max_size=4))
            for _ in range(2)
        ]
        looks = await asyncio.gather(
            *(Alerts(pool, house.dsn).look(limits) for pool in pools for _ in range(12))
        )
    assert sum(len(look.raised) for look in looks if look) == 1
    async with working(house.dsn, sums()):
        await house.until(session)
        await desk.look(queue_age=300)
        assert sorted(await settled(house, 2)) == [FIRST, LAST]
    raised, _ = await desk.told(2)
    assert raised["data"]["value"] == pytest.approx(360, abs=30)
    assert "no worker takes it" in raised["data"]["message"]["en"]
    assert "実行待ち" in raised["data"]["message"]["ja"]


async def test_a_session_that_stands_still_is_told_and_a_held_one_is_not(house: House, desk: Desk):
    async with working(house.dsn, sums()):
        pass
    still = await house.begin("sums", replace(QUICK, auto_phases=True))
    await house.begin("sums", start=False)
    await house.pool.execute("UPDATE ekiden.sessions SET updated_at = now() - interval '1 h'")
    (found,) = (await desk.look(stuck_session=1800)).raised
    assert (found.session_id, found.phase, found.step) == (still, 1, "THINK")
    async with working(house.dsn, sums()):
        await house.until(still)
        assert [a.session_id for a in (await desk.look(stuck_session=1800)).resolved] == [still]
        raised, _ = await desk.told(2)
    assert raised["data"]["sessionId"] == still
    assert (
        f"Session {still} of flow sums has stood still for 60 min"
        in (raised["data"]["message"]["en"])
    )


async def test_a_budget_that_is_nearly_spent_is_told_until_it_is_raised(house: House, desk: Desk):
    two = five(First, Second, name="two")
    options = replace(QUICK, budgets={0: Budget(max_cost_usd=Decimal("2.2") * PRICE)})
    async with working(house.dsn, two, provider=Priced(echo, cost_usd=float(PRICE))):
        session = await house.begin("two", options)
        await house.until(session, "AWAITING_REVIEW")  # two calls
        (found,) = (await desk.look(budget=0.9)).raised
        assert found.value == pytest.approx(2 / 2.2)
        assert not (await desk.look(budget=0.9)).resolved
        await house.pool.execute("UPDATE ekiden.budgets SET max_cost_usd = 1")
        assert len((await desk.look(budget=0.9)).resolved) == 1
        raised, _ = await desk.told(2)
    assert "has spent 91 % of its budget" in raised["data"]["message"]["en"]


async def test_a_budget_of_tokens_alone_is_told_before_all_of_it_is_spent(house: House, desk: Desk):
    two = five(First, Second, name="two")
    options = replace(QUICK, budgets={0: Budget(max_tokens=1_000_000)})
    async with working(house.dsn, two, provider=Priced(echo, cost_usd=float(PRICE))):
        session = await house.begin("two", options)
        await house.until(session, "AWAITING_REVIEW")
        await house.pool.execute("UPDATE ekiden.calls SET input_tokens = 475, output_tokens = 0")
        await house.pool.execute("UPDATE ekiden.budgets SET max_tokens = 1000")  # for two calls
        (found,) = (await desk.look(budget=0.9)).raised
    assert found.value == pytest.approx(0.95)


async def test_lost_workers_are_one_alert_and_over_once_all_is_well_for_a_while(
    house: House, desk: Desk
):
    async def join() -> int:
        return await Workers(house.pool, house.dsn).register(
            software="t", model="none", flow_ids=[], capacity=1, lease=timedelta(seconds=60)
        )

    lost = [await join() for _ in range(3)]
    assert not (await desk.look(workers_lost=1)).raised
    await Workers(house.pool, house.dsn).rescue(lost, max_deaths=3)
    (found,) = (await desk.look(workers_lost=1)).raised
    assert found.value == 3
    await house.pool.execute("UPDATE ekiden.workers SET seen_at = now() - interval '16 min'")
    assert not (await desk.look(workers_lost=1)).resolved  # nobody is here
    async with working(house.dsn, sums()):
        assert len((await desk.look(workers_lost=1)).resolved) == 1
        raised, _ = await desk.told(2)
    assert raised["data"]["message"]["en"] == "3 workers lost within 15 min (limit 1)."


async def test_two_workers_that_look_all_the_time_tell_once(
    house: House, desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch.Watch.run, "__defaults__", (0.01,))
    await house.pool.execute(
        "INSERT INTO ekiden.workers (host, pid, software, flow_ids, capacity, state, lease_until)"
        " VALUES ('gone', 1, 't', '{}', 1, 'LOST', now() - interval '1 min')"
    )
    limits = replace(ALONE, workers_lost=1)
    async with (
        working(house.dsn, sums(), alerts=limits),
        working(house.dsn, sums(), alerts=limits),
    ):
        assert await settled(house, 1) == [FIRST]
        before = await house.pool.fetchval("SELECT looked_at FROM ekiden.alert_watch")
        await asyncio.sleep(0.3)
        assert await house.pool.fetchval("SELECT looked_at FROM ekiden.alert_watch") > before
        await house.pool.execute("DELETE FROM ekiden.workers WHERE state = 'LOST'")
        assert await settled(house, 2) == [FIRST, LAST]
        await asyncio.sleep(0.3)
    assert [told["type"] for told in desk.receiver.told()] == TOLD


async def test_a_receiver_that_cannot_take_it_is_asked_again_signed(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        errands.ErrandRunner.__init__, "__kwdefaults__", {"base": timedelta(milliseconds=10)}
    )
    secret = new_secret()
    async with receiving(500, 503) as receiver, working(house.dsn, sums()):
        table = Errands(house.pool, house.dsn)
        await table.add_webhook(receiver.url, secret, EVENTS)
        await house.pool.execute("UPDATE ekiden.workers SET state = 'LOST'")
        await Alerts(house.pool, house.dsn).look(replace(ALONE, workers_lost=1))
        assert await settled(house, 1) == [("alert.raised", "DONE", 3)]
        (line,) = await table.deliveries()
    assert (line.session_id, line.alert_id) == (None, 1)
    assert len({headers["webhook-id"] for headers, _ in receiver.taken}) == 1
    headers, body = receiver.taken[-1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_where_nobody_is_told_nobody_looks(house: House):
    alerts = Alerts(house.pool, house.dsn)
    await house.pool.execute(
        "INSERT INTO ekiden.workers (host, pid, software, flow_ids, capacity, state, lease_until)"
        " VALUES ('gone', 1, 't', '{}', 1, 'LOST', now())"
    )
    assert await alerts.look(Limits()) is None
    table = Errands(house.pool, house.dsn)
    await table.add_webhook("http://127.0.0.1:1/", new_secret(), ["session.failed"])
    assert await alerts.look(Limits()) is None
    hook = await table.add_webhook("http://127.0.0.1:1/", new_secret(), TOLD)
    looked = await alerts.look(Limits())
    assert looked is not None
    assert looked.open == 1
    await table.stop_webhook(hook)
    looked = await alerts.look(Limits())  # what is open is closed, and nobody is told
    assert looked is not None
    assert (len(looked.resolved), looked.open) == (1, 0)
    assert await alerts.look(Limits()) is None


async def test_alerts_are_shown_by_the_api_and_to_prometheus(house: House, desk: Desk):
    await house.pool.execute(
        "INSERT INTO ekiden.workers (host, pid, software, flow_ids, capacity, state, lease_until)"
        " VALUES ('gone', 1, 't', '{}', 1, 'LOST', now())"
    )
    async with client_of(house.sessions, ApiSettings()) as client:
        assert (await client.get("/api/alerts")).json() == {"alerts": []}
        await desk.look(workers_lost=1)
        (shown,) = (await client.get("/api/alerts", params={"open": True})).json()["alerts"]
        assert (shown["kind"], shown["value"], shown["resolvedAt"]) == ("workers_lost", 1, None)
        assert 'ekiden_alerts{kind="workers_lost"} 1.0' in (await client.get("/metrics")).text
        summary = (await client.get("/api/metrics/summary")).json()
        assert summary["now"]["alerts"] == {"workers_lost": 1}
        for code, words in (("en", "1 worker lost within"), ("ja", "ワーカー 1 台が応答を停止")):
            page = await client.get(f"/monitoring?lang={code}", follow_redirects=True)
            assert words in page.text
        await desk.look()
        assert (await client.get("/api/alerts", params={"open": True})).json() == {"alerts": []}
        (shown,) = (await client.get("/api/alerts")).json()["alerts"]
        assert shown["message"]["en"].startswith("Over after ")
        assert 'ekiden_alerts{kind="workers_lost"} 0.0' in (await client.get("/metrics")).text


class Looks(Alerts):
    """Counts how often it is asked, and says that so many alerts are open."""

    asked = 0
    open = 0
    idle = False  # nobody is told of alerts, and none is open

    async def look(self, limits: Limits, *, older_than: timedelta = timedelta()) -> Looked | None:
        self.asked += 1
        return None if self.idle else Looked(open=self.open)


async def test_who_is_idle_looks_rarely_and_who_has_an_open_alert_looks_on(house: House):
    looks = Looks(house.pool, house.dsn)
    lively = False
    watching = Watch(looks, Limits(), lively=lambda: lively)

    async def ticks(n: int) -> int:
        before = looks.asked
        for _ in range(n):
            if watching._due():
                await watching.look()
        return looks.asked - before

    assert await ticks(2) == 1  # a young worker looks once
    assert await ticks(10 * (QUIET + 1)) == 10
    lively = True
    assert await ticks(5) == 5
    lively, looks.open = False, 1
    assert await ticks(50) == 50
    looks.open = 0
    assert await ticks(QUIET) == 1
    looks.open = 1
    assert await ticks(50) == 49  # the first of them was the last quiet one
    looks.idle = True  # a peer has resolved it, and nobody is told any more
    assert await ticks(QUIET) == 1


async def test_an_idle_worker_with_a_receiver_asks_for_next_to_nothing(
    house: House, desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch.Watch.run, "__defaults__", (0.02,))
    async with working(house.dsn, sums()):
        await asyncio.sleep(0.5)
        before = await counted(house)
        await asyncio.sleep(0.5)  # and what counted() waits itself: 80 ticks, four looks
        after = await counted(house)
    # This test's own questions, a beat of the heart, and the looks.
    assert after["transactions"] - before["transactions"] <= 14
