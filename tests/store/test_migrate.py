"""Migrations: once each, in order, by one process at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from ekiden.errors import DatabaseError, DatabaseUnreachable, MigrationError
from ekiden.store import migrate as migrating
from ekiden.store.embedded import EmbeddedServer
from ekiden.store.migrate import Migration, load_migrations, migrate
from tests.store.helpers import second

ALL = [f"{m.number:04}_{m.name}" for m in load_migrations()]
NEXT = load_migrations()[-1].number + 1


@pytest_asyncio.fixture
async def empty(server: EmbeddedServer) -> AsyncIterator[str]:
    """The DSN of a database without a schema."""
    admin = await asyncpg.connect(server.dsn)
    await admin.execute("CREATE DATABASE bare")
    try:
        yield server.dsn.replace("@/ekiden?", "@/bare?")
    finally:
        await admin.execute("DROP DATABASE bare WITH (FORCE)")
        await admin.close()


async def applied(dsn: str) -> list[str]:
    async with second(dsn) as connection:
        rows = await connection.fetch("SELECT number, name FROM ekiden.migrations ORDER BY number")
    return [f"{row['number']:04}_{row['name']}" for row in rows]


def test_migrations_are_numbered_from_one_without_a_gap():
    assert [m.number for m in load_migrations()] == list(range(1, len(ALL) + 1))


async def test_an_empty_database_gets_every_migration_in_order_and_then_none(empty: str):
    assert await migrate(empty) == ALL
    assert await applied(empty) == ALL
    assert await migrate(empty) == []


async def test_of_eight_at_once_each_migration_is_applied_by_one_and_in_order(empty: str):
    done = await asyncio.gather(*(migrate(empty) for _ in range(8)))
    assert sorted(name for names in done for name in names) == ALL
    assert all(names == sorted(names) for names in done)
    assert await applied(empty) == ALL


async def test_only_what_is_missing_is_applied(empty: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(migrating, "load_migrations", lambda: load_migrations()[:1])
    assert await migrate(empty) == ALL[:1]
    monkeypatch.undo()
    assert await migrate(empty) == ALL[1:]


async def test_an_applied_migration_that_differs_from_its_file_is_refused(database: str):
    async with second(database) as connection:
        await connection.execute("UPDATE ekiden.migrations SET checksum = 'x' WHERE number = 1")
    with pytest.raises(MigrationError, match=r"0001_relay was applied in another form"):
        await migrate(database)


async def test_a_schema_newer_than_this_version_is_refused(database: str):
    async with second(database) as connection:
        await connection.execute("INSERT INTO ekiden.migrations VALUES (9999, 'later', 'x')")
    with pytest.raises(MigrationError, match=r"is at migration 9999, this Ekiden knows \d+:"):
        await migrate(database)


@pytest.mark.parametrize(
    "then", ["SELECT 1 / 0", f"INSERT INTO ekiden.migrations VALUES ({NEXT}, 'me', 'x')"]
)
async def test_a_migration_that_fails_leaves_nothing_of_itself_and_the_lock_free(
    database: str, monkeypatch: pytest.MonkeyPatch, then: str
):
    # The second one is done with its own text, and fails where it would be noted down.
    broken = Migration(number=NEXT, name="broken", text=f"CREATE TABLE ekiden.half (); {then};")
    monkeypatch.setattr(migrating, "load_migrations", lambda: [*load_migrations(), broken])
    with pytest.raises(DatabaseError, match=r"division by zero|duplicate key"):
        await migrate(database)
    async with second(database) as connection:
        assert await connection.fetchval("SELECT to_regclass('ekiden.half')") is None
    assert await applied(database) == ALL
    monkeypatch.undo()
    assert await migrate(database) == []


async def test_a_server_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, database: str):
    old = type("Version", (), {"major": 14})()
    monkeypatch.setattr(asyncpg.Connection, "get_server_version", lambda _: old)
    with pytest.raises(MigrationError, match="PostgreSQL 14 is too old: Ekiden needs 15 to 18"):
        await migrate(database)


async def test_a_database_that_is_not_there_is_named(server: EmbeddedServer):
    with pytest.raises(DatabaseUnreachable, match="database nowhere"):
        await migrate(server.dsn.replace("@/ekiden?", "@/nowhere?"))
