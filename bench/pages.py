"""Open session pages: from the commit of a step to the page that shows it.

    python bench/pages.py [--pages 200] [--painted 2] [--sessions 1,20,200] [--seconds 60]
                          [--rounds 4] [--json]

One API process as ``ekiden serve`` runs it, one worker, sessions that make something worth showing.
Painted pages are tabs of a real chromium, timed to the end of the frame that shows the step. Each
viewer's own machine draws theirs, and one that draws them all measures chromium; so the rest are
sockets that read the same stream as the page's script and are timed to the last byte of what the
page puts in, which is where the API process ends. The worker and the sockets live in this process:
one clock. The commit of a step is the call of the step after it, which its durability allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

import noop
from ekiden import Context, Flow
from ekiden.flows.registry import CompiledFlow
from ekiden.store.connection import connect
from ekiden.store.migrate import migrate
from handoff import create_held, let_go, worker
from measuring import as_text, command, database, percentiles, rss_mb, say, served

CHROMIUM = "/usr/bin/chromium"
_DONE = b"step step-COMPLETED"  # on the course, once a step
_WARM = range(2, 14)  # sessions begin all at once; two steps later they are spread

# When how many steps are drawn as done: noted after the frame.
_WATCH = """() => {
    window.seen = [];
    const look = () => requestAnimationFrame(() => setTimeout(() => {
        const done = document.querySelectorAll('#top .step-COMPLETED').length;
        if (done > (seen.at(-1)?.[0] ?? 0)) seen.push([done, Date.now() / 1000]);
    }));
    const live = document.getElementById('live');
    new MutationObserver(look).observe(live, {childList: true, subtree: true});
}"""


class Writes(noop.Noop):
    """Makes three cards with sources"""

    async def integrate(
        self, ctx: Context, plan: dict[str, bool], found: dict[str, bool]
    ) -> dict[str, Any]:
        await super().integrate(ctx, plan, found)
        text = "What people who brew at home talk about, and why it matters to them now. " * 4
        source = {"title": "A page about it", "url": "https://example.org/a-page", "snippet": text}
        return {"trends": [{"name": f"Trend {n}", "summary": text, "sources": [source] * 3}
                           for n in range(1, 4)]}  # fmt: skip


def flow() -> CompiledFlow:
    phases = [type(f"Writes{n}", (Writes,), {}) for n in range(1, 6)]
    return CompiledFlow(Flow("noop", input=noop.Nothing, phases=phases))


class Page:
    """An open page: when it showed that so many steps are done."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.seen: list[tuple[int, float]] = []  # steps done, moment (Unix time)

    def delays(self, offset: float) -> list[float]:
        """Return the milliseconds from each commit to the first sight of it."""
        found = []
        for step in _WARM:
            committed = noop.starts[self.session][step + 1] + offset
            shown = next((at for done, at in self.seen if done > step), None)
            assert shown is not None, f"step {step} of {self.session} was never shown"
            found.append((shown - committed) * 1000)
        return found


class Socket(Page):
    """Reads what the page's script reads."""

    async def open(self, port: int) -> None:
        page = await self._page(port)
        after = re.search(rb"events\?after=(\d+)", page)
        assert after is not None
        self._reader, self._writer = await self._ask(
            port, f"/sessions/{self.session}/events?after={after[1].decode()}"
        )

    async def _ask(self, port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        return reader, writer

    async def _page(self, port: int) -> bytes:
        reader, writer = await self._ask(port, f"/sessions/{self.session}")
        page = await reader.readuntil(b"</html>")
        writer.close()
        return page

    async def read(self) -> None:
        """Read until the session ends."""
        done = 0
        while line := await self._reader.readline():
            if line.startswith(b"data:") and b'id=\\"top\\"' in line:
                done = line.count(_DONE)
            elif line.startswith(b"event: shown"):
                self.seen.append((done, time.time()))
        self._writer.close()


async def paint(browser: Any, page: Page, port: int) -> Any:
    """Open a tab; each has a context of its own, for a browser gives one server six connections."""
    tab = await (await browser.new_context()).new_page()
    await tab.goto(f"http://127.0.0.1:{port}/sessions/{page.session}")
    await tab.evaluate(_WATCH)
    return tab


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """What some rounds have shown."""

    sessions: int
    pages: dict[str, int] = field(default_factory=dict)
    delays: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # ms
    lasted: float = 0.0  # s
    busy: float = 0.0  # s of the API process's CPU

    def figures(self, pid: int) -> dict[str, float]:
        found: dict[str, float] = {
            "sessions": self.sessions,
            "steps a second": round(self.sessions / noop.pause, 1),
            "API process, CPU % of a core": round(100 * self.busy / self.lasted),
            "API process, MB": round(rss_mb(pid)),
        }
        for what, took in self.delays.items():
            p50, p99 = percentiles(took)
            named = {"pages": self.pages[what], "N": len(took), "p50, ms": p50, "p99, ms": p99}
            found |= {f"commit to {what}: {name}": round(n) for name, n in named.items()}
        return found


async def measure(dsn: str, port: int, pid: int, given: argparse.Namespace, seen: Seen) -> None:
    """Run one round."""
    count = seen.sessions
    noop.pause = given.seconds / 15
    noop.starts.clear()
    noop.ends.clear()
    async with worker(dsn, count, [flow()]):
        pass
    sessions = await create_held(dsn, count, "noop")
    painted = [Page(random.choice(sessions)) for _ in range(given.painted)]
    sockets = [Socket(sessions[n % count]) for n in range(given.pages - given.painted)]
    async with AsyncExitStack() as stack:
        tabs = []
        if painted:
            from playwright.async_api import async_playwright

            chromium = (await stack.enter_async_context(async_playwright())).chromium
            browser = await chromium.launch(
                executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
            )
            stack.push_async_callback(browser.close)
            tabs = [await paint(browser, page, port) for page in painted]
        for some in (sockets[n : n + 20] for n in range(0, len(sockets), 20)):
            await asyncio.gather(*(s.open(port) for s in some))
        await asyncio.sleep(1)
        reading = [asyncio.create_task(s.read()) for s in sockets]
        busy, since = _cpu(pid), time.time()
        async with worker(dsn, count, [flow()]):
            connection = await connect(dsn)
            await let_go(connection, sessions)
            await connection.close()
            await asyncio.gather(*reading)
        lasted, busy = time.time() - since, _cpu(pid) - busy
        await asyncio.sleep(0.5)
        for page, tab in zip(painted, tabs, strict=True):
            page.seen = [(done, at) for done, at in await tab.evaluate("seen")]
    offset = time.time() - time.perf_counter()
    seen.lasted += lasted
    seen.busy += busy
    for what, pages in (("last byte", sockets), ("painted", painted)):
        if pages:
            seen.pages[what] = len(pages)
            seen.delays[what] += [delay for page in pages for delay in page.delays(offset)]


async def every(dsn: str, port: int, pid: int, given: argparse.Namespace) -> dict[str, Any]:
    await migrate(dsn)
    found = [Seen(int(count)) for count in given.sessions.split(",")]
    for number in range(1, given.rounds + 1):
        for seen in found:
            say(f"{given.pages} pages of {seen.sessions} sessions, round {number}")
            await measure(dsn, port, pid, given, seen)
    return {f"{given.pages} pages of {seen.sessions} sessions": seen.figures(pid)
            for seen in found}  # fmt: skip


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--pages", type=int, default=200, help="open pages, the painted ones too")
    parser.add_argument("--painted", type=int, default=2, help="tabs of chromium among them")
    parser.add_argument("--sessions", default="1,20,200",
                        help="how many sessions they show; each in every round")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a session takes")
    given = parser.parse_args()
    with database() as (dsn, home), served(dsn, home) as (port, pid):
        found = uvloop.run(every(dsn, port, pid, given))
    print(json.dumps(found) if given.json else as_text(found))


if __name__ == "__main__":
    main()
