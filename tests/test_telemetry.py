"""Log lines say whose they are, as JSON where no person looks, and without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from ekiden import telemetry
from ekiden.attempt_log import LINES, AttemptLog, FromLibraries
from ekiden.core.model import ClaimedTask

TASK = ClaimedTask(
    id=7, session_id="019a", flow_id=1, phase=2, step="THINK", item=0, generation=1, attempt=3,
    budget_from=0,
)  # fmt: skip
WHERE = {"session": "019a", "phase": 2, "step": "THINK", "task": 7, "attempt": 3}


@pytest.fixture
def set_up() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, FromLibraries)]:
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    telemetry._threshold = logging.INFO


async def test_every_line_of_an_attempt_says_whose_it_is(
    set_up: None, capsys: pytest.CaptureFixture[str]
):
    telemetry.set_up_logging()  # stderr is no terminal here
    telemetry.emit("database_lost", error="before any attempt")
    AttemptLog(TASK).begin()
    telemetry.emit("database_lost", error="password=hunter2hunter2", next_try_s=1)
    structlog.get_logger("a.flow").info("mine", step_of_mine=1)
    logging.getLogger("a.package").error("theirs %d", 5)
    logging.getLogger("a.package").info("of each request, not printed")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == [
        "database_lost", "database_lost", "mine", "theirs 5",
    ]  # fmt: skip
    assert "task" not in lines[0]
    for line in lines[1:]:
        assert WHERE.items() <= line.items()
        assert {"level", "timestamp"} <= set(line)
    assert lines[1]["error"] == "password=[redacted]"
    assert lines[3]["logger"] == "a.package"


async def test_an_attempt_keeps_its_newest_lines(set_up: None):
    telemetry.set_up_logging(level=logging.WARNING)
    log = AttemptLog(TASK).begin()
    assert log.as_json() is None
    telemetry.emit("answer_repaired", complaint="too long", left=1)  # below what is printed
    for number in range(LINES + 5):
        structlog.get_logger().warning("line", number=number, odd="\udc80\0", large=2**70)
    kept = json.loads(log.as_json() or "")
    assert (len(kept), log.count) == (LINES, LINES + 6)
    assert kept[0]["number"] == 5
    assert kept[-1]["odd"] == "?\ufffd"
    assert kept[-1]["large"] == str(2**70)


async def test_a_repair_is_noted_though_it_is_not_printed(set_up: None):
    telemetry.set_up_logging(level=logging.WARNING)
    log = AttemptLog(TASK).begin()
    telemetry.emit("answer_repaired", complaint="too long", left=1)
    (line,) = json.loads(log.as_json() or "")
    assert (line["event"], line["complaint"], line["level"]) == (
        "answer_repaired", "too long", "debug",
    )  # fmt: skip
