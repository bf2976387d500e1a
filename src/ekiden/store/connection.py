"""Connections: how they are opened, and how database errors become ours.

Errors cross the border by class or SQLSTATE, never by their text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import parse_qs, urlsplit

import asyncpg

from ekiden.errors import DatabaseError, DatabaseUnreachable, NotFound

APPLICATION = "ekiden"

# What says "the server is not there (now)": worth waiting for, unlike a wrong statement.
UNREACHABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection cut in the middle of a reply can end in
)
# Statements that may simply be sent again.
TRANSIENT = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)


def address_of(dsn: str) -> str:
    """Return where a DSN points, without its password, for people."""
    parts = urlsplit(dsn)
    database = parts.path.lstrip("/") or "default"
    # Several hosts are several addresses; urlsplit knows one only.
    hosts = parts.netloc.rpartition("@")[2]
    if not hosts:
        hosts = ",".join(parse_qs(parts.query).get("host", ["localhost"]))
    if hosts.startswith("/"):
        return f"socket {hosts}, database {database}"
    named = [h if h.rpartition("]")[2].count(":") else f"{h}:5432" for h in hosts.split(",")]
    return f"{','.join(named)}, database {database}"


@contextmanager
def translated(dsn: str) -> Iterator[None]:
    """Turn what asyncpg raises into our errors.

    Raises:
        DatabaseUnreachable: no connection, or it broke.
        NotFound: an id is not a UUID, so it cannot be one of ours.
        DatabaseError: everything else, with the server's own words.
    """
    try:
        yield
    except UNREACHABLE as error:
        reason = str(error) or type(error).__name__
        raise DatabaseUnreachable(
            f"PostgreSQL at {address_of(dsn)} cannot be reached: {reason}"
        ) from error
    except asyncpg.DataError as error:
        raise DatabaseError(f"PostgreSQL refused a value: {error}") from error
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise DatabaseUnreachable(
            f"PostgreSQL at {address_of(dsn)} refused the login: {error}"
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseUnreachable(f"PostgreSQL at {address_of(dsn)}: {error}") from error
    except asyncpg.PostgresError as error:
        raise DatabaseError(f"PostgreSQL: {error} (SQLSTATE {error.sqlstate})") from error


async def connect(dsn: str, *, settings: dict[str, str] | None = None) -> asyncpg.Connection:
    """Open one connection in autocommit.

    Raises:
        DatabaseUnreachable: it could not be opened.
    """
    with translated(dsn):
        return await asyncpg.connect(
            dsn,
            timeout=10,
            server_settings={
                "application_name": APPLICATION,
                # A network that swallows packets is noticed in about 20 s, on both sides.
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "3",
                "tcp_keepalives_count": "3",
                **(settings or {}),
            },
        )


@asynccontextmanager
async def open_pool(
    dsn: str, *, size: int = 4, settings: dict[str, str] | None = None
) -> AsyncIterator[asyncpg.Pool]:
    """Open a small pool for everything that is not the hot path; connections open on demand."""
    with translated(dsn):
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=size,
            timeout=10,
            command_timeout=60,
            max_inactive_connection_lifetime=300,
            server_settings={"application_name": APPLICATION, **(settings or {})},
        )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), 5)
        except (TimeoutError, *UNREACHABLE):
            pool.terminate()


def parse_session_id(text: str) -> str:
    """Return a session id in its canonical form.

    Raises:
        NotFound: it is not a UUID, so there is no such session.
    """
    import uuid  # noqa: PLC0415 - only here

    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise NotFound(f"There is no session {text!r}: a session id is a UUID.") from None
