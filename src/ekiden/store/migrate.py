"""Brings the schema up to date.

In order, checksummed, one transaction each, in one process at a time.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

import asyncpg

from ekiden.errors import MigrationError
from ekiden.store.connection import connect, translated

_LOCK = 0x656B6964656E  # "ekiden"
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS ekiden;
CREATE TABLE IF NOT EXISTS ekiden.migrations (
    number     int PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of ``migrations/``."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Return the hash that says whether an applied migration was changed later."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """Return the migrations that this version of Ekiden knows, in order."""
    found = []
    for file in (resources.files("ekiden.store") / "migrations").iterdir():
        if match := _FILE.fullmatch(file.name):
            found.append(
                Migration(number=int(match[1]), name=match[2], text=file.read_text("utf-8"))
            )
    return sorted(found, key=lambda m: m.number)


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    Raises:
        DatabaseUnreachable: no connection.
        MigrationError: an applied migration differs from the file, the schema is newer than this
            version, or the server is too old.
    """
    connection = await connect(dsn)
    try:
        with translated(dsn):
            return await _migrate(connection)
    finally:
        await connection.close()


async def _migrate(connection: asyncpg.Connection) -> list[str]:
    version = connection.get_server_version()
    if version.major < 15:
        raise MigrationError(f"PostgreSQL {version.major} is too old: Ekiden needs 15 to 18.")
    known = load_migrations()
    applied: list[str] = []
    while (migration := await _apply_next(connection, known)) is not None:
        applied.append(f"{migration.number:04}_{migration.name}")
    return applied


async def _apply_next(connection: asyncpg.Connection, known: list[Migration]) -> Migration | None:
    """Apply the first one that is missing; None when there is none.

    The lock is the transaction's: behind a transaction pooler one of the session would be let go on
    another connection than the one that took it. What is read after it must be younger than it.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if await connection.fetchval("SELECT to_regclass('ekiden.migrations')") is None:
            await connection.execute(_BOOTSTRAP)
        done: dict[int, str] = {
            row["number"]: row["checksum"]
            for row in await connection.fetch("SELECT number, checksum FROM ekiden.migrations")
        }
        newest = known[-1].number
        if done and max(done) > newest:
            raise MigrationError(
                f"The schema is at migration {max(done)}, this Ekiden knows {newest}: "
                "upgrade Ekiden on this machine."
            )
        for migration in known:
            if migration.number not in done:
                await connection.execute(migration.text)
                await connection.execute(
                    "INSERT INTO ekiden.migrations (number, name, checksum) VALUES ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.checksum,
                )
                return migration
            if done[migration.number] != migration.checksum:
                raise MigrationError(
                    f"Migration {migration.number:04}_{migration.name} was applied in another "
                    "form than this version has it. Restore the file, or the database."
                )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaState:
    """What a database has, beside what this version of Ekiden knows."""

    server: str  # PostgreSQL's version, e.g. "18.6"
    applied: int  # the newest migration that was applied; 0 is none
    known: int


async def look(dsn: str) -> SchemaState:
    """Return the state of a database's schema and change nothing.

    Raises:
        DatabaseUnreachable: no connection.
    """
    connection = await connect(dsn)
    try:
        with translated(dsn):
            version = connection.get_server_version()
            applied = 0
            if await connection.fetchval("SELECT to_regclass('ekiden.migrations')") is not None:
                applied = await connection.fetchval(
                    "SELECT coalesce(max(number), 0) FROM ekiden.migrations"
                )
            return SchemaState(
                server=f"{version.major}.{version.micro}",  # asyncpg: 18.6 is (18, 0, 6)
                applied=applied,
                known=load_migrations()[-1].number,
            )
    finally:
        await connection.close()
