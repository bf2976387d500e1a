"""A small TCP proxy that can lose the network between two processes as networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "black-hole", "cut", "delay"]

_NO_LINGER = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to ``target_host:target_port``, as its mode says.

    ``pass`` forwards. ``black-hole`` keeps every socket open and forwards nothing, new connections
    included: a half-open network. ``cut`` resets every connection and each new one. ``delay``
    forwards every packet ``delay_s`` late.

    What a black hole swallowed is not delivered later: a network loses packets, and the
    connections that lost some are reset when it heals, as TCP would end them.

    Args:
        target_host: a host, or a folder of Unix sockets (begins with "/") as in a DSN.
        target_port: its port.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._mode: Mode = "pass"
        self._passes = asyncio.Event()  # cleared while a black hole swallows
        self._passes.set()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self.delay_s = 0.05
        self.port = 0
        self.accepted = 0

    @property
    def mode(self) -> Mode:
        """What happens to packets now."""
        return self._mode

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; ``port`` says where, from then on."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Reset everything and stop listening."""
        if self._server is not None:
            self._server.close()
        self.reset()
        while self._links:
            await asyncio.gather(*(link.ended.wait() for link in list(self._links)))

    def set(self, mode: Mode) -> None:
        """Change the mode, of open connections as well."""
        if self._mode == "black-hole" and mode != "black-hole":
            for link in self._links:
                if link.lost:
                    link.reset()
        self._mode = mode
        if mode == "cut":
            self.reset()

    def deafen(self) -> int:
        """Swallow all packets of the connections that are open now, for good; return how many.

        New ones are as the mode says: the network is well again, the old sockets do not know.
        """
        for link in self._links:
            link.deaf = link.lost = True
        return len(self._links)

    def reset(self) -> None:
        """Reset all open connections; new ones are as the mode says."""
        for link in list(self._links):
            link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            if self._mode == "cut":
                link.reset()
            else:
                await link.run(*self._target)
        finally:
            link.reset()
            self._links.discard(link)
            link.ended.set()


class _Link:
    """One client's connection and ours to the target."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self._pumps: list[asyncio.Task[None]] = []
        self._dead = asyncio.Event()
        self.lost = False  # packets were swallowed
        self.deaf = False  # they are, from now on, whatever the mode
        self.ended = asyncio.Event()

    async def run(self, host: str, port: int) -> None:
        if self._proxy.mode == "black-hole":
            # Accepted by the kernel, answered by nobody; after healing the client tries again.
            self.lost = True
            await self._dead.wait()
            return
        try:
            if host.startswith("/"):
                target = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                target = await asyncio.open_connection(host, port)
        except OSError:
            return  # nobody listens there: the client is reset
        self._writers.append(target[1])
        self._pumps = [
            asyncio.create_task(self._pump(self._client[0], target[1])),
            asyncio.create_task(self._pump(target[0], self._client[1])),
        ]
        dead = asyncio.create_task(self._dead.wait())
        try:
            await asyncio.wait([*self._pumps, dead], return_when=asyncio.FIRST_COMPLETED)
            if not self._dead.is_set():
                await asyncio.wait(self._pumps, timeout=1)  # let the other direction finish
        finally:
            for task in (*self._pumps, dead):
                task.cancel()
            await asyncio.gather(*self._pumps, dead, return_exceptions=True)

    def reset(self) -> None:
        """End both connections without a word."""
        self._dead.set()
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.family in {socket.AF_INET, socket.AF_INET6}:
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if self._proxy.mode == "delay":
                    await asyncio.sleep(self._proxy.delay_s)
                if self.deaf or self._proxy.mode == "black-hole":
                    self.lost = True
                    continue
                sink.write(data)
                await sink.drain()
            if self.deaf or self._proxy.mode == "black-hole":
                self.lost = True  # nor does the other side hear that this one hung up
                await self._dead.wait()
