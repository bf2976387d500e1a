"""What a step is given: models, sources and earlier outputs, with the ledger in between.

An answer goes to the ledger byte for byte before it is read. An attempt takes every answer the task
already has there and pays only for what is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter

from ekiden import telemetry
from ekiden.core.flow import Phase
from ekiden.core.model import CallOutcome, ClaimedTask
from ekiden.errors import (
    AnswerInvalid,
    FlowError,
    ModelBusy,
    ModelElsewhere,
    ModelError,
    ModelNowhere,
    ModelRefused,
    ModelUnavailable,
    NotNow,
    SearchError,
    StepError,
    StillAnswering,
)
from ekiden.providers.models_by_place import Models
from ekiden.providers.protocol import GoesOn, Message, Provider, RawAnswer
from ekiden.search.protocol import SearchEngine, Source
from ekiden.store.ledger import Call, PaidAnswer
from ekiden.worker.caller import Caller, note_answer, plain
from ekiden.worker.ledger_writer import LedgerWriter
from ekiden.worker.leg import Leg
from ekiden.worker.question import Question, canonical_ask, canonical_search

T = TypeVar("T")

_NOBODY_HAS_IT = timedelta(seconds=60)  # until a step fails whose model no worker can ask
_HAND_ON, _LONGEST_HAND_ON = 0.2, 60.0  # seconds until a task that was handed on is due

_SOURCES = TypeAdapter(list[Source])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFeedback:
    """What a person said when the phase was sent back."""

    note: str
    previous: Any  # the output that was sent back


class StepContext:
    """The ``ctx`` of one attempt; see ``ekiden.core.flow.Context``."""

    def __init__(
        self,
        task: ClaimedTask,
        leg: Leg,
        *,
        models: Models,
        search: SearchEngine | None,
        ledger: LedgerWriter,
    ) -> None:
        self._task = task
        self._leg = leg
        self._models = models
        self._search = search
        self._ledger = ledger
        self._made: Caller | None = None  # once it is needed: many steps ask nothing
        self._over = False
        self._input: Any = None
        self.reads: set[int] = set()

    @property
    def session_id(self) -> str:
        """The session this step belongs to."""
        return self._task.session_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._task.attempt

    @property
    def input(self) -> Any:
        """The session's input, an instance of the flow's input model."""
        if self._input is None:
            self._input = self._leg.flow.input.validate_json(self._leg.input)
        return self._input

    @property
    def feedback(self) -> StepFeedback | None:
        """What a person wants to be different this time; see ``ekiden.core.flow.Context``."""
        said = self._leg.run.feedback
        if said is None:
            return None
        codec = self._leg.flow.phase(self._task.phase).output
        previous = None if said.previous is None else codec.decode(said.previous)
        return StepFeedback(note=said.note, previous=previous)

    @property
    def variables(self) -> dict[str, Any]:
        """What a person gave this run of the phase."""
        return dict(self._leg.run.variables)

    def output(self, phase: type[Phase]) -> Any:
        """Return the approved output of an earlier phase; records the dependency.

        Raises:
            FlowError: the phase is not an earlier phase of this flow.
        """
        number = self._leg.flow.flow.number_of(phase)
        if number >= self._task.phase:
            raise FlowError(f"ctx.output({phase.__name__}): only earlier phases have an output")
        self.reads.add(number)
        return self._leg.flow.phase(number).output.decode(self._leg.outputs[number])

    def end(self) -> bool:
        """Let no call begin any more; return whether any is under way."""
        self._over = True
        return self._made is not None and self._made.end()

    async def rest(self, seconds: float) -> None:
        """Let the calls under way end, and stop those that have not after ``seconds``."""
        await self._caller.rest(seconds)

    @property
    def _caller(self) -> Caller:
        if self._made is None:
            self._made = Caller(self._task, self._ledger)
            if self._over:
                self._made.end()
        return self._made

    async def ask(
        self,
        prompt: str,
        answer: type[T],
        *,
        system: str | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.7,
        check: Callable[[T], str | None] | None = None,
        repairs: int = 1,
    ) -> T:
        """Ask the model; see ``ekiden.core.flow.Context.ask``."""
        turns = [Message(role="user", content=prompt)]
        if system:
            turns.insert(0, Message(role="system", content=system))
        question = Question(
            turns=turns,
            adapter=None if answer is str else TypeAdapter(answer),
            name=getattr(answer, "__name__", "answer"),
            max_tokens=max_tokens,
            temperature=temperature,
            check=check,
        )
        shown = turns
        for left in range(repairs, 0, -1):
            try:
                return await self._ask_someone(shown, question)
            except AnswerInvalid as useless:
                if useless.said is None:
                    raise
                telemetry.emit("answer_repaired", complaint=useless.complaint, left=left)
                shown = question.repaired(useless)
        return await self._ask_someone(shown, question)

    async def _ask_someone(self, turns: list[Message], question: Question[T]) -> T:
        """Ask the model of this step; its fallback when it cannot be asked now.

        Raises:
            ModelError: no usable answer came.
            NotNow: it is not to be asked yet.
        """
        flow, phase, step = self._leg.flow.name, self._task.phase, self._task.step
        wanted = self._leg.wanted_model(self._task)
        try:
            provider = self._models.of(flow=flow, phase=phase, step=step, wanted=wanted)
        except ModelElsewhere as lacking:
            raise await self._handed_on(wanted or "", lacking) from lacking
        try:
            return await self._ask(provider, turns, question)
        except StillAnswering:
            raise  # nobody else is paid meanwhile
        except (ModelUnavailable, ModelBusy, NotNow) as error:
            other = self._fallback_of(provider)
            if other is None:
                raise
            if self._fetches_next(error):
                raise  # it is paid for already
            telemetry.emit("fallback_asked", model=f"{other.name}:{other.model}", why=error.message)
            try:
                return await self._ask(other, turns, question)
            except StillAnswering:
                raise
            except (ModelUnavailable, ModelBusy, NotNow) as also:
                raise error from also  # when to come back is up to the first

    def _fallback_of(self, provider: Provider) -> Provider | None:
        """Return whom this step asks when it cannot ask ``provider``; None: nobody else."""
        other = self._models.fallback(
            flow=self._leg.flow.name, phase=self._task.phase, step=self._task.step
        )
        if other is None or (other.name, other.model) == (provider.name, provider.model):
            return None
        return other

    def _fetches_next(self, error: StepError) -> bool:
        """Whether the next attempt, if there is one, may fetch the answer that broke off."""
        tries = self._task.attempt - self._task.budget_from
        last = error.counts and tries > self._leg.options.max_retries
        return isinstance(error, ModelError) and error.kept and not last

    async def _handed_on(self, wanted: str, lacking: ModelElsewhere) -> StepError:
        """Return what ends an attempt whose worker lacks the model that people chose.

        The task is for a worker that has it, however long that one is busy. Where none has it, one
        may be about to start: that is waited for, but not for ever.
        """
        provider = wanted.partition(":")[0].strip().lower()
        there, waited = await self._ledger.who_has_model(self._task.id, provider)
        if not there and waited > _NOBODY_HAS_IT:
            return ModelRefused(
                f"No worker could ask {wanted} for {waited.total_seconds():.0f} s: "
                f"{lacking.message} Set it for a worker and resume the session, or rerun the phase "
                "with another model."
            )
        # Spread, and ever longer: whoever has it must win the race for the task some time.
        pause = min(_HAND_ON + waited.total_seconds() / 8, _LONGEST_HAND_ON)
        pause *= random.uniform(0.5, 1)  # noqa: S311
        if there:
            return ModelElsewhere(
                f"{lacking.message} A worker that can ask it takes this on.", retry_after=pause
            )
        return ModelNowhere(
            f"{lacking.message} No worker has it yet. Start one that has, or pause the session and "
            "rerun the phase with another model; the step fails when none is there within "
            f"{_NOBODY_HAS_IT.total_seconds():g} s.",
            retry_after=pause,
        )

    async def _ask(self, provider: Provider, turns: list[Message], question: Question[T]) -> T:
        """Ask once: what was paid for is taken, what the provider keeps is fetched."""
        request = question.request(turns)
        call = self._caller.new("ask", provider.name, provider.model, canonical_ask(request))
        # Another attempt throws other dice; so do two equal questions of one attempt.
        request = replace(request, seed=self._task.attempt * 1000 + call.number - 1)
        had = await self._had(call, provider, question)
        if had is None:
            had = await self._repaired(call, provider, question)
        if had is not None:
            return had[0]
        if isinstance(provider, GoesOn) and provider.goes_on(request):
            request = replace(request, said=await self._caller.said_before(call))
        return await self._caller.ask(
            call, provider, request, lambda raw: self._understand(call, raw, provider, question)
        )

    async def _had(self, call: Call, provider: Provider, question: Question[T]) -> tuple[T] | None:
        """Return what was paid for: from the ledger, or fetched from the provider.

        Raises:
            AnswerInvalid: what was fetched is not what was asked for.
        """
        while (paid := await self._caller.paid(call)) is not None:
            then, answer = paid
            reader, raw = self._kept(answer, provider)
            try:
                if answer.unread:  # its worker died before it could note what it took
                    return (await self._understand(then, raw, reader, question),)
                return (question.understand(reader.read(raw)),)
            except AnswerInvalid:
                continue
        if (fetched := await self._caller.fetched(call, provider)) is not None:
            return (await self._understand(*fetched, provider, question),)
        return await self._begun_elsewhere(call, provider, question)

    async def _begun_elsewhere(
        self, call: Call, provider: Provider, question: Question[T]
    ) -> tuple[T] | None:
        """Return what the fallback was asked for while ``provider`` could not be.

        Raises:
            StillAnswering: it works on the answer; ``provider`` is not paid as well meanwhile, for
                a day at most.
            AnswerInvalid: what was fetched is not what was asked for.
        """
        other = None if self._task.attempt == 1 else self._fallback_of(provider)
        if other is None:
            return None
        begun = replace(call, provider=other.name, model=other.model)
        try:
            fetched = await self._caller.fetched(begun, other, give_up=True)
        except StillAnswering:
            raise
        except (ModelError, NotNow):
            return None  # nobody knows; it is looked for again before the fallback is asked anew
        return None if fetched is None else (await self._understand(*fetched, other, question),)

    async def _repaired(
        self, call: Call, provider: Provider, question: Question[T]
    ) -> tuple[T] | None:
        """Return what was paid for in a repair turn after a useless answer to this.

        Raises:
            AnswerInvalid: what was fetched is not what was asked for.
        """
        asked, known = [call], {call.request_hash}
        for each in asked:  # grows: the answer to a repair turn may have been useless as well
            for answer in await self._caller.useless(each):
                reader, raw = self._kept(answer, provider)
                try:
                    return (question.understand(reader.read(raw)),)  # today it is of use
                except AnswerInvalid as useless:
                    shown = question.request(question.repaired(useless))
                repair = self._caller.instead(call, canonical_ask(shown))
                if repair.request_hash in known:
                    continue
                if (had := await self._had(repair, provider, question)) is not None:
                    return had
                known.add(repair.request_hash)
                asked.append(repair)
        return None

    def _kept(self, answer: PaidAnswer, provider: Provider) -> tuple[Provider, RawAnswer]:
        """Return an answer of the ledger, and who can read it."""
        raw = RawAnswer(
            body=answer.answer, status=answer.http_status, content_type=answer.content_type
        )
        return self._models.reader(answer.provider, answer.model, provider), raw

    async def _understand(
        self, call: Call, raw: RawAnswer, provider: Provider, question: Question[T]
    ) -> T:
        """Read an answer that is in the ledger, and note there what it took or why it is useless.

        Raises:
            AnswerInvalid: it is not what was asked for.
        """
        try:
            read = provider.read(raw)
            call.model = read.model or call.model
            note_answer(call, read)
            value = question.understand(read)
        except AnswerInvalid as error:
            call.outcome, call.error = CallOutcome.INVALID, plain(error.message)
            await self._ledger.settle(call)
            raise
        await self._ledger.settle(call)
        return value

    async def search(self, query: str, *, limit: int = 5) -> Sequence[Source]:
        """Look something up; see ``ekiden.core.flow.Context.search``."""
        if self._search is None:
            raise SearchError("This worker has nothing to search. Add a folder: ekiden sources add")
        engine = self._search
        language = getattr(self.input, "language", "en")
        asked = canonical_search(query, limit=limit, language=language)
        call = self._caller.new("search", "search", engine.name, asked)
        if (paid := await self._caller.paid(call)) is not None:
            return _SOURCES.validate_json(paid[1].answer)

        async def send() -> RawAnswer:
            found = await engine.search(query, limit=limit, language=language)
            body = _SOURCES.dump_json(list(found))
            return RawAnswer(body=body, status=0, content_type="application/json")

        async def understand(raw: RawAnswer) -> Sequence[Source]:
            return _SOURCES.validate_json(raw.body)

        return await self._caller.make(call, send, understand)
