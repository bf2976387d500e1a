"""What ``ekiden serve`` does: the API, and nothing that runs steps."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

from fastapi import FastAPI

from ekiden.api.app import Server, create_app
from ekiden.api.settings import ApiSettings, check_bind
from ekiden.cli import exits
from ekiden.cli.child import tell_ready, tie_to_supervisor
from ekiden.cli.compose import Database, open_store, run_async
from ekiden.cli.listening import listen, where
from ekiden.cli.tools import Commands
from ekiden.config import Settings, load_settings
from ekiden.providers.catalog import KNOWN
from ekiden.store.doorbell import Doorbell
from ekiden.store.errands import Errands
from ekiden.telemetry import set_up_logging
from ekiden.worker.errands import ErrandRunner
from ekiden.worker.watch import Watch

_FILES = 16_384


def serve(
    *, host: str | None, port: int | None, descriptor: int | None, flows: Sequence[str]
) -> int:
    """Serve the API until SIGTERM or Ctrl-C."""
    tie_to_supervisor()
    settings = settings_for(host, port)
    check_bind(settings.host, settings.api_key.get_secret_value())
    set_up_logging()
    _allow_many_files()
    with contextlib.ExitStack() as stack:
        if descriptor is None:
            listener = stack.enter_context(listen(settings.host, settings.port))
        else:  # the supervisor's: it stays open when this process is replaced
            listener = stack.enter_context(socket.socket(fileno=descriptor))
        database = stack.enter_context(Database(settings))
        tools = Commands(settings, flows)
        run_async(_serve(settings, database, listener, tools, alone=descriptor is None))
    return exits.COMPLETED


def _allow_many_files() -> None:
    """Raise the limit of open files: each stream is one, and many systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # the system knows a lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def settings_for(host: str | None, port: int | None) -> Settings:
    """Return the settings with what the options say on top."""
    given = {"host": host, "port": port}
    return load_settings().model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )


class _Server(Server):
    """A server that says when it listens, and whose signals are ours.

    uvicorn would kill the process with the signal it caught, after a clean end.
    """

    def __init__(self, app: FastAPI, settings: ApiSettings, *, listens: Callable[[], None]) -> None:
        super().__init__(app, settings)
        self._listens = listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listens()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(
    settings: Settings,
    database: Database,
    listener: socket.socket,
    tools: Commands,
    *,
    alone: bool,
) -> None:
    async with open_store(database) as (pool, sessions), Doorbell(database.listen_dsn) as doorbell:
        api_settings = ApiSettings.of(settings, providers=KNOWN)

        def listens() -> None:
            tell_ready()
            if alone:
                print(f"The API listens at {where(listener)}", flush=True)  # noqa: T201

        app = create_app(sessions, doorbell=doorbell, settings=api_settings, tools=tools)
        # Here as well: when no worker is left, somebody must say so.
        telling = (
            ErrandRunner(Errands(pool, database.dsn()), sessions, doorbell).run(),
            Watch(sessions.alerts, settings.alert_limits(), lively=lambda: True).run(),
        )
        background = [asyncio.create_task(work) for work in telling]
        try:
            await _Server(app, api_settings, listens=listens).serve(sockets=[listener])
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
