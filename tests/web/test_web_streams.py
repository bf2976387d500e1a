"""A page's streams end with the login that opened them, and with nothing else."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import httpx2
import pytest

from tests.web.site import Person, Site

KEY = "open sesame"
TWELVE_HOURS = 12 * 3600
SOON = 5  # seconds; the next sign of life would come after fifteen


async def logged_in(stack: AsyncExitStack, *addresses: str) -> list[Person]:
    """Return one person's browser at each address."""
    people = []
    for address in addresses:
        person = Person(base_url=address, follow_redirects=True, timeout=30)
        await stack.enter_async_context(person)
        if people:
            person.cookies.update(people[0].cookies)
        else:
            await person.send_form(await person.get("/login"), "/login", key=KEY)
        people.append(person)
    return people


class Stream:
    """An open stream, read as it comes."""

    def __init__(self) -> None:
        self.heard = ""
        self.ended = asyncio.Event()

    @classmethod
    async def open(cls, stack: AsyncExitStack, person: httpx2.AsyncClient, path: str) -> Stream:
        answer = await stack.enter_async_context(person.stream("GET", path))
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = cls()

        async def read() -> None:
            async for text in answer.aiter_text():
                stream.heard += text
            stream.ended.set()

        stack.callback(asyncio.create_task(read()).cancel)
        return stream

    async def until(self, words: str) -> None:
        async with asyncio.timeout(SOON):
            while words not in self.heard:
                await asyncio.sleep(0.01)


async def streams_of(
    stack: AsyncExitStack, person: httpx2.AsyncClient, session: str
) -> list[Stream]:
    """Open both streams that pages have."""
    paths = f"/sessions/{session}/events", "/events"
    return [await Stream.open(stack, person, path) for path in paths]


async def test_streams_end_with_the_twelve_hours_of_their_login(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    await site.work()
    address = await site.serve(api_key=KEY)
    session = await site.begin()
    await site.until(session)
    started = time.time()
    async with AsyncExitStack() as stack:
        (person,) = await logged_in(stack, address)
        client = await stack.enter_async_context(
            httpx2.AsyncClient(
                base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=30
            )
        )
        # No wait is longer than the login: a moment is left of it, however far the bell is.
        monkeypatch.setattr(time, "time", lambda: int(started) + TWELVE_HOURS - 0.05)
        streams = await streams_of(stack, person, session)
        with_key = await streams_of(stack, client, session)
        for stream in (*streams, *with_key):
            await stream.until(": ")
        monkeypatch.setattr(time, "time", lambda: started + TWELVE_HOURS + 2)
        async with asyncio.timeout(SOON):
            for stream in streams:
                await stream.ended.wait()
        await site.sessions.approve(session, actor="Mika")
        await with_key[0].until("event: shown")
        await with_key[1].until("event: changed")
        assert (await person.get("/")).url.path == "/login"


async def test_a_logout_ends_the_streams_of_its_login_at_every_process(site: Site):
    await site.work()
    here, there = [await site.serve(api_key=KEY) for _ in range(2)]
    session = await site.begin()
    await site.until(session)
    async with AsyncExitStack() as stack:
        mine, mine_there = await logged_in(stack, here, there)
        (other,) = await logged_in(stack, there)
        ended = [
            *await streams_of(stack, mine, session), *await streams_of(stack, mine_there, session)
        ]  # fmt: skip
        going_on = await streams_of(stack, other, session)
        for stream in (*ended, *going_on):
            await stream.until(": ")
        await mine.send_form(await mine.get("/"), "/logout")
        async with asyncio.timeout(SOON):
            for stream in ended:
                await stream.ended.wait()
        await site.sessions.approve(session, actor="Mika")
        await going_on[0].until("event: shown")
        assert not any(stream.ended.is_set() for stream in going_on)


async def test_without_a_login_streams_have_no_end(site: Site, monkeypatch: pytest.MonkeyPatch):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    async with AsyncExitStack() as stack:
        person = await stack.enter_async_context(Person(base_url=address, timeout=30))
        streams = await streams_of(stack, person, session)
        for stream in streams:
            await stream.until(": ")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 10 * TWELVE_HOURS)
        await site.sessions.approve(session, actor="Mika")
        await streams[0].until("event: shown")
        await streams[1].until("event: changed")
