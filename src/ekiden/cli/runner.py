"""What ``run``, ``resume``, ``watch`` and ``demo`` do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console

from ekiden import tracing
from ekiden.cli import exits, showing
from ekiden.cli.compose import (
    Database,
    Parts,
    actor,
    build_worker,
    is_embedded_model_missing,
    open_parts,
    open_store,
    run_async,
)
from ekiden.cli.fields import read_input, title_of
from ekiden.cli.follow import Follower
from ekiden.cli.late import LateSearch
from ekiden.cli.relay import Interrupt, Manner, Relay, run_here
from ekiden.cli.view import LiveView, View, log_through, make_view
from ekiden.cli.words import camel, to_json
from ekiden.config import Settings, load_settings
from ekiden.core.model import Options
from ekiden.core.records import Session
from ekiden.errors import Conflict, FlowError, SearchError
from ekiden.flows.registry import CompiledFlow, find_flow, load_flows
from ekiden.store.doorbell import Doorbell
from ekiden.store.sessions import Sessions
from ekiden.store.workers import Workers

_DEMO_RETRIES = 12
_DEMO_DELAY = timedelta(milliseconds=50)
_DRAIN = 10.0  # seconds that a running step gets after Ctrl-C; a person is waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What ``run`` was asked to run."""

    flow: str  # its name, or module:name
    fields: Sequence[str] = ()
    input_text: str | None = None
    input_file: Path | None = None
    references: Sequence[str] = field(default_factory=list)
    title: str | None = None


class Stage:
    """The parts of a command that runs or follows one session.

    Args:
        settings: the settings.
        manner: how people take part.
        machine: stdout is for one JSON object.
    """

    def __init__(self, settings: Settings, manner: Manner, *, machine: bool) -> None:
        self.settings = settings
        self.manner = manner
        self.machine = machine
        self.console = Console(stderr=machine, highlight=False)
        self.view: View = make_view(self.console)
        self.session_id = ""
        self._works = False  # a worker for the session runs in this process
        log_through(self.view)
        tracing.set_up()

    def perform(self, database: Database, main: Coroutine[Any, Any, int]) -> int:
        """Open the database, run the command's coroutine, and return the exit code."""
        try:
            with database:
                return run_async(main)
        finally:
            main.close()
            self.view.pause()

    async def follow(
        self, sessions: Sessions, database: Database, worker: Any, *, skip: bool
    ) -> int:
        """Follow the session to where it rests, tell how it ended, and return the exit code."""
        self._works = worker is not None
        interrupt = Interrupt(first=self._stopping, second=self._stopped)
        async with Doorbell(database.listen_dsn) as doorbell:
            follower = Follower(
                sessions, doorbell, self.session_id, lost=lambda why: self.view.line(why, "yellow")
            )
            if skip:
                self.view.known(await follower.skip())
            relay = Relay(sessions, follower, self.view, self.manner, self.session_id)
            with self.view.running():
                ended = await run_here(relay, worker, interrupt)
        if isinstance(ended, int):
            progress, code = await sessions.progress(self.session_id), ended
        else:
            progress, code = ended, _code_of(ended["status"])
        await self._tell_end(sessions, progress, interrupted=isinstance(ended, int))
        return code

    async def _tell_end(
        self, sessions: Sessions, progress: dict[str, Any], *, interrupted: bool
    ) -> None:
        completed = progress["status"] == "COMPLETED"
        drafts = await sessions.drafts(self.session_id) if completed else []
        if isinstance(self.view, LiveView):
            self.view.last()
        showing.ending(self.view, progress, drafts, interrupted=interrupted, worked=self._works)
        if self.machine:
            self._print_json(progress, drafts)

    def _print_json(self, progress: dict[str, Any], drafts: Sequence[Any]) -> None:
        told: dict[str, Any] = {
            "sessionId": self.session_id,
            "status": progress["status"],
            "progress": progress,
            "error": progress["error"],
        }
        if progress["status"] == "COMPLETED":
            told["drafts"] = camel(drafts)
        print(to_json(told), flush=True)  # noqa: T201 - what --json is for

    def _stopping(self) -> None:
        if self._works:
            self.view.line(
                f"Stopping: what runs may end within {_DRAIN:.0f} s. Ctrl-C again stops at once.",
                "yellow",
            )

    def _stopped(self) -> None:
        self.view.pause()
        if self._works:
            self.view.line(f"Stopped. Go on with: ekiden resume {self.session_id}", "yellow")


def _code_of(status: str) -> int:
    if status == "COMPLETED":
        return exits.COMPLETED
    return exits.FAILED if status in {"FAILED", "CANCELLED"} else exits.STOPPED


def _manner(*, auto_approve: bool, machine: bool) -> Manner:
    asks = not (auto_approve or machine) and sys.stdin.isatty()
    return Manner(auto_approve=auto_approve, ask=asks)


def run(order: Order, *, auto_approve: bool, machine: bool) -> int:
    """Run one session here."""
    settings = load_settings()
    flow, given = _understand(order)
    stage = Stage(settings, _manner(auto_approve=auto_approve, machine=machine), machine=machine)
    database = Database(settings)
    main = _run(stage, database, flow, given, order.title, options=settings.options())
    return stage.perform(database, main)


def _understand(order: Order) -> tuple[CompiledFlow, dict[str, Any]]:
    """Return the flow and the checked input; before anything is started."""
    flows = load_flows(order.references)
    # The last one loaded is the one that was named as module:name.
    flow = flows[-1] if ":" in order.flow else find_flow(flows, order.flow)
    given = read_input(
        order.fields, flow.input_schema, text=order.input_text, file=order.input_file
    )
    return flow, flow.check_input(given)


async def _run(
    stage: Stage,
    database: Database,
    flow: CompiledFlow,
    given: dict[str, Any],
    title: str | None,
    *,
    options: Options,
    ahead: bool = False,
) -> int:
    settings = stage.settings
    async with AsyncExitStack() as stack:
        pool, sessions = await stack.enter_async_context(open_store(database))
        parts = await stack.enter_async_context(_parts(stage, pool, database))
        if ahead:
            await _fetch_ahead(stage, parts)
        await _register(pool, database, flow)
        stage.session_id, _ = await sessions.create(
            flow.name,
            title=title or title_of(given, flow.title),
            input=given,
            options=options,
            start=True,
            actor=actor(),
        )
        await showing.beginning(stage.view, flow.title, stage.session_id, parts)
        worker = build_worker(
            settings, database, [flow], parts, only_session=stage.session_id, drain=_DRAIN
        )
        return await stage.follow(sessions, database, worker, skip=False)


def _parts(stage: Stage, pool: asyncpg.Pool, database: Database) -> Any:
    return open_parts(
        stage.settings,
        pool,
        database.dsn(),
        progress=stage.view.download,
        tell=stage.view.note,
    )


async def _register(pool: asyncpg.Pool, database: Database, flow: CompiledFlow) -> None:
    """Make the flow known before its worker does: the worker claims for a session that exists."""
    await Workers(pool, database.dsn()).register_flow(
        name=flow.name,
        version=flow.version,
        title=flow.title,
        phases=flow.describe(),
        input_schema=flow.input_schema,
        output_schemas=flow.output_schemas,
    )


def resume(session_id: str, references: Sequence[str], *, auto_approve: bool, machine: bool) -> int:
    """Go on with a session here."""
    settings = load_settings()
    flows = load_flows(references)
    stage = Stage(settings, _manner(auto_approve=auto_approve, machine=machine), machine=machine)
    database = Database(settings)
    return stage.perform(database, _resume(stage, database, flows, session_id))


async def _resume(
    stage: Stage, database: Database, flows: Sequence[CompiledFlow], session_id: str
) -> int:
    async with AsyncExitStack() as stack:
        pool, sessions = await stack.enter_async_context(open_store(database))
        session = await sessions.get(session_id)
        stage.session_id = session.id
        if session.status == "CANCELLED":
            raise Conflict(f"Session {session.id} was cancelled: it cannot go on.")
        flow = _flow_of(session, flows)
        parts = await stack.enter_async_context(_parts(stage, pool, database))
        worker = None
        if flow is not None:
            await showing.beginning(stage.view, flow.title, session.id, parts)
            worker = build_worker(
                stage.settings, database, [flow], parts, only_session=session.id, drain=_DRAIN
            )
        # What becomes of items that failed somebody must say: at the terminal that is asked next.
        items = (session.stop or {}).get("kind") == "items"
        if session.status in {"FAILED", "PAUSED"} and not items:
            await sessions.resume(session.id, actor=actor())
        elif session.status == "RUNNING":
            await sessions.start(session.id)
        return await stage.follow(sessions, database, worker, skip=True)


def _flow_of(session: Session, flows: Sequence[CompiledFlow]) -> CompiledFlow | None:
    """Return the session's flow, or None where another worker that lives has it.

    Raises:
        FlowError: nobody has it in the session's version.
    """
    here = next((f for f in flows if f.name == session.flow), None)
    if here is not None and here.version == session.flow_version:
        return here
    if session.has_worker or session.status == "COMPLETED":
        return None
    if here is None:
        raise FlowError(
            f"Session {session.id} runs the flow {session.flow!r}, which is not installed here. "
            "Name it: --flow module:name"
        )
    raise FlowError(
        f"Session {session.id} was begun with version {session.flow_version} of the flow "
        f"{session.flow!r}; here is {here.version}. Its stored results may not fit. "
        "Run it with the version it was begun with, or create a new session."
    )


def watch(session_id: str, *, machine: bool) -> int:
    """Follow a session until it stops."""
    stage = Stage(load_settings(), Manner(), machine=machine)
    database = Database(stage.settings)
    return stage.perform(database, _watch(stage, database, session_id))


async def _watch(stage: Stage, database: Database, session_id: str) -> int:
    async with open_store(database) as (_, sessions):
        stage.session_id = (await sessions.get(session_id)).id
        return await stage.follow(sessions, database, None, skip=False)


def demo(fields: Sequence[str]) -> int:
    """Run the built-in flow on what comes along."""
    settings = load_settings()
    flow, given = _understand(Order(flow="viral", fields=fields))
    stage = Stage(settings, Manner(auto_approve=True), machine=False)
    stage.view.line("Ekiden: from a theme to three posts, on a real database and a real model.")
    database = Database(settings)
    options = settings.options()
    # A small model's answer is of no use every so often. Its calls cost a second and no money, and
    # what was answered well is never asked again: let it try more often than a paid one.
    options = replace(
        options, max_retries=max(options.max_retries, _DEMO_RETRIES), retry_delay=_DEMO_DELAY
    )
    main = _run(stage, database, flow, given, None, options=options, ahead=True)
    return stage.perform(database, main)


async def _fetch_ahead(stage: Stage, parts: Parts) -> None:
    """Fetch model and corpus before the session begins, so that its time is the session's."""
    from ekiden.providers.models import pull_embedded_model

    with stage.view.running():
        if is_embedded_model_missing(parts.provider, stage.settings.home):
            await asyncio.to_thread(pull_embedded_model, stage.settings.home, stage.view.download)
        if isinstance(parts.search, LateSearch):
            try:
                await parts.search.ready()
            except SearchError as error:
                stage.view.line(f"! {error.message}", "yellow")
        stage.view.note("")
