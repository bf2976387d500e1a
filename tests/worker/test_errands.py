"""What is owed outside: webhooks, signed and once; reminders; gates that end in time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import structlog

from ekiden.core.model import Review, Verb
from ekiden.errors import CannotHeal, InputInvalid
from ekiden.store.errands import EVENTS, Errands
from ekiden.worker import errands, webhooks
from ekiden.worker.webhooks import new_secret, sign
from tests.worker.deciding import First, Priced, Second, echo, five
from tests.worker.relay import QUICK, House, one_step, open_house, working

TWO = five(First, Second, name="two")


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with open_house(database) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "_BASE", timedelta(milliseconds=10))
    monkeypatch.setattr(errands.ErrandRunner.__init__, "__kwdefaults__", {"base": errands._BASE})


@dataclass
class Receiver:
    """A web server that takes webhooks, as it is told."""

    port: int = 0
    answers: list[int] = field(default_factory=list)  # statuses to give first; then 204
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {
            line.split(": ", 1)[0].lower(): line.split(": ", 1)[1]
            for line in head.split("\r\n")[1:]
            if ": " in line
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.taken.append((headers, body))
        status = self.answers.pop(0) if self.answers else 204
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def told(self) -> list[dict[str, Any]]:
        return [orjson.loads(body) for _, body in self.taken]


@asynccontextmanager
async def receiving(*answers: int, kind: type[Receiver] = Receiver) -> AsyncIterator[Receiver]:
    receiver = kind(answers=list(answers))
    server = await asyncio.start_server(receiver.hear, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


async def settled(house: House, how_many: int) -> list[tuple[str, str, int]]:
    """Wait until so many deliveries have ended; return event, status and attempt of each."""
    table = Errands(house.pool, house.dsn)
    async with asyncio.timeout(20):
        while True:
            lines = await table.deliveries()
            if len(ended := [line for line in lines if line.finished_at]) >= how_many:
                return [(line.event, line.status, line.attempt) for line in reversed(ended)]
            await asyncio.sleep(0.01)


async def test_a_session_that_waits_and_completes_is_told_signed_and_once(house: House):
    secret = new_secret()
    async with receiving() as receiver, working(house.dsn, TWO, provider=Priced(echo)):
        await Errands(house.pool, house.dsn).add_webhook(receiver.url, secret, EVENTS)
        session = await house.begin("two")
        await house.until(session, "AWAITING_REVIEW")
        await settled(house, 1)
        await house.sessions.approve(session, actor="ann")
        await house.until(session)
        assert await settled(house, 2) == [
            ("session.waiting", "DONE", 1),
            ("session.completed", "DONE", 1),
        ]
    waiting, completed = receiver.told()
    assert (waiting["type"], waiting["data"]["sessionId"]) == ("session.waiting", session)
    assert waiting["data"]["waitingFor"]["kind"] == "review"
    assert completed["data"]["status"] == "COMPLETED"
    headers, body = receiver.taken[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_the_signature_is_the_one_of_the_specification():
    # The example of https://www.standardwebhooks.com, as its reference libraries test it.
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
        b'{"test": 2432232314}',
    )  # fmt: skip
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_who_cannot_take_it_is_asked_again_and_one_that_is_gone_is_not(house: House):
    async with (
        receiving(500, 503, 204) as shaky,
        receiving(410) as gone,
        working(house.dsn, one_step(_breaks)),
    ):
        table = Errands(house.pool, house.dsn)
        await table.add_webhook(shaky.url, new_secret(), ["session.failed"])
        await table.add_webhook(gone.url, new_secret(), ["session.failed"])
        await house.until(await house.begin("one"), "FAILED")
        assert sorted(await settled(house, 2)) == [
            ("session.failed", "DONE", 3),
            ("session.failed", "FAILED", 1),
        ]
        first, second = await table.webhooks()
    assert (first.delivered, second.failed) == (1, 1)
    ids = {headers["webhook-id"] for headers, _ in shaky.taken}
    assert len(shaky.taken) == 3
    assert len(ids) == 1, "a repeated delivery can be told by its id"


class Endless(Receiver):
    """One that begins to answer and never ends: first with its head, then with its body."""

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.taken.append(({}, head.encode()))
        if len(self.taken) > 1:
            writer.write(b"HTTP/1.1 410 Gone\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" if len(self.taken) == 1 else b"x" * 100)
                await writer.drain()
                await asyncio.sleep(0.001)


async def test_one_that_never_ends_its_answer_holds_up_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(webhooks, "TIMEOUT", 0.5)
    async with receiving(kind=Endless) as endless:
        table = Errands(house.pool, house.dsn)
        secret_path = endless.url + "/T0KEN/very-secret"
        await table.add_webhook(secret_path, new_secret(), ["session.failed"])
        with structlog.testing.capture_logs() as lines:
            async with working(house.dsn, one_step(_breaks)):
                await house.until(await house.begin("one"), "FAILED")
                assert await settled(house, 1) == [("session.failed", "FAILED", 2)]
    (line,) = await table.deliveries()
    assert (line.http_status, line.error) == (410, "HTTP 410: " + "x" * 300)
    failed = [line for line in lines if line["event"] == "webhook_failed"]
    assert [line["error"][:20] for line in failed] == [
        "No answer within 0.5",
        "HTTP 410: xxxxxxxxxx",
    ]
    assert {line["host"] for line in failed} == {"127.0.0.1"}
    assert "very-secret" not in str(lines)


async def _breaks(_ctx: object) -> str:
    raise CannotHeal("the well is dry")


async def test_a_webhook_that_was_stopped_hears_no_more(house: House):
    async with receiving() as receiver, working(house.dsn, TWO, provider=Priced(echo)):
        table = Errands(house.pool, house.dsn)
        hook = await table.add_webhook(receiver.url, new_secret(), EVENTS)
        assert await table.stop_webhook(hook)
        assert not await table.stop_webhook(hook)
        await house.until(await house.begin("two"), "AWAITING_REVIEW")
    assert receiver.taken == []
    assert await table.deliveries() == []


async def test_each_receiver_has_its_places_and_the_gates_have_theirs(house: House):
    table = Errands(house.pool, house.dsn)
    dead, other = [
        await table.add_webhook("http://127.0.0.1:9", new_secret(), EVENTS) for _ in range(2)
    ]
    await house.pool.execute(
        "INSERT INTO ekiden.errands (kind, session_id, event, webhook_id, available_at)"
        " SELECT 'webhook', gen_random_uuid(), 'session.waiting', $1::int,"
        "        ekiden.now() - interval '1 hour' FROM generate_series(1, 24)"
        " UNION ALL SELECT 'webhook', gen_random_uuid(), 'session.waiting', $2, ekiden.now()"
        " UNION ALL SELECT 'deadline', gen_random_uuid(), 'cancel', NULL, ekiden.now()",
        dead,
        other,
    )
    hold = timedelta(minutes=1)
    claimed = sorted(errand.receiver for errand in await table.claim(4, [], hold))
    assert claimed == [0, dead, dead, dead, dead, other]
    assert await table.claim(4, [dead] * 4, hold) == []
    due = await table.next_due(4, [dead] * 4)
    assert due is not None
    assert 50 < due <= 60  # what was claimed just now
    due = await table.next_due(4, [dead] * 3)
    assert due is not None
    assert due < -3000
    (one,) = await table.claim(4, [dead] * 3, hold)
    assert (one.receiver, one.kind) == (dead, "webhook")


class Silent(Receiver):
    """One that takes everything and never answers."""

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken.append(({}, await reader.readuntil(b"\r\n\r\n")))
        await reader.read()  # until the other side hangs up
        writer.close()


async def test_a_receiver_that_swallows_what_it_is_sent_holds_up_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(webhooks, "TIMEOUT", 120.0)
    table = Errands(house.pool, house.dsn)
    async with (
        receiving(kind=Silent) as silent,
        receiving() as receiver,
        working(house.dsn, one_step(_breaks)),
    ):
        await table.add_webhook(silent.url, new_secret(), ["session.failed"])
        swallowed = [await house.begin("one") for _ in range(12)]
        for session in swallowed:
            await house.until(session, "FAILED")
        async with asyncio.timeout(20):
            while len(silent.taken) < 4:
                await asyncio.sleep(0.01)
        await table.add_webhook(receiver.url, new_secret(), ["session.failed"])
        for _ in range(6):  # more than there are places
            await house.until(await house.begin("one"), "FAILED")
        assert await settled(house, 6) == [("session.failed", "DONE", 1)] * 6
    assert len(receiver.taken) == 6
    assert len(silent.taken) == 4


@pytest.mark.parametrize(("then", "status"), [("approve", "COMPLETED"), ("cancel", "CANCELLED")])
async def test_a_gate_that_nobody_passes_in_time_ends_as_was_asked_for(
    house: House, then: str, status: str
):
    policy = {"waitAtMost": 0.2, "then": then, "approvals": 2, "approvers": ["ann", "bob"]}
    async with working(house.dsn, TWO, provider=Priced(echo)):
        session = await house.begin("two", replace(QUICK, gates={1: policy}))
        await house.until(session, status)
    if then == "approve":
        (review,) = await house.sessions.reviews.of(session)
        assert (review.actor, review.comment) == ("deadline", "Nobody decided in time.")


async def test_a_reminder_tells_again_and_a_gate_that_was_passed_has_none(house: House):
    policy = {"remindAfter": 0.2, "waitAtMost": 0.4, "then": "cancel"}
    options = replace(QUICK, gates={1: policy})
    async with receiving() as receiver, working(house.dsn, TWO, provider=Priced(echo)):
        await Errands(house.pool, house.dsn).add_webhook(
            receiver.url, new_secret(), ["session.waiting"]
        )
        forgotten, seen = [await house.begin("two", options) for _ in range(2)]
        await house.until(seen, "AWAITING_REVIEW")
        await house.sessions.approve(seen, actor="ann")
        await house.until(forgotten, "CANCELLED")
        await settled(house, 3)
        assert (await house.sessions.progress(seen))["status"] == "COMPLETED"
    told = [t["data"]["sessionId"] for t in receiver.told()]
    assert (told.count(forgotten), told.count(seen)) == (2, 1)


async def test_nobody_can_decide_in_the_name_of_what_decides_by_itself(house: House):
    async with working(house.dsn, TWO, provider=Priced(echo)):
        session = await house.begin("two")
        await house.until(session, "AWAITING_REVIEW")
        for name in ("flow", "fork", "deadline"):
            with pytest.raises(InputInvalid):
                await house.sessions.reviews.take(session, Review(verb=Verb.APPROVE, actor=name))
