"""The API tells when no worker is left to tell it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from ekiden.cli import serving
from ekiden.cli.compose import Database
from ekiden.cli.listening import listen
from ekiden.cli.tools import Commands
from ekiden.config import Settings
from ekiden.store.errands import Errands
from ekiden.worker import watch
from ekiden.worker.webhooks import new_secret
from tests.worker.relay import QUICK, open_house, sums, working
from tests.worker.test_errands import receiving, settled


async def test_the_api_alone_tells_that_nobody_works(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch.Watch.run, "__defaults__", (0.05,))
    settings = Settings(database_url=SecretStr(database), home=tmp_path, alert_queue_age=60)
    async with open_house(database) as house, receiving() as receiver:
        async with working(database, sums()):
            pass  # the flow is known, and its worker leaves
        await Errands(house.pool, database).add_webhook(
            receiver.url, new_secret(), ["alert.raised", "alert.resolved"]
        )
        session = await house.begin("sums", replace(QUICK, auto_phases=True))
        await house.pool.execute(
            "UPDATE ekiden.api_tasks SET available_at = now() - interval '61 s'"
        )
        with Database(settings) as opened, listen("127.0.0.1", 0) as listener:
            running = asyncio.create_task(
                serving._serve(settings, opened, listener, Commands(settings, []), alone=False)
            )
            try:
                assert await settled(house, 1) == [("alert.raised", "DONE", 1)]
                async with working(database, sums(), alerts=settings.alert_limits()):
                    await house.until(session)
                    assert (await settled(house, 2))[1] == ("alert.resolved", "DONE", 1)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    assert [told["data"]["kind"] for told in receiver.told()] == ["queue_age"] * 2
