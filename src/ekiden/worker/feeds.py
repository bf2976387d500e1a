"""Fetches feeds again when they are due, so that what is searched is up to date by itself.

A feed is one worker's at a time. Its server is asked only for what is new (RFC 9110 §13.1), as
often as EKIDEN_FEED_INTERVAL says, and less often while it fails.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from ekiden import telemetry
from ekiden.errors import DatabaseError, SearchError
from ekiden.redaction import redact
from ekiden.store.documents import Documents
from ekiden.store.doorbell import Doorbell
from ekiden.store.feeds import Feed, Feeds
from ekiden.worker.errands import when_due

if TYPE_CHECKING:
    from ekiden.search.fetching import Known, Page

_AT_ONCE = 4
_HOLD = timedelta(seconds=120)  # how long a claimed feed is one worker's; a fetch ends before
_SWEEP = 900.0  # seconds between looks that nothing asked for
# Seconds until a feed that fails is fetched again: doubled each time, up to a day.
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 86_400.0


class FeedRefresher:
    """Refreshes feeds until it is cancelled.

    Args:
        feeds: when each is due.
        documents: take their entries.
        doorbell: rings when one is added.
        every: seconds from one fetch of a feed to the next; 0 fetches none.
        fetch: gets a page; from public addresses when None.
    """

    def __init__(
        self,
        feeds: Feeds,
        documents: Documents,
        doorbell: Doorbell,
        *,
        every: float,
        fetch: Callable[[str, Known], Awaitable[Page]] | None = None,
    ) -> None:
        self._feeds = feeds
        self._documents = documents
        self._doorbell = doorbell
        self._every = every
        self._fetch = fetch

    async def run(self) -> None:
        """Look whenever a feed is due."""
        if self._every > 0:
            async with self._doorbell.subscribe("feed_due") as bell:
                await when_due(bell, self._work)

    async def _work(self) -> float:
        """Fetch all that is due; return in how many seconds to look again."""
        while True:
            due = await self._feeds.next_due()
            if due is None or due > 0:
                return _SWEEP if due is None else min(due, _SWEEP)
            claimed = await self._feeds.claim(_AT_ONCE, _HOLD)
            await asyncio.gather(*(self._refresh(feed) for feed in claimed))
            if not claimed:
                return 1.0  # somebody else has them

    async def _refresh(self, feed: Feed) -> None:
        try:
            await self._take_in(feed)
        except DatabaseError:
            raise  # it is due again once its hold is over
        except SearchError as error:
            await self._failed(feed, error.message, _pause_after(feed.failures, error))
        except Exception as error:  # noqa: BLE001 - the others must not wait for this one
            await self._failed(feed, f"{type(error).__name__}: {error}", _LONGEST_PAUSE)

    async def _failed(self, feed: Feed, error: str, pause: float) -> None:
        error = redact(error)  # it names the address
        await self._feeds.failed(feed, again=timedelta(seconds=pause), error=error)
        telemetry.emit("feed_failed", source=feed.source, error=error, next_try_s=round(pause))

    async def _take_in(self, feed: Feed) -> None:
        """Fetch a feed and store what is new in it.

        Raises:
            SearchError: it cannot be fetched, or is no feed.
        """
        # Late: most workers have no feed, and start without an HTTP library.
        from ekiden.search.feeds import take_in  # noqa: PLC0415
        from ekiden.search.fetching import Known, fetch  # noqa: PLC0415

        known = Known(etag=feed.etag, last_modified=feed.last_modified)
        page = await (self._fetch(feed.source, known) if self._fetch else fetch(feed.source, known))
        written = 0
        if not page.unchanged:
            written, _ = await take_in(self._documents, page, feed.source)
        again = timedelta(seconds=self._every * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
        marks = page.known if not page.unchanged else page.known.or_else(known)
        await self._feeds.fetched(
            feed, again=again, etag=marks.etag, last_modified=marks.last_modified
        )
        telemetry.emit("feed_fetched", source=feed.source, written=written)


def _pause_after(failures: int, error: SearchError) -> float:
    """Return in how many seconds to try again a feed that had failed so often before."""
    if not error.retryable:
        return _LONGEST_PAUSE  # it is gone, or no feed any more: a day may heal that
    pause = min(_FIRST_PAUSE * 2.0 ** min(failures, 20), _LONGEST_PAUSE)
    spread = pause * random.uniform(0.75, 1)  # noqa: S311 - jitter
    return min(max(spread, error.retry_after or 0.0), _LONGEST_PAUSE)
