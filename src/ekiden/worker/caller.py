"""Makes the calls of one attempt, and pays for none that was paid for before.

A call's answer is looked for in three places, in this order: in the ledger, where earlier attempts
left it; at the provider, when an earlier attempt was told under which id it is kept there; and only
then is it asked for. Whatever becomes of a call that was made is in the ledger: an answer byte for
byte before anyone reads it, a failure, or that it was stopped in the middle.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import timedelta
from decimal import Decimal
from time import monotonic
from typing import Any, TypeVar

import orjson

from ekiden import failpoint, telemetry, tracing
from ekiden.core.model import CallOutcome, ClaimedTask
from ekiden.errors import (
    BudgetReached,
    EkidenError,
    Interrupted,
    ModelBusy,
    ModelError,
    ModelUnavailable,
    NotNow,
    StepError,
    StillAnswering,
)
from ekiden.providers.protocol import (
    Answer,
    KeepsAnswers,
    ModelRequest,
    Priced,
    Provider,
    RawAnswer,
    Thinks,
    Usage,
    storable,
)
from ekiden.redaction import redact, redact_bytes
from ekiden.store.ledger import Call, PaidAnswer, UnwantedAnswer
from ekiden.worker.ledger_writer import LedgerWriter
from ekiden.worker.partial_writer import PartialStream
from ekiden.worker.question import canonical_ask
from ekiden.worker.withdrawals import withdraw

T = TypeVar("T")

_LONGEST_PAUSE = 900.0  # seconds until an answer that is long in coming is looked for again,
_NEVER_COMES = timedelta(days=1)  # and after this it counts as a failure
_KEEP = 5.0  # seconds that a stopped step waits for its call to be noted down


class Caller:
    """The calls of one attempt."""

    def __init__(self, task: ClaimedTask, ledger: LedgerWriter) -> None:
        self._task = task
        self._ledger = ledger
        self._calls = 0
        self._taken: list[int] = []  # answers of earlier attempts that this one has used
        self._tried: list[str] = []  # ids of answers that it looks for no more
        self._reserved: set[int] = set()  # calls that a budget was asked for
        self._looking = asyncio.Lock()  # two equal questions are two answers
        # What makes a call, and whether its sending is over: from there on nothing may be lost.
        self._making: dict[asyncio.Task[Any], asyncio.Event] = {}
        self._ended = False

    def end(self) -> bool:
        """Let no call begin any more: the step is over. Return whether any is under way."""
        self._ended = True
        return bool(self._making)

    async def rest(self, seconds: float) -> None:
        """Let the calls under way end; stop those that have not after ``seconds``.

        Nobody waits for them any more, but the next attempt asks the same: it must find their
        answers in the ledger.
        """
        under_way = dict(self._making)
        try:
            await asyncio.wait(under_way, timeout=max(0.0, seconds))
        finally:
            for making, over in under_way.items():
                if not over.is_set():
                    making.cancel()
            await asyncio.wait(under_way, timeout=_KEEP)

    def new(self, kind: str, provider: str, model: str, asked: bytes) -> Call:
        """Return the next call, not yet made."""
        self._calls += 1
        return Call(
            session_id=self._task.session_id,
            task_id=self._task.id,
            attempt=self._task.attempt,
            number=self._calls,
            kind=kind,
            provider=provider,
            model=model,
            request_hash=hashlib.sha256(asked).digest(),
            request=redact_bytes(asked),
        )

    def instead(self, call: Call, asked: bytes) -> Call:
        """Return a call that asks something else in the place of another."""
        request_hash = hashlib.sha256(asked).digest()
        return replace(call, request_hash=request_hash, request=redact_bytes(asked))

    async def useless(self, call: Call) -> list[PaidAnswer]:
        """Return what earlier attempts were answered to this request that was of no use."""
        return [] if self._task.attempt == 1 else await self._ledger.useless(call)

    async def paid(self, call: Call) -> tuple[Call, PaidAnswer] | None:
        """Take the next answer this task has already paid for, if there is one.

        Returns:
            The call it is the answer of, and the answer.
        """
        if self._task.attempt == 1:
            return None
        # Asked anew each time: an earlier attempt that lost its lease may have been answered since.
        async with self._looking:
            paid = await self._ledger.next_paid(call, self._taken)
            if paid is None:
                return None
            self._taken.append(paid.id)
        then = replace(
            call,
            attempt=paid.attempt,
            number=paid.number,
            provider=paid.provider,
            model=paid.model,
        )
        return then, paid

    async def fetched(
        self, call: Call, provider: Provider, *, give_up: bool = False
    ) -> tuple[Call, RawAnswer] | None:
        """Fetch an answer that an earlier attempt asked for and the provider keeps.

        It goes to the ledger under the call that asked for it. With ``give_up`` one that has not
        come for a day is withdrawn: somebody else is asked.

        Raises:
            StillAnswering: it is not there yet.
            ModelError: nobody knows whether the provider has it; asking again might pay twice.
        """
        if self._task.attempt == 1 or not isinstance(provider, KeepsAnswers):
            return None
        while True:
            async with self._looking:
                started = await self._ledger.next_started(call, self._tried)
                if started is None:
                    return None
                self._tried.append(started.answer_id)
            begun = monotonic()
            then = replace(
                call, attempt=started.attempt, number=started.number, model=started.model
            )
            try:
                raw = await provider.fetch(started.answer_id)
            except (ModelUnavailable, ModelBusy, NotNow) as error:
                silent = isinstance(error, StillAnswering) and started.age > _NEVER_COMES
                if silent and give_up:
                    await self._withdraw(then, provider, started.answer_id)
                    continue
                self._tried.remove(started.answer_id)  # nobody knows: it may be there next time
                if isinstance(error, StillAnswering):
                    raise _waited(error, started.age) from error
                raise
            if raw is None:
                continue
            telemetry.emit("answer_fetched", task=self._task.id, asked_in=started.attempt)
            then.took = timedelta(seconds=monotonic() - begun)
            await self._store(then, raw)
            return then, raw

    async def _withdraw(self, call: Call, provider: Provider, answer_id: str) -> None:
        """Let the provider stop; the call is in the ledger, with what it took unknown."""
        call.outcome = CallOutcome.ABORTED
        call.error = "No answer had come after a day: nobody waits for it any more."
        await self._ledger.append(call)
        unwanted = UnwantedAnswer(
            task_id=call.task_id, attempt=call.attempt, number=call.number,
            provider=call.provider, model=call.model, answer_id=answer_id,
        )  # fmt: skip
        await withdraw(unwanted, provider, self._ledger.note_withdrawn)

    async def said_before(self, call: Call) -> str:
        """Return how the newest cut answer to this began; empty when there is none.

        A call whose worker died has left no row in the ledger: it is noted there, with what it took
        unknown, because it was paid for as well.
        """
        if self._task.attempt == 1:
            return ""
        async with self._looking:
            cut = await self._ledger.next_cut(call, self._tried)
            if cut is None:
                return ""
            self._tried.append(cut.answer_id)
        lost = replace(
            call, attempt=cut.attempt, number=cut.number, outcome=CallOutcome.ABORTED,
            error="Its worker ended before the answer was complete.",
        )  # fmt: skip
        await self._ledger.append(lost)  # no change where it is noted already
        telemetry.emit("answer_continued", task=self._task.id, cut_in=cut.attempt)
        return cut.said

    async def ask(
        self,
        call: Call,
        provider: Provider,
        request: ModelRequest,
        understand: Callable[[RawAnswer], Awaitable[T]],
    ) -> T:
        """Ask the provider, store its answer, and return what ``understand`` makes of it.

        Raises:
            ModelError: no usable answer came.
            BudgetReached: it would exceed a budget; it is not made.
        """
        stream = self._ledger.partials.open(call)

        def hear(piece: str) -> None:
            self._reach("call.midstream")
            stream.hear(piece)

        async def send() -> RawAnswer:
            return await provider.send(
                request,
                on_text=hear,
                on_id=lambda answer_id: self._ledger.started(call, answer_id),
                on_usage=lambda usage: note_usage(call, usage),
            )

        async def reserve() -> None:
            await self._reserve(call, provider, request)

        return await self.make(call, send, understand, stream, reserve)

    async def make(
        self,
        call: Call,
        send: Callable[[], Awaitable[RawAnswer]],
        understand: Callable[[RawAnswer], Awaitable[T]],
        stream: PartialStream | None = None,
        reserve: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Make a call: send, store what came, and return what ``understand`` makes of it.

        Where the session has a budget, ``reserve`` comes first.

        Being cancelled stops the sending; an answer that has come is stored and read all the same.

        Raises:
            Interrupted: the attempt has lost its task, or its step is over; nothing was sent.
        """
        if await self._ledger.begin(call) and reserve is not None:
            await reserve()
            await self._ledger.begin(call)  # again: others that reserve may have taken long
        if self._ended:
            raise Interrupted(f"The step of attempt {call.attempt} is over: no call begins.")
        over = asyncio.Event()
        making = self._ledger.see_through(self._traced(call, send, understand, stream, over))
        self._making[making] = over
        making.add_done_callback(self._making.pop)
        try:
            await asyncio.wait({making})
        except asyncio.CancelledError:
            if not over.is_set():
                making.cancel()
            # So that the next attempt finds it in the ledger; without a database it may not.
            await asyncio.wait({making}, timeout=_KEEP)
            raise
        return making.result()

    async def _reserve(self, call: Call, provider: Provider, request: ModelRequest) -> None:
        """Reserve what the call may cost at most.

        Raises:
            BudgetReached: it would exceed a budget; it is not made.
        """
        asked = len(canonical_ask(request)) + len(request.said)
        most = None
        if isinstance(provider, Priced):
            most = provider.most_it_costs(asked, request.max_tokens)
        # A token stands for at least a byte or so of text; nobody's tokenizer makes more.
        tokens = asked + (
            provider.most_tokens(request.max_tokens)
            if isinstance(provider, Thinks)
            else request.max_tokens
        )
        self._reserved.add(call.number)
        stop = await self._ledger.reserve(
            call, phase=self._task.phase, cost_usd=most, tokens=tokens
        )
        if stop is not None:
            raise BudgetReached(stop["message"], stop=stop)

    async def _traced(
        self,
        call: Call,
        send: Callable[[], Awaitable[RawAnswer]],
        understand: Callable[[RawAnswer], Awaitable[T]],
        stream: PartialStream | None,
        over: asyncio.Event,
    ) -> T:
        with tracing.call(call) as span:
            try:
                return await self._make(call, send, understand, stream, over)
            finally:
                span.ended(call)

    async def _make(
        self,
        call: Call,
        send: Callable[[], Awaitable[RawAnswer]],
        understand: Callable[[RawAnswer], Awaitable[T]],
        stream: PartialStream | None,
        over: asyncio.Event,
    ) -> T:
        self._reach("call.before")
        begun = monotonic()
        try:
            raw = await send()
        except StillAnswering:
            over.set()  # whoever fetches the answer notes the call
            if stream is not None:
                await self._ledger.partials.flush(stream)
            raise
        except NotNow:
            over.set()  # nothing was sent, so nothing is in the ledger
            if stream is not None:
                self._ledger.partials.drop(stream)
            if call.number in self._reserved:
                await self._ledger.unreserve(call)
            raise
        except (Exception, asyncio.CancelledError) as error:
            over.set()
            call.took = timedelta(seconds=monotonic() - begun)
            await self._broke(call, error, stream)
            raise
        over.set()
        call.took = timedelta(seconds=raw.took or monotonic() - begun)
        self._reach("call.answered")
        if stream is not None:
            self._ledger.partials.drop(stream)
        await self._store(call, raw)
        self._reach("call.stored")
        return await understand(raw)

    async def _broke(self, call: Call, error: BaseException, stream: PartialStream | None) -> None:
        """Note that no answer came, and save what was said until then."""
        if isinstance(error, asyncio.CancelledError):
            call.outcome = CallOutcome.ABORTED
            call.error = "Stopped before the answer was complete."
        else:
            said = error.message if isinstance(error, EkidenError) else repr(error)
            call.outcome, call.error = CallOutcome.FAILED, plain(said)
            call.http_status = error.http_status if isinstance(error, ModelError) else None
        if stream is not None:
            await self._ledger.partials.flush(stream)
        await self._ledger.append(call)

    async def _store(self, call: Call, raw: RawAnswer) -> None:
        call.answer, call.content_type = raw.body, raw.content_type
        call.http_status = raw.status or None
        call.request_id = raw.request_id
        if raw.first_token is not None:
            call.first_token = timedelta(seconds=raw.first_token)
        await self._ledger.append(call)

    def _reach(self, name: str) -> None:
        failpoint.reach(name, self._task.step, self._task.phase)


def _waited(still: StillAnswering, age: timedelta) -> StepError:
    """Return what ends an attempt that found no answer to a call of this age yet."""
    if age > _NEVER_COMES:
        hours = age.total_seconds() / 3600
        return ModelUnavailable(
            f"An answer that was asked for {hours:.0f} hours ago has not come: "
            f"{still.message} Resume the session to look again, or rerun the phase to ask anew."
        )
    # Ever longer, by an eighth of what was waited at most.
    pause = max(still.retry_after or 0.0, min(age.total_seconds() / 8, _LONGEST_PAUSE))
    return StillAnswering(still.message, retry_after=pause)


def note_usage(call: Call, usage: Usage) -> None:
    """Note what the provider said of its usage; None stays unknown."""
    call.input_tokens, call.output_tokens = usage.input_tokens, usage.output_tokens
    if usage.cost_usd is not None:
        call.cost_usd = Decimal(str(usage.cost_usd))
        call.price_version = usage.price_version


def note_answer(call: Call, read: Answer) -> None:
    """Note what an answer says of itself."""
    note_usage(call, read.usage)
    call.finish_reason = read.finish_reason
    if read.citations:
        call.citations = orjson.dumps([asdict(cited) for cited in read.citations]).decode()


def plain(text: str) -> str:
    """Return a message as it is stored."""
    return redact(storable(text)[:4000])
