"""The stream of a session's page: what changed, made once, with what is each reader's own."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from ekiden.web import live
from tests.web.site import Person, Site


class Tab(Person):
    """An open page without a browser: it collects the parts that its stream brings."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(base_url=address, timeout=30)
        self.name = name
        self.changes: list[dict[str, str]] = []  # each: id of a part → its HTML
        self.token = ""

    async def look(self, session: str) -> None:
        """Load the page, then follow it until cancelled."""
        self.cookies.set("ekiden_name", self.name.encode().hex())
        page = await self.get(f"/sessions/{session}")
        self.token = re.findall(r'name="token" value="([^"]+)"', page.text)[0]
        url = re.findall(r'data-events="([^"]+)"', page.text)[0]
        async with self.stream("GET", url) as answer:
            parts: dict[str, str] = {}
            event = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: ") and event == "part":
                    html = json.loads(line.removeprefix("data: "))
                    parts[re.findall(r'id="([^"]+)"', html)[0]] = html
                elif line.startswith("data: ") and event == "shown":
                    self.changes.append(parts)
                    parts = {}


async def followed(tabs: list[Tab], session: str, stack: AsyncExitStack, site: Site) -> None:
    """Open the tabs and wait until the server knows them all."""
    for tab in tabs:
        await stack.enter_async_context(tab)
        following = asyncio.create_task(tab.look(session))
        stack.callback(following.cancel)
    async with asyncio.timeout(20):
        while site.servers[-1]._watchers.watching(session) < len(tabs):
            await asyncio.sleep(0.01)


async def until(tabs: list[Tab], words: str) -> None:
    """Wait until each tab was sent these words."""
    async with asyncio.timeout(20):
        while not all(words in "".join("".join(c.values()) for c in t.changes) for t in tabs):
            await asyncio.sleep(0.01)


async def test_twenty_pages_of_a_session_are_made_as_often_as_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    made: list[str] = []
    render = live.render

    def counted(template: str, *args: Any, **values: Any) -> Any:
        made.append(template)
        return render(template, *args, **values)

    monkeypatch.setattr(live, "render", counted)
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    tabs = [Tab(address, "Mika") for _ in range(20)]
    async with AsyncExitStack() as stack:
        await followed(tabs, session, stack, site)
        await site.sessions.approve(session, actor="Mika")
        await until(tabs, "One minute that changes the cup")
    looks = sum(len(tab.changes) for tab in tabs)
    assert looks >= 20
    assert made.count("_top.html") < looks / 4  # a page each would be made once a look


async def test_a_page_is_sent_what_changed_and_its_own_forms(site: Site):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    tabs = [Tab(address, "Mika"), Tab(address, '"><b>Ren')]
    async with AsyncExitStack() as stack:
        await followed(tabs, session, stack, site)
        await site.sessions.approve(session, actor="somebody else")
        await until(tabs, "One minute that changes the cup")
        await site.until(session, phase=2)
        await until(tabs, 'name="revision"')
        mika, ren = tabs
        once = set()
        for tab in tabs:
            gate = [c["act"] for c in tab.changes if 'name="revision"' in c.get("act", "")][-1]
            assert set(re.findall(r'name="token" value="([^"]+)"', gate)) == {tab.token}
            once |= set(re.findall(r'name="once" value="([^"]+)"', gate))
            for mark in (live._TOKEN, live._NAME, live._ONCE):
                assert mark not in gate
        assert len(once) == 2
        assert mika.token != ren.token
        assert 'value="&#34;&gt;&lt;b&gt;Ren"' in "".join(c.get("act", "") for c in ren.changes)
        # A part is told again only when it is another: what is typed in a form stays.
        seen: dict[str, str] = {}
        for change in mika.changes:
            for part, html in change.items():
                assert live._AGO.sub("", html) != live._AGO.sub("", seen.get(part, "")), part
                seen[part] = html
        # The whole page, read anew, is what the stream has brought.
        page = await mika.get(f"/sessions/{session}")
        top = re.findall(r'<div id="top"[^>]*>', page.text)[0]
        assert re.findall(r'data-revision="(\d*)"', top) == re.findall(
            r'data-revision="(\d*)"', seen["top"]
        )


async def test_a_page_that_is_as_new_as_the_session_is_sent_nothing(site: Site):
    await site.work()
    address = await site.serve()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    async with httpx2.AsyncClient(base_url=address) as client:
        page = await client.get(f"/sessions/{session}")
        assert "data-ended" in page.text
        newest = await site.sessions.pages.last_event(session)
        ended = await client.get(f"/sessions/{session}/events?after={newest}")
        assert ended.status_code == 204
        late = await client.get(f"/sessions/{session}/events?after={newest - 1}")
        assert "event: shown" in late.text
        assert f"id: {newest}" in late.text
