"""A session's page kept up to date: what changed on it goes along with the stream itself.

A page that asked for each change would ask two hundred times where two hundred are open. So the
parts of the page are made once for all who look at the same session in the same language, and each
page is sent those that are not as it has them. What is a reader's own (the token and the name in
the forms, and what makes one decision of a form sent twice) is filled in at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from secrets import token_hex

from fastapi.sse import format_sse_event
from markupsafe import escape

from ekiden.api.sse import Reader
from ekiden.web.rendering import render
from ekiden.web.session_view import SessionView, read
from ekiden.web.spans import iso
from ekiden.web.visit import Visit

PAUSE = 0.1  # seconds between two looks of one page at least: a burst is shown as one change
_PARTS = ("_top", "_standing", "_figures", "_rest", "_time")  # templates; each one element
_ACT = "_act"  # the part that holds a reader's own
_AGO = re.compile(r"(<time [^>]*data-ago>)[^<]*")  # "3 s ago": the page itself tells that anew

# Stand for what is a reader's own. Nobody can guess them, so no model can write them.
_TOKEN, _NAME, _ONCE = (token_hex(16) for _ in range(3))


@dataclass(frozen=True, slots=True)
class Made:
    """A part of the page."""

    html: str
    block: bytes  # as it is sent; of the reader's own part: empty
    digest: bytes  # the same while nothing but time went by


@dataclass(frozen=True, slots=True)
class Shot:
    """The changing parts of a session's page in one language, as of one moment."""

    parts: dict[str, Made]
    last_event: int
    ended: bool
    now: datetime


class PageReader:
    """Looks at a session for one open page; ``ekiden.api.sse.Looks``."""

    def __init__(self, visit: Visit, session_id: str, after: int) -> None:
        self._visit = visit
        self._watchers = visit.here.watchers
        self._session_id = session_id
        self._after = after  # the event that the page is as new as
        self._has: dict[str, bytes] = {}  # digests of the parts that this stream has sent
        self._said = Reader(visit.here.sessions, self._watchers, session_id, after)
        self.ended = False

    async def look(self) -> AsyncIterator[bytes]:
        """Yield the parts that changed, in one piece, then what running calls say."""
        newest = await self._watchers.ask(
            self._session_id, "newest", lambda: self._visit.pages.last_event(self._session_id)
        )
        if newest > self._after:
            # Once for all who read this language: nothing in it is anybody's own.
            kept, key = self._watchers.kept(self._session_id), ("shot", self._visit.t.code)
            shot: Shot | None = kept.get(key)
            if shot is None or shot.last_event < newest:
                shot = kept[key] = await self._watchers.ask(self._session_id, key, self._shoot)
            yield self._changed(shot)
            self._after, self.ended = shot.last_event, shot.ended
        if not self.ended:
            async for block in self._said.partials():
                yield block

    async def _shoot(self) -> Shot:
        here, t = self._visit.here, self._visit.t
        material = await self._watchers.ask(
            self._session_id, "page", lambda: read(here.sessions, self._session_id)
        )
        view = SessionView(material, t)
        others = max(0, self._watchers.watching(self._session_id) - 1)  # each one but themselves
        values = {
            "view": view, "now": view.now, "parts": True, "told": "", "wrong": {}, "typed": {},
            "token": _TOKEN, "name": _NAME, "once": _ONCE, "others": others,
        }  # fmt: skip
        parts = {}
        for name in (*_PARTS, _ACT):
            html = render(f"{name}.html", t, **values)
            parts[name] = Made(
                html=html,
                block=b"" if name == _ACT else _block(html),
                digest=blake2b(_AGO.sub(r"\1", html).encode(), digest_size=16).digest(),
            )
        return Shot(parts, material.last_event, view.ended, view.now)

    def _changed(self, shot: Shot) -> bytes:
        """Return what this page does not have, and the event that it is as new as then."""
        blocks = []
        for name, made in shot.parts.items():
            if self._has.get(name) != made.digest:
                self._has[name] = made.digest
                blocks.append(made.block or _block(self._own(made.html)))
        # With the server's time: the clock beside the page may be wrong.
        shown = format_sse_event(data_str=iso(shot.now), event="shown", id=str(shot.last_event))
        return b"".join([*blocks, shown])

    def _own(self, html: str) -> str:
        own = {_TOKEN: self._visit.token, _NAME: escape(self._visit.name), _ONCE: token_hex(16)}
        for mark, value in own.items():
            html = html.replace(mark, value)
        return html


def _block(html: str) -> bytes:
    return format_sse_event(data_str=json.dumps(html, ensure_ascii=False), event="part")
