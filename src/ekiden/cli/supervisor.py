"""What ``ekiden up`` does: owns the embedded database, starts API and workers, replaces the dead.

One loop without threads: signals and the children's "ready" arrive on file descriptors. The
listening socket is made here and handed down, so that a port in use is known at once, and a
replaced API loses no connection that waits.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import typer

from ekiden.api.settings import check_bind
from ekiden.cli import exits
from ekiden.cli.child import DATABASE_FROM, READY, SUPERVISOR
from ekiden.cli.compose import Database, run_async
from ekiden.cli.listening import listen, where
from ekiden.cli.serving import settings_for
from ekiden.config import Settings, origin_of
from ekiden.errors import EmbeddedServerError
from ekiden.store.migrate import migrate

_FIRST_PAUSE = 0.1  # seconds before a dead child is replaced; doubles with each early death
_MAX_PAUSE = 30.0
_SETTLED = 60.0  # seconds of life after which a death is no longer an early one
_TRIES = 5  # starts of a child that was never ready before everything is given up
_DRAIN = 45.0  # seconds for children to end: a worker takes up to 40
_LOOK = 2.0  # seconds between looks at a database that another process owns


@dataclass(slots=True, kw_only=True)
class Child:
    """One process that is kept running."""

    name: str
    arguments: list[str]
    fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    ready_fd: int | None = None  # readable once it is ready, or gone
    was_ready: bool = False  # at least once
    started: float = 0.0
    starts: int = 0
    pause: float = _FIRST_PAUSE
    due: float = field(default_factory=monotonic)  # when to start it (again)


def up(*, host: str | None, port: int | None, workers: int, flows: Sequence[str]) -> int:
    """Run everything until SIGTERM or Ctrl-C."""
    settings = settings_for(host, port)
    check_bind(settings.host, settings.api_key.get_secret_value())
    loaded = [word for flow in flows for word in ("--flow", flow)]
    with listen(settings.host, settings.port) as listener, Database(settings) as database:
        run_async(migrate(database.dsn()))
        children = [
            Child(
                name="API",
                arguments=[
                    *("serve", "--host", settings.host, "--port", str(settings.port)),
                    *("--fd", str(listener.fileno())),
                    *loaded,
                ],
                fds=(listener.fileno(),),
            )
        ]
        if settings.worker_enabled:
            children += [
                Child(name=f"worker {n}", arguments=["worker", *loaded])
                for n in range(1, workers + 1)
            ]
        return Supervisor(settings, database, listener, children).run()


class Supervisor:
    """Keeps children running until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        listener: socket.socket,
        children: list[Child],
    ) -> None:
        self._settings = settings
        self._database = database
        self._listener = listener
        self._children = children
        self._selector = selectors.DefaultSelector()
        self._signals = 0  # how often we were asked to stop
        self._told_ready = False

    def run(self) -> int:
        """Return the exit code once everything has stopped."""
        with self._hearing():
            try:
                code = self._watch()
            finally:
                self._stop()
        return code

    def _watch(self) -> int:
        while not self._signals:
            if (code := self._reap()) is not None:
                return code
            self._keep_database()
            for child in self._children:
                if child.process is None and child.due <= monotonic():
                    self._start(child)
            self._wait(self._patience())
            if not self._told_ready and all(child.was_ready for child in self._children):
                self._told_ready = True
                typer.echo(_ready(self._settings, self._database, self._listener, self._children))
        return exits.COMPLETED

    def _patience(self) -> float:
        """Return how long nothing but a signal can need us, in seconds."""
        due = [max(0.0, c.due - monotonic()) for c in self._children if c.process is None]
        return min([_LOOK, *due])

    def _wait(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Child):
                self._hear_ready(key.data)
            else:
                os.read(key.fd, 4096)  # what the signals were, their handlers know

    def _hear_ready(self, child: Child) -> None:
        if child.ready_fd is None:
            return
        child.was_ready = os.read(child.ready_fd, 1) == b"1" or child.was_ready
        self._forget_ready(child)

    def _forget_ready(self, child: Child) -> None:
        if child.ready_fd is not None:
            self._selector.unregister(child.ready_fd)
            os.close(child.ready_fd)
            child.ready_fd = None

    # -- children -----------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        ready, tell = os.pipe()
        embedded = self._database.server is not None
        environment = os.environ | {
            "DATABASE_URL": self._database.dsn(),
            DATABASE_FROM: "embedded" if embedded else origin_of("DATABASE_URL"),
            SUPERVISOR: str(os.getpid()),
            READY: str(tell),
        }
        child.process = subprocess.Popen(  # noqa: S603 - ourselves
            [*_ourselves(), *child.arguments],
            env=environment,
            pass_fds=(tell, *child.fds),
            stdin=subprocess.DEVNULL,
            # Ctrl-C in the terminal is for us: we ask the children, in our order.
            start_new_session=True,
        )
        os.close(tell)
        child.ready_fd = ready
        child.started = monotonic()
        child.starts += 1
        self._selector.register(ready, selectors.EVENT_READ, child)

    def _reap(self) -> int | None:
        """Collect children that died; return an exit code when there is no use in going on."""
        for child in self._children:
            code = None if child.process is None else child.process.poll()
            if code is None:
                continue
            self._hear_ready(child)
            child.process = None
            if code == exits.USAGE and not child.was_ready:
                return exits.USAGE  # it said on stderr which setting is wrong
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            if not child.was_ready and child.starts >= _TRIES:
                _say(f"The {child.name} ended {how} {child.starts} times and never got ready.")
                return exits.FAILED
            if monotonic() - child.started > _SETTLED:
                child.pause = _FIRST_PAUSE
            child.due = monotonic() + child.pause
            _say(f"The {child.name} ended {how}; another is started in {child.pause:g} s.")
            child.pause = min(child.pause * 2, _MAX_PAUSE)
        return None

    def _keep_database(self) -> None:
        """Start the embedded server again if it, or the process that owned it, is gone."""
        server = self._database.server
        if server is None:
            return
        owned = server.owned
        try:
            server.ensure()
        except EmbeddedServerError as error:
            _say(error.message)
            return
        if server.owned and not owned:
            _say("The embedded PostgreSQL was gone; it was started again.")

    def _stop(self) -> None:
        """Ask every child to end, wait for it, and then no longer."""
        running = [c.process for c in self._children if c.process is not None]
        if running:
            _say("Stopping: running steps may end first. Ctrl-C again stops at once.")
        for process in running:
            process.terminate()
        asked, until = self._signals, monotonic() + _DRAIN
        while any(p.poll() is None for p in running):
            if monotonic() > until or self._signals > asked:
                for process in running:
                    process.kill()
                asked = self._signals
            self._wait(0.2)
        for child in self._children:
            self._forget_ready(child)

    # -- signals ------------------------------------------------------------------------------

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        wake, rung = socket.socketpair()
        for end in (wake, rung):
            end.setblocking(False)
        self._selector.register(wake.fileno(), selectors.EVENT_READ, None)
        before = signal.set_wakeup_fd(rung.fileno(), warn_on_full_buffer=False)
        stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {number: signal.signal(number, self._asked) for number in stops}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            self._selector.close()
            wake.close()
            rung.close()

    def _asked(self, *_: object) -> None:
        self._signals += 1


def _ourselves() -> list[str]:
    """Return the command that is this program: by its script where there is one, for ps and top."""
    script = Path(sys.executable).with_name("ekiden")
    program = [str(script)] if script.is_file() else ["-m", "ekiden.cli"]
    return [sys.executable, "-P", *program]


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _ready(
    settings: Settings, database: Database, listener: socket.socket, children: Sequence[Child]
) -> str:
    url = where(listener)
    workers = len(children) - 1
    who = {0: "no worker (WORKER_ENABLED=false)", 1: "1 worker"}.get(workers, f"{workers} workers")
    data = "PostgreSQL at DATABASE_URL"
    if database.server is not None:
        data = f"the embedded PostgreSQL in {settings.home}"
    key = ""
    if settings.api_key.get_secret_value():
        key = ' -H "Authorization: Bearer $EKIDEN_API_KEY"'
    base = f"{url}/api/viral/cot-session"
    theme = '\'{"theme": "remote work"}\''
    return "\n".join(
        [
            f"Ekiden is ready at {url} with {who} on {data}.",
            f"  curl -s{key} {base}/create -H 'Content-Type: application/json' -d {theme}",
            f"  curl -s{key} -X POST {base}/ID/process-async",
            f"  curl -s{key} {base}/ID/progress",
            f"  curl -s{key} -X POST {base}/ID/proceed-next-phase",
            "Ctrl-C stops it; sessions go on with the next start.",
        ]
    )
