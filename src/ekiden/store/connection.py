"""Connections: how they are opened, and how database errors become ours.

Errors cross the border by class or SQLSTATE, never by their text. What matters of an error is what
to do next:

* ``TRANSIENT``: the transaction was rolled back; send the same again, on the same connection.
* ``UNREACHABLE``: wait, and try again on a new connection. What became of the last statement is
  unknown.
* anything else: PostgreSQL refuses what was asked, and will again.

The first two both become ``DatabaseUnreachable``: nobody but the committer, which must know what
became of its commit, has a use for the difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import asyncpg

from ekiden.errors import DatabaseError, DatabaseUnreachable, NotFound

APPLICATION = "ekiden"
POOL_TIMEOUT = 60.0  # seconds in which a statement outside the hot path must be answered

TRANSIENT = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,  # a statement_timeout, or an operator
)
UNREACHABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InsufficientResourcesError,  # class 53: no disk, no memory, no connection left
    asyncpg.OperatorInterventionError,  # class 57: shutting down, starting up
    asyncpg.PostgresSystemError,  # class 58: the server's disk or kernel
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or what was the primary until a failover
    asyncpg.StatementCompletionUnknownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection cut in the middle of a reply can end in
)

# Every statement here was written for this level; a stricter default would only add failures.
_SETTINGS = {"default_transaction_isolation": "read committed"}
# A network that swallows packets is noticed by the server in about 20 s.
_KEEPALIVES = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}
# Whose client is gone, or forgot it, holds its locks no longer than this.
_LONGEST_IDLE = {"idle_in_transaction_session_timeout": "30s"}
_READ_ONLY = ("default_transaction_read_only", "in_hot_standby")
_HOST_TIMEOUT = 10.0  # seconds in which a server must take a connection


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
        DatabaseUnreachable: no connection, it broke, or PostgreSQL cannot for now.
        NotFound: an id is not a UUID, so it cannot be one of ours.
        DatabaseError: everything else, with the server's own words.
    """
    try:
        yield
    except (*TRANSIENT, *UNREACHABLE) as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, asyncpg.PostgresError):
            cannot = f"cannot do it now: {reason} (SQLSTATE {error.sqlstate})"
        else:
            cannot = f"cannot be reached: {reason}"
        raise DatabaseUnreachable(f"PostgreSQL at {address_of(dsn)} {cannot}") from error
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


async def connect(
    dsn: str,
    *,
    settings: dict[str, str] | None = None,
    command_timeout: float | None = None,
) -> asyncpg.Connection:
    """Open one connection in autocommit.

    Args:
        dsn: where to; of several hosts, the first that takes writes.
        settings: of the server, for this connection.
        command_timeout: seconds in which a statement must be answered; None waits for ever.

    Raises:
        DatabaseUnreachable: it could not be opened.
    """
    with translated(dsn):
        return await _dial(
            dsn,
            command_timeout=command_timeout,
            server_settings={**_SETTINGS, **_KEEPALIVES, **(settings or {})},
        )


@asynccontextmanager
async def open_pool(
    dsn: str, *, size: int = 4, settings: dict[str, str] | None = None
) -> AsyncIterator[asyncpg.Pool]:
    """Open a small pool for everything that is not the hot path; connections open on demand."""
    with translated(dsn):
        pool = await asyncpg.create_pool(
            dsn,
            connect=cast("Any", _dial),  # its parameters are asyncpg's, as **options
            reset=_reset,
            min_size=0,
            max_size=size,
            command_timeout=POOL_TIMEOUT,
            max_inactive_connection_lifetime=300,
            server_settings={**_SETTINGS, **_KEEPALIVES, **_LONGEST_IDLE, **(settings or {})},
        )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), 5)
        except (TimeoutError, *UNREACHABLE):
            pool.terminate()


async def _dial(dsn: str, *, server_settings: dict[str, str], **options: Any) -> asyncpg.Connection:
    """Connect to the first of the DSN's hosts that takes writes.

    asyncpg has one timeout for all of them: a host that swallows packets, as a dead machine does,
    would use it up, and the next one would never be asked.
    """
    named = {"application_name": server_settings.get("application_name", APPLICATION)}
    refusals: list[str] = []
    for host, port in _hosts_of(dsn):
        # Whatever the DSN says: nothing here can do without writing.
        there = {"host": host, "port": port, "target_session_attrs": "read-write", **options}
        try:
            try:
                return await asyncpg.connect(
                    dsn,
                    timeout=_HOST_TIMEOUT,
                    server_settings={**named, **server_settings},
                    **there,
                )
            except asyncpg.ProtocolViolationError:
                # A pooler that does not know these settings: better without them than not at all.
                return await asyncpg.connect(
                    dsn, timeout=_HOST_TIMEOUT, server_settings=named, **there
                )
        except UNREACHABLE as error:
            if host is None:
                raise
            refusals.append(f"{host}: {str(error) or type(error).__name__}")
    raise ConnectionError("; ".join(refusals))


def _hosts_of(dsn: str) -> list[tuple[str | None, int | None]]:
    """Return host and port of each server that a DSN names; (None, None) leaves it to asyncpg."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    listed = parts.netloc.rpartition("@")[2] or ",".join(query.get("host", []))
    hosts = [h for h in listed.split(",") if h]
    if len(hosts) < 2:
        return [(None, None)]
    ports = ",".join(query.get("port", [])).split(",")
    found: list[tuple[str | None, int | None]] = []
    for number, each in enumerate(hosts):
        name, colon, port = each.rpartition(":")
        if not colon or each.endswith("]"):  # a name alone; an IPv6 address is in brackets
            name, port = each, ports[number] if len(ports) == len(hosts) else ports[0]
        found.append((name.strip("[]"), int(port or 5432)))
    return found


async def _reset(connection: asyncpg.Connection) -> None:
    """Close a connection that takes no writes any more; the next user gets another.

    Nothing else: asyncpg has ended an open transaction, and no user of a pool changes the
    connection. What listens, locks or has settings of its own is a connection outside the pool.
    asyncpg's own reset would be one more round trip, and one more transaction, after each query.
    """
    told = connection.get_settings()  # PostgreSQL tells of changes by itself
    if "on" in {getattr(told, name, "off") for name in _READ_ONLY}:
        connection.terminate()


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
