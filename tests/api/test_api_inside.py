"""A failed session, debugged from the API alone."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import structlog

from ekiden import Context, Flow, Phase, __version__, telemetry
from ekiden.api.settings import ApiSettings
from ekiden.attempt_log import FromLibraries
from ekiden.core import recording
from ekiden.flows.registry import CompiledFlow
from tests.api.conftest import client_of
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, Count, House, Word, open_house, working

RAW = b'{"word": \xff\x00 not json'
KEY = "sk-proj-abcdEFGH1234567890abcd"


class Spell(Phase):
    """Spell"""

    async def think(self, ctx: Context) -> Word:
        structlog.get_logger("a.flow").warning("spelling", attempt_says=ctx.attempt, key=KEY)
        logging.getLogger("a.package").warning("odd: %s", "letters")
        logging.getLogger("a.package").info("asked with %s", KEY)
        return await ctx.ask(f"spell it, try {ctx.attempt}", Word, repairs=0)

    async def integrate(self, ctx: Context, plan: Word) -> str:
        return plan.word


@pytest.fixture
def logging_set_up() -> Iterator[None]:
    before = structlog.get_config()
    telemetry.set_up_logging(level=logging.WARNING)
    yield
    structlog.configure(**before)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, FromLibraries)]:
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with open_house(database) as house:
        yield house


@pytest.fixture
async def failed(house: House, logging_set_up: None) -> AsyncIterator[tuple[Any, str]]:
    """A client, and where the failed session is."""
    flow = CompiledFlow(Flow("spells", input=Count, phases=[Spell]))
    provider = ScriptedProvider([RAW, b'{"words": 1}'])
    async with working(house.dsn, flow, provider=provider):
        session = await house.begin("spells", replace(QUICK, max_retries=1))
        await house.until(session, "FAILED")
    async with client_of(house.sessions, ApiSettings()) as client:
        yield client, f"/api/spells/cot-session/{session}"


async def test_from_progress_to_the_raw_bytes_in_three_requests(
    failed: tuple[httpx2.AsyncClient, str],
):
    client, session = failed
    error = (await client.get(f"{session}/progress")).json()["error"]
    assert (error["phase"], error["step"], error["attempt"]) == (1, "THINK", 2)
    tried = (await client.get(f"{session}/tasks/{error['taskId']}/attempts")).json()
    first = tried["calls"][0]
    answer = await client.get(f"{session}/calls/{first['id']}/answer")
    assert answer.content == RAW
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


async def test_an_attempt_shows_its_worker_and_its_log_without_secrets(
    failed: tuple[httpx2.AsyncClient, str], capfd: pytest.CaptureFixture[str]
):
    client, session = failed
    error = (await client.get(f"{session}/progress")).json()["error"]
    tried = (await client.get(f"{session}/tasks/{error['taskId']}/attempts")).json()
    assert tried["task"]["status"] == "FAILED"
    assert [a["outcome"] for a in tried["attempts"]] == ["RETRIED", "FAILED"]
    for attempt in tried["attempts"]:
        assert attempt["worker"]["software"] == __version__
        lines = {line["event"]: line for line in attempt["logs"]}
        assert lines["spelling"]["attempt_says"] == attempt["number"]
        assert lines["spelling"]["key"] == "[redacted]"
        assert lines["odd: letters"]["level"] == "warning"
        assert lines["asked with [redacted]"]["logger"] == "a.package"
        end = "attempt_failed" if attempt["outcome"] == "FAILED" else "attempt_retried"
        assert end in lines
    assert KEY not in str(tried)


async def test_a_call_shows_what_was_asked_and_why_the_answer_is_of_no_use(
    failed: tuple[httpx2.AsyncClient, str],
):
    client, session = failed
    error = (await client.get(f"{session}/progress")).json()["error"]
    tried = (await client.get(f"{session}/tasks/{error['taskId']}/attempts")).json()
    call = (await client.get(f"{session}/calls/{tried['calls'][1]['id']}")).json()
    assert call["request"]["messages"] == [["user", "spell it, try 2"]]
    assert call["request"]["schema"]["required"] == ["word"]
    assert call["answer"] == '{"words": 1}'
    assert (call["outcome"], call["attempt"], call["step"]) == ("INVALID", 2, "THINK")
    assert "word: Field required" in call["error"]
    assert call["outputTokens"] == 2


async def test_two_attempts_are_compared(failed: tuple[httpx2.AsyncClient, str]):
    client, session = failed
    task = (await client.get(f"{session}/progress")).json()["error"]["taskId"]
    found = (await client.get(f"{session}/tasks/{task}/difference")).json()
    assert (found["before"], found["after"]) == (1, 2)
    assert found["outcomes"] == ["RETRIED", "FAILED"]
    (pair,) = found["calls"]
    assert [line for line in pair["request"] if line[:1] in "+-"][2:] == [
        '-   "spell it, try 1"',
        '+   "spell it, try 2"',
    ]
    assert '+ "words": 1' in pair["answer"]
    same = (await client.get(f"{session}/tasks/{task}/difference?before=1&after=1")).json()
    assert (same["calls"][0]["request"], same["calls"][0]["answer"]) == ([], [])
    assert (await client.get(f"{session}/tasks/{task}/difference?after=9")).status_code == 404


async def test_what_is_not_there_is_not_found(failed: tuple[httpx2.AsyncClient, str], house: House):
    client, session = failed
    for path in ("calls/999", "calls/999/answer", "tasks/999/difference", "tasks/999/attempts"):
        assert (await client.get(f"{session}/{path}")).status_code == 404, path
    await house.pool.execute("UPDATE ekiden.calls SET answer = NULL, outcome = 'FAILED'")
    call = await house.pool.fetchval("SELECT min(id) FROM ekiden.calls")
    assert (await client.get(f"{session}/calls/{call}")).json()["answer"] is None
    unanswered = await client.get(f"{session}/calls/{call}/answer")
    assert unanswered.status_code == 404
    assert "got no answer" in unanswered.json()["detail"]


class Calm(Phase):
    """Tells what it does, and warns of nothing until the end"""

    async def think(self, ctx: Context) -> None:
        logging.getLogger("a.package").info("thinking")

    async def integrate(self, ctx: Context, plan: None) -> str:
        logging.getLogger("a.package").info("two sources of three")
        logging.getLogger("a.package").warning("the third did not answer")
        return "done"


async def test_of_what_went_well_only_an_attempt_that_warned_leaves_its_log(
    house: House, logging_set_up: None
):
    flow = CompiledFlow(Flow("calm", input=Count, phases=[Calm]))
    async with working(house.dsn, flow):
        session = await house.begin("calm", QUICK)
        await house.until(session)
    (task,) = await house.pool.fetch("SELECT task_id FROM ekiden.attempt_logs")
    async with client_of(house.sessions, ApiSettings()) as client:
        path = f"/api/calm/cot-session/{session}/tasks/{task['task_id']}/attempts"
        found = (await client.get(path)).json()
    assert found["task"]["step"] == "INTEGRATE"
    (attempt,) = found["attempts"]
    assert [(line["level"], line["event"]) for line in attempt["logs"]] == [
        ("info", "two sources of three"),
        ("warning", "the third did not answer"),
    ]


async def test_the_whole_session_as_a_file_is_what_another_database_imports(
    failed: tuple[httpx2.AsyncClient, str], house: House
):
    client, path = failed
    exported = await client.get(f"{path}/export")
    id_ = path.rpartition("/")[2]
    assert exported.headers["content-disposition"] == f'attachment; filename="{id_}.json"'
    rows = recording.read(exported.text)
    assert rows == await house.sessions.recordings.take(id_)
    assert [base64.b64decode(call["answer"]) for call in rows["calls"]] == [RAW, b'{"words": 1}']
    missing = await client.get(f"{path[:-36]}01a20a4f-0000-7000-8000-000000000000/export")
    assert missing.status_code == 404
