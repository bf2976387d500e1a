"""PostgreSQL is there and says no, for now: timeouts, locks, deadlocks, isolation, room."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import httpx2
import pytest

from ekiden import Context
from ekiden.api.app import create_app
from ekiden.api.settings import ApiSettings
from ekiden.store.connection import open_pool
from ekiden.store.doorbell import Doorbell
from ekiden.store.sessions import Sessions
from ekiden.worker import committer as committer_module
from tests.recovery.load import (
    AUTO,
    Heard,
    all_completed,
    begin,
    control,
    eventually,
    outcomes,
    some_are_done,
    squares,
)
from tests.store.helpers import someone_waits
from tests.worker.relay import House, one_step, working
from tests.worker.test_death import committing, completion


async def some_refusals(heard: Heard, how_many: int) -> None:
    """Wait until the worker has met that many more."""

    def met() -> int:
        return heard.count("database_lost") + heard.count("commit_blocked")

    wanted = met() + how_many
    await eventually(lambda: met() >= wanted, f"{wanted} refusals")


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
                await some_refusals(heard, 8)
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


async def test_a_session_that_somebody_holds_does_not_stop_the_others(
    house: House, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "LOCK", 0.2)
    go, running = asyncio.Event(), set[str]()

    async def waits(ctx: Context) -> str:
        running.add(ctx.session_id)
        await go.wait()
        return "done"

    async with working(house.dsn, one_step(waits)), control(house.dsn) as somebody:
        held, *others = [await house.begin("one", AUTO) for _ in range(4)]
        await eventually(lambda: len(running) == 4, "all of them to run")
        async with somebody.transaction():
            await somebody.execute("SELECT FROM ekiden.sessions WHERE id = $1 FOR UPDATE", held)
            go.set()
            for session in others:
                await house.until(session)
            await heard.until("commit_blocked", 3)
            await house.until(await house.begin("one", AUTO))
            assert (await house.sessions.progress(held))["status"] == "RUNNING"
        await house.until(held)
    assert set(await outcomes(house)) == {"COMPLETED"}
    assert await outcomes(house) == {"COMPLETED": 2 * 5}


async def test_what_a_client_that_is_gone_had_locked_is_free_again_soon(house: House) -> None:
    async with open_pool(house.dsn) as pool:
        assert await pool.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
        ours = await pool.fetch("SELECT name FROM pg_settings WHERE source = 'client'")
    keepalives = {f"tcp_keepalives_{what}" for what in ("idle", "interval", "count")}
    assert keepalives <= {row["name"] for row in ours}


async def test_a_lost_commit_that_goes_through_after_its_completion_was_put_back_is_settled(
    house: House, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks while its statement waits for a lock, and PostgreSQL does not know."""
    monkeypatch.setattr(committer_module, "LOCK", 600.0)
    async with (
        control(house.dsn) as somebody,
        control(house.dsn) as looking,
        committing(house) as (committer, (one, *_)),
    ):
        async with somebody.transaction():
            await somebody.execute("SELECT FROM ekiden.sessions FOR UPDATE")
            committed = committer.submit(completion(one))
            await someone_waits(looking)
            monkeypatch.setattr(committer_module, "LOCK", 0.1)
            assert committer._connection is not None
            committer._connection.terminate()
            await heard.until("commit_blocked", 2)
        following = await committed
        assert following is not None
        assert [task.step for task in following] == ["INTEGRATE"]
    steps = await house.steps(one.session_id)
    assert steps == [(1, "THINK", 0, "COMPLETED", 1), (1, "INTEGRATE", 0, "RUNNING", 1)]


async def test_what_was_put_back_is_committed_before_the_committer_ends(
    house: House, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "LOCK", 0.1)
    async with control(house.dsn) as somebody, committing(house) as (committer, (one, two, _)):
        async with somebody.transaction():
            await somebody.execute(
                "SELECT FROM ekiden.sessions WHERE id = $1 FOR UPDATE", one.session_id
            )
            blocked, other = committer.submit(completion(one)), committer.submit(completion(two))
            assert await other
            await heard.until("commit_blocked", 2)
            closing = asyncio.create_task(committer.close())
            await heard.until("commit_blocked", 4)
            assert not closing.done()
        await closing
        assert await blocked
    assert (await house.steps(one.session_id))[0] == (1, "THINK", 0, "COMPLETED", 1)


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
            await some_refusals(heard, 6)
            await connection.execute("TRUNCATE trouble")
            await all_completed(house, sessions)
    assert heard.count("attempt_failed") == 0
    assert heard.count("database_back") + heard.count("commit_blocked") >= 1
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
