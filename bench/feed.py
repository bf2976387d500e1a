"""The live feed: from the commit of a step to everyone who watches its session.

    python bench/feed.py [--watchers 2000] [--sessions 200] [--seconds 30] [--json]

One API process as ``ekiden serve`` runs it, one worker, sessions whose steps take about a second.
Watchers are plain sockets in this process, which also runs the worker: one clock. A delivery is
timed from the call of the next step, when the one before is durable, to the arrival of its event.
Some watchers stop reading: they must slow nobody, and get what they missed when they read again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from time import perf_counter

import uvloop

import noop
from ekiden.store.connection import connect
from ekiden.store.migrate import migrate
from handoff import create_held, let_go, worker
from measuring import command, database, percentiles, rss_mb, served

_ID = re.compile(rb'"phase":(\d+),"step":"([A-Z]+)"')
STEP = {b"THINK": 0, b"EXECUTE": 1, b"INTEGRATE": 2}


class Watcher:
    """One open stream."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.seen: dict[int, float] = {}  # when the completion of the nth step arrived
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self, port: int) -> None:
        # A small buffer, so that one who does not read is soon felt by the server.
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        path = f"/api/noop/cot-session/{self.session}/events"
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head

    async def read(self) -> None:
        """Read until the session ends."""
        while line := await self.reader.readline():
            if line.startswith(b"data:") and b'"task_completed"' in line:
                found = _ID.search(line)
                assert found is not None, line
                self.seen[(int(found[1]) - 1) * 3 + STEP[found[2]]] = perf_counter()
            elif b"session_completed" in line:
                break
        self.writer.close()


async def measure(dsn: str, port: int, pid: int, given: argparse.Namespace) -> dict:
    await migrate(dsn)
    noop.pause = given.seconds / 15
    flow = noop.noop_flow()
    async with worker(dsn, given.sessions, [flow]):
        pass
    sessions = await create_held(dsn, given.sessions, "noop")
    watchers = [Watcher(sessions[n % len(sessions)]) for n in range(given.watchers)]
    empty = rss_mb(pid)
    for some in (watchers[n : n + 50] for n in range(0, len(watchers), 50)):
        await asyncio.gather(*(w.open(port) for w in some))
    await asyncio.sleep(2)
    full = rss_mb(pid)
    slow, quick = watchers[: given.slow], watchers[given.slow :]
    reading = [asyncio.create_task(w.read()) for w in quick]
    async with worker(dsn, given.sessions, [flow]):
        connection = await connect(dsn)
        await let_go(connection, sessions)
        await connection.close()
        await asyncio.gather(*reading)
    await asyncio.gather(*(w.read() for w in slow))
    took = [
        (watcher.seen[n] - noop.starts[watcher.session][n + 1]) * 1000
        for watcher in quick
        for n in range(2, 14)  # they begin all at once; two steps later they are spread
    ]
    p50, p99 = percentiles(took)
    return {
        "watchers": len(watchers),
        "sessions": len(sessions),
        "events_per_s": round(len(sessions) / noop.pause),
        "deliveries_per_s": round(len(watchers) / noop.pause),
        "commit_to_watcher_p50_ms": round(p50, 2),
        "commit_to_watcher_p99_ms": round(p99, 2),
        "n": len(took),
        "kb_per_watcher": round((full - empty) * 1024 / len(watchers), 1),
        "api_mb": round(rss_mb(pid), 1),
        "missed": sum(len(w.seen) != 15 for w in watchers),
        "slow_watchers": len(slow),
    }


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--watchers", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--slow", type=int, default=20, help="watchers that do not read until late")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a session takes")
    given = parser.parse_args()
    with database() as (dsn, home), served(dsn, home) as (port, pid):
        found = uvloop.run(measure(dsn, port, pid, given))
    if given.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:28}{value:>12,}" for name, value in found.items()))


if __name__ == "__main__":
    main()
