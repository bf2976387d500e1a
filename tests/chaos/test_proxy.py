"""The proxy between a real client and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from chaos.proxy import Proxy


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    proxy = Proxy("127.0.0.1", server.sockets[0].getsockname()[1])
    await proxy.start()
    yield proxy
    await proxy.stop()
    server.close()
    await server.wait_closed()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, proxy: Proxy) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def echo(self, data: bytes, patience: float = 5.0) -> bytes:
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), patience)

    def close(self) -> None:
        self.writer.transport.abort()


async def test_passes_bytes_both_ways(proxy: Proxy) -> None:
    client = await Client.to(proxy)
    assert await client.echo(b"hello" * 10_000) == b"hello" * 10_000
    client.close()


async def test_cut_resets_what_is_open_and_what_comes(proxy: Proxy) -> None:
    client = await Client.to(proxy)
    await client.echo(b"here")
    proxy.set("cut")
    with pytest.raises(ConnectionResetError):
        await client.echo(b"gone")
    late = await Client.to(proxy)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await late.echo(b"gone too")
    proxy.set("pass")
    again = await Client.to(proxy)
    assert await again.echo(b"back") == b"back"
    for one in (client, late, again):
        one.close()


async def test_a_black_hole_keeps_sockets_open_and_says_nothing(proxy: Proxy) -> None:
    client = await Client.to(proxy)
    await client.echo(b"here")
    proxy.set("black-hole")
    late = await Client.to(proxy)
    for one in (client, late):
        with pytest.raises(TimeoutError):
            await one.echo(b"lost", patience=0.2)
        assert not one.reader.at_eof()
        assert one.reader.exception() is None
    # What was swallowed never arrives: who lost something is reset when the network is back.
    proxy.set("pass")
    for one in (client, late):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await one.echo(b"x")
        one.close()


async def test_a_connection_that_lost_nothing_survives_a_black_hole(proxy: Proxy) -> None:
    client = await Client.to(proxy)
    await client.echo(b"here")
    proxy.set("black-hole")
    proxy.set("pass")
    assert await client.echo(b"still here") == b"still here"
    client.close()


async def test_delay_is_late_and_complete(proxy: Proxy) -> None:
    proxy.set("delay")
    proxy.delay_s = 0.1
    client = await Client.to(proxy)
    began = asyncio.get_running_loop().time()
    assert await client.echo(b"slow") == b"slow"
    assert asyncio.get_running_loop().time() - began >= 0.2, "both ways"
    client.close()


async def test_a_target_that_is_not_there_resets_the_client() -> None:
    nobody = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = nobody.sockets[0].getsockname()[1]
    nobody.close()
    await nobody.wait_closed()
    proxy = Proxy("127.0.0.1", port)
    await proxy.start()
    client = await Client.to(proxy)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.echo(b"anyone?")
    client.close()
    await proxy.stop()


async def test_postgresql_is_reached_through_its_socket(database: str) -> None:
    folder = database.partition("host=")[2].partition("&")[0]
    from urllib.parse import unquote

    proxy = Proxy(unquote(folder), 5432)
    await proxy.start()
    name = database.partition("@/")[2].partition("?")[0]
    connection = await asyncpg.connect(f"postgresql://ekiden@127.0.0.1:{proxy.port}/{name}")
    assert await connection.fetchval("SELECT current_database()") == name
    proxy.set("cut")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()
    await proxy.stop()
