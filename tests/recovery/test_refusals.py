"""PostgreSQL is there and says no, for now: timeouts, locks, deadlocks, isolation, room."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import httpx2
import pytest

from ekiden.api.app import create_app
from ekiden.api.settings import ApiSettings
from ekiden.store.connection import open_pool
from ekiden.store.doorbell import Doorbell
from ekiden.store.sessions import Sessions
from tests.recovery.load import (
    Heard,
    all_completed,
    begin,
    control,
    outcomes,
    some_are_done,
    squares,
)
from tests.worker.relay import House, working


@pytest.mark.parametrize("timeout", ["statement_timeout", "lock_timeout"])
async def test_a_timeout_of_the_server_is_waited_out(
    house: House, heard: Heard, timeout: str
) -> None:
    """Everything that touches a task fails for a while."""
    async with control(house.dsn) as connection:
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(f"ALTER DATABASE {name} SET {timeout} = '60ms'")
        async with working(house.dsn, squares(), capacity=8):
            sessions = await begin(house)
            await some_are_done(house)
            async with connection.transaction():
                await connection.execute("LOCK TABLE ekiden.api_tasks IN ACCESS EXCLUSIVE MODE")
                await heard.until("database_lost", heard.count("database_lost") + 8)
            await all_completed(house, sessions)
    assert heard.count("attempt_failed") == 0
    assert set(await outcomes(house)) <= {"COMPLETED", "RELEASED"}


async def test_deadlocks_with_somebody_else_are_tried_again(house: House, heard: Heard) -> None:
    """Somebody locks tasks before sessions: the wrong order, and more patient than a worker."""
    async with control(house.dsn, deadlock_timeout="20s", lock_timeout="1s") as connection:
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '200ms'")
        async with working(house.dsn, squares(), capacity=8):
            sessions = await begin(house)
            await some_are_done(house)
            for _ in range(4):
                with suppress(asyncpg.LockNotAvailableError):
                    async with connection.transaction():
                        await connection.execute(
                            "SELECT FROM ekiden.api_tasks WHERE status = 'RUNNING' FOR UPDATE"
                        )
                        await asyncio.sleep(0.05)  # a commit has its session and waits for us
                        await connection.execute("SELECT FROM ekiden.sessions FOR UPDATE")
            await all_completed(house, sessions)
    deadlocks = [f for event, f in heard.events if "deadlock" in f.get("error", "")]
    assert deadlocks
    assert heard.count("attempt_failed") == 0


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_a_stricter_isolation_by_default_changes_nothing(
    house: House, heard: Heard, isolation: str
) -> None:
    async with control(house.dsn) as connection:
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
        )
    async with (
        working(house.dsn, squares(), capacity=8),
        working(house.dsn, squares(), capacity=8),
    ):
        sessions = await begin(house, 30)
        await all_completed(house, sessions)
    assert heard.count("database_lost") == 0


# What PostgreSQL says when it cannot for now. None of it is the fault of what was asked.
PASSING = {
    "40001": "serialization failure",
    "40P01": "deadlock",
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "lock not available",
    "57014": "query cancelled",
    "57P01": "admin shutdown",
    "58030": "input/output error",
    "25006": "read only",
    "08006": "connection failure",
}


@pytest.mark.parametrize("sqlstate", PASSING)
async def test_what_passes_by_itself_never_fails_a_step(
    house: House, heard: Heard, sqlstate: str
) -> None:
    """The hand-off, the retry of a failed step and the claim are all refused for a while."""
    refuse = f"""
        CREATE TABLE trouble (on_ boolean);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM trouble) THEN
                RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON ekiden.api_tasks
            FOR EACH ROW EXECUTE FUNCTION refuse();
    """
    async with control(house.dsn) as connection:
        await connection.execute(refuse)
        async with working(house.dsn, squares(), capacity=8):
            sessions = await begin(house)
            await some_are_done(house)
            await connection.execute("INSERT INTO trouble VALUES (true)")
            await heard.until("database_lost", heard.count("database_lost") + 6)
            await connection.execute("TRUNCATE trouble")
            await all_completed(house, sessions)
    assert heard.count("attempt_failed") == 0
    assert heard.count("database_back") >= 1
    assert set(await outcomes(house)) <= {"COMPLETED", "RELEASED"}


async def test_what_does_not_pass_is_refused_at_once(house: House) -> None:
    """The counter-test: a value that PostgreSQL will never take does fail its step."""
    async with control(house.dsn) as connection:
        await connection.execute(
            "ALTER TABLE ekiden.api_tasks ADD CONSTRAINT never CHECK (result IS NULL)"
        )
    async with working(house.dsn, squares(), capacity=8):
        (session,) = await begin(house, 1)
        progress = await house.until(session, "FAILED")
    assert progress["error"]["kind"] == "ResultInvalid"


@pytest.mark.parametrize("sqlstate", ["53100", "40001", "25006", "57014"])
async def test_the_api_says_503_and_when_to_come_back(house: House, sqlstate: str) -> None:
    async with control(house.dsn) as connection, open_pool(house.dsn) as pool:
        await connection.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON ekiden.sessions
                FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
        async with working(house.dsn, squares()):
            pass  # the flow is known
        app = create_app(
            Sessions(pool, house.dsn), doorbell=Doorbell(lambda: house.dsn), settings=ApiSettings()
        )
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/api/squares/cot-session/create", json={"n": 3})
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["type"] == "urn:ekiden:problem:database-busy"
            assert "not now" not in answer.text  # the database's words stay in the log
            await connection.execute("DROP TRIGGER refuse ON ekiden.sessions")
            answer = await client.post("/api/squares/cot-session/create", json={"n": 3})
            assert answer.status_code == 201
