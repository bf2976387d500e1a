"""What a page has done by the real program: replay of a session, and a check of the providers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape

from ekiden.web.texts import load_texts
from ekiden.worker.replay import Verdict
from tests.cli.answering import FLOW, KEY
from tests.cli.program import Program
from tests.providers.fake_server import FakeServer
from tests.web.site import Person


@asynccontextmanager
async def visiting(program: Program, *flows: str) -> AsyncIterator[Person]:
    (program.folder / "out.txt").unlink(missing_ok=True)
    with program.started("serve", "--port", "0", *flows) as server:
        server.says("The API listens at")
        address = server.out.split()[-1]
        async with Person(base_url=address, follow_redirects=True, timeout=60) as person:
            yield person


async def test_the_page_says_what_todays_code_would_do_differently(
    asking: Program, model: FakeServer
) -> None:
    ended = await asking.run("run", "asking", *FLOW, "--theme", "fruit", "--json")
    assert ended.code == 0, ended.err
    path = f"/sessions/{ended.json['sessionId']}/replay"
    asked = len(model.requests)
    async with visiting(asking, *FLOW) as person:
        page = await person.get(path)
        assert "Nobody is asked, nothing is paid" in page.text
        page = await person.send_form(page, path)
        assert page.status_code == 200
        assert "All 4 steps are as they were." in page.text
    async with visiting(asking.but(ASKING_PROMPT="<b>Another</b> word for"), *FLOW) as person:
        page = await person.send_form(await person.get(path), path)
        assert "2 of 4 steps would be different." in page.text
        assert "would ask something else" in page.text
        assert "<b>Another" not in page.text
        assert '+   "<b>Another</b> word for fruit that is red."' in unescape(page.text)
        page = await person.get(f"{path}?lang=ja")
        page = await person.send_form(page, path)
        assert "4ステップ中2件が当時と異なります。" in page.text
    assert len(model.requests) == asked


async def test_the_settings_page_asks_providers_when_it_is_told_to_and_shows_no_key(
    asking: Program, model: FakeServer
) -> None:
    async with visiting(asking, *FLOW) as person:
        page = await person.get("/settings")
        assert "a fraction of a cent" in page.text
        assert re.search(r"OPENAI_API_KEY</td><td[^>]*>\(set\)</td><td>environment", page.text)
        here = await person.send_form(page, "/settings#check")
        assert "<tr><td>openai:tiny</td>" not in here.text
        assert "PostgreSQL 1" in here.text
        assert model.requests == []
        both = await person.send_form(page, "/settings#check", providers="1")
        row = re.search(r"<tr><td>openai:tiny</td>(.*?)</tr>", both.text)
        assert row is not None, both.text
        assert "works" in row[1]
        assert re.search(r'<td class="num">\d+ ms</td>|<td class="num">\d+\.\d s</td>', row[1])
        assert len(model.requests) == 1
        for shown in (page, here, both):
            assert KEY not in shown.text


async def test_a_replay_that_cannot_be_done_says_why(asking: Program) -> None:
    ended = await asking.run("run", "asking", *FLOW, "--theme", "fruit", "--json")
    path = f"/sessions/{ended.json['sessionId']}/replay"
    async with visiting(asking) as person:  # its server knows no such flow
        page = await person.send_form(await person.get(path), path)
    assert page.status_code == 409
    assert "asking" in page.text.partition('role="alert"')[2][:300]


def test_every_verdict_has_words() -> None:
    for verdict in Verdict:
        assert f"verdict.{verdict.replace(' ', '-')}" in load_texts()
