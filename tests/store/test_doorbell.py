"""The bell: heard by all who wait, back after it was lost, and never relied on alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import chain, repeat

import asyncpg
import pytest_asyncio

from ekiden.store.doorbell import LOOK_AT_EVERYTHING, Doorbell, Subscription
from tests.store.helpers import second, until


@pytest_asyncio.fixture
async def ringing(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that rings."""
    async with second(database) as connection:
        yield connection


async def ring(connection: asyncpg.Connection, payload: str, channel: str = "bell") -> None:
    await connection.execute("SELECT pg_notify($1, $2)", channel, payload)


async def hear(subscription: Subscription, count: int = 1) -> list[str]:
    """Return the next payloads; the test's own timeout bounds the wait."""
    heard: list[str] = []
    while len(heard) < count:
        heard += await subscription.wait()
    return heard


async def kill_listener(connection: asyncpg.Connection) -> None:
    killed = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND query LIKE 'LISTEN%'"
    )
    assert killed == 1


async def test_every_subscriber_hears_every_ring(database: str, ringing: asyncpg.Connection):
    async with (
        Doorbell(lambda: database) as bell,
        bell.subscribe("bell") as one,
        bell.subscribe("bell") as other,
    ):
        await bell.connected.wait()
        await hear(one)
        await hear(other)
        await ring(ringing, "a")
        await ring(ringing, "b")
        assert await hear(one, 2) == ["a", "b"]
        assert await hear(other, 2) == ["a", "b"]


async def test_a_subscriber_hears_its_channel_alone(database: str, ringing: asyncpg.Connection):
    async with (
        Doorbell(lambda: database) as bell,
        bell.subscribe("bell") as bells,
        bell.subscribe("gong") as gongs,
    ):
        await bell.connected.wait()
        await hear(bells)
        await hear(gongs)
        await ring(ringing, "for gongs", "gong")
        await ring(ringing, "for bells")
        assert await hear(bells) == ["for bells"]
        assert await hear(gongs) == ["for gongs"]


async def test_whoever_subscribes_later_is_told_to_look_first(
    database: str, ringing: asyncpg.Connection
):
    async with Doorbell(lambda: database) as bell:
        await bell.connected.wait()
        async with bell.subscribe("bell") as late:
            assert await hear(late) == [LOOK_AT_EVERYTHING]
            await ring(ringing, "a")
            assert await hear(late) == ["a"]
        async with bell.subscribe("bell") as again:
            assert await hear(again) == [LOOK_AT_EVERYTHING]
            await ring(ringing, "b")
            assert await hear(again) == ["b"]


async def test_many_who_subscribe_at_once_all_hear(database: str, ringing: asyncpg.Connection):
    async with Doorbell(lambda: database) as bell:
        await bell.connected.wait()

        async def wait_for_own(channel: str, ready: asyncio.Event) -> list[str]:
            async with bell.subscribe(channel) as subscription:
                await hear(subscription)
                ready.set()
                return await hear(subscription)

        ready = {f"channel_{n}": asyncio.Event() for n in range(8)}
        waiting = [asyncio.create_task(wait_for_own(*pair)) for pair in ready.items()]
        for event in ready.values():
            await event.wait()
        for channel in ready:
            await ring(ringing, channel, channel)
        # No second LOOK_AT_EVERYTHING: none of them cost the others the connection.
        assert await asyncio.gather(*waiting) == [[channel] for channel in ready]


async def test_whoever_subscribes_while_it_connects_is_listened_for(
    database: str, ringing: asyncpg.Connection
):
    subscribed, begun = asyncio.Event(), asyncio.Event()

    class Slow(Doorbell):
        """Stops where another channel's LISTEN is on its way."""

        async def _listen(self, connection: asyncpg.Connection, channel: str) -> None:
            await super()._listen(connection, channel)
            if channel == "first":
                begun.set()
                await subscribed.wait()

    async def subscribe_late(bell: Doorbell) -> list[str]:
        async with bell.subscribe("late") as late:
            await bell.connected.wait()
            heard: list[str] = []
            while "a" not in heard:
                heard += await late.wait()
            return heard

    bell = Slow(lambda: database)
    async with bell.subscribe("first"), bell:
        await begun.wait()
        late = asyncio.create_task(subscribe_late(bell))
        await asyncio.sleep(0)  # it is in the list now
        subscribed.set()
        await bell.connected.wait()

        async def listens() -> bool:
            await ring(ringing, "a", "late")
            return late.done()

        await asyncio.wait_for(until(listens), 10)
        await late


async def test_after_a_lost_connection_it_listens_again_and_says_to_look(
    database: str, ringing: asyncpg.Connection
):
    async with (
        Doorbell(lambda: database) as bell,
        bell.subscribe("bell") as subscription,
    ):
        await bell.connected.wait()
        await hear(subscription)
        await kill_listener(ringing)
        assert await hear(subscription) == [LOOK_AT_EVERYTHING]
        assert bell.listening
        await ring(ringing, "a")
        assert await hear(subscription) == ["a"]


async def test_it_reconnects_when_told_to(database: str):
    async with Doorbell(lambda: database) as bell, bell.subscribe("bell") as subscription:
        await bell.connected.wait()
        await hear(subscription)
        bell.reconnect()
        assert await hear(subscription) == [LOOK_AT_EVERYTHING]


async def test_it_asks_for_the_address_again_and_waits_for_a_server_that_is_not_there(
    database: str,
):
    addresses = chain([database.replace("@/t_", "@/gone_")], repeat(database))
    async with (
        Doorbell(lambda: next(addresses)) as bell,
        bell.subscribe("bell") as subscription,
    ):
        assert not bell.listening
        assert await hear(subscription) == [LOOK_AT_EVERYTHING]
        await bell.connected.wait()


async def test_when_it_ends_it_leaves_no_connection(database: str, ringing: asyncpg.Connection):
    async with Doorbell(lambda: database) as bell:
        await bell.connected.wait()
    assert not bell.listening

    async def alone() -> bool:
        others = await ringing.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return others == 0

    await until(alone)


async def test_a_subscriber_far_behind_is_told_to_look_at_everything_instead():
    subscription = Subscription()
    for number in range(1000):
        subscription.put(str(number))
    subscription.put("one too many")
    subscription.put("and one more")
    assert await subscription.wait() == [LOOK_AT_EVERYTHING, "and one more"]


async def test_waiting_ends_empty_when_nothing_comes():
    subscription = Subscription()
    assert await subscription.wait(0) == []
    subscription.put("a")
    assert await subscription.wait(0) == ["a"]
    assert await subscription.wait(0) == []
