"""The small model that runs here: no server to set up, no key, no network once it was fetched.

It proves the mechanics of a flow, not its content: the English is poor. `EmbeddedModel` finds the
machine's one server process or starts it (`embedded_server` says how they agree on that), and asks
it like any other OpenAI-compatible server.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from ekiden.errors import ModelUnavailable
from ekiden.providers.dialect import Dialect
from ekiden.providers.embedded_server import MODEL_NAME, Locks, locks_in, open_lock
from ekiden.providers.models import Progress, models_folder, pull_embedded_model
from ekiden.providers.openai_compatible import OpenAICompatible
from ekiden.providers.protocol import Answer, ModelRequest, RawAnswer, Usage

_START_SECONDS = 60.0  # it takes half a second; a loaded or cold machine may need much longer

# Without a penalty the model repeats one phrase until its tokens are used up.
_DIALECT = Dialect(extra={"repeat_penalty": 1.15, "cache_prompt": True})

# What the server's process gets to see of our environment. It runs other people's native code:
# no keys, no database address.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: where it listens, the key it wants, its process."""

    url: str
    key: str
    pid: int


class EmbeddedModel:
    """The embedded SmolLM2-135M, as a provider.

    Args:
        home: Ekiden's home; the model and the server's lock files live in ``home/models``.
        progress: hears about the download if the model must be fetched first.
    """

    def __init__(self, home: Path, progress: Progress | None = None) -> None:
        self._home = home.absolute()
        self._progress = progress
        self._users: int | None = None  # our share in the lock that keeps the server alive
        self._in_thread = threading.Lock()  # guards _users against a start that was abandoned
        self._checking = asyncio.Lock()
        self._server: Server | None = None
        self._asking: OpenAICompatible | None = None
        self._reader = _asker("http://127.0.0.1/v1", None)  # reads the ledger without a server

    @property
    def name(self) -> str:
        """Short name stored with each call."""
        return "embedded"

    @property
    def model(self) -> str:
        """The model asked."""
        return MODEL_NAME

    def most_it_costs(self, input_chars: int, max_tokens: int) -> Decimal:
        """Return what a call costs at most: nothing, it runs here."""
        return Decimal(0)

    async def start(self) -> Server:
        """Fetch the model if it is not here, and start the server if none runs.

        Calling it is optional: the first request does the same.

        Raises:
            ModelUnavailable: the model cannot be fetched or the server does not start.
        """
        await self._ready()
        if self._server is None:  # closed while it started
            raise ModelUnavailable("The embedded model was closed while it started.")
        return self._server

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Send the request; see `Provider.send`."""
        asking = await self._ready()
        try:
            return await asking.send(request, on_text=on_text, on_id=on_id, on_usage=on_usage)
        except ModelUnavailable as error:
            raise ModelUnavailable(
                f"The embedded model did not answer: {error.message} If its process died, the "
                f"next call starts it again; {self._locks().log} has its last words."
            ) from error

    def read(self, raw: RawAnswer) -> Answer:
        """Understand a raw answer; see `Provider.read`."""
        return self._reader.read(raw)

    async def close(self) -> None:
        """Let go of the server; it ends when no process of this machine uses it any more."""
        async with self._checking:
            asking, self._asking, self._server = self._asking, None, None
            users, self._users = self._users, None
            if users is not None:
                os.close(users)
        if asking is not None:
            await asking.close()

    def _locks(self) -> Locks:
        return locks_in(self._home / "models")

    async def _ready(self) -> OpenAICompatible:
        async with self._checking:
            # Asked anew for each call: it costs microseconds, and a dead server is replaced
            # before the request is sent instead of failing it.
            if self._asking is None or running_server(self._locks()) != self._server:
                server = await asyncio.to_thread(self._find_or_start)
                if self._asking is not None:
                    await self._asking.close()
                self._server, self._asking = server, _asker(f"{server.url}/v1", server.key)
            return self._asking

    def _find_or_start(self) -> Server:
        with self._in_thread:
            model = pull_embedded_model(self._home, self._progress)
            folder = models_folder(self._home)
            locks = locks_in(folder)
            if self._users is None:
                users = open_lock(locks.users)
                fcntl.flock(users, fcntl.LOCK_SH)
                self._users = users
            start = open_lock(locks.start)
            try:
                fcntl.flock(start, fcntl.LOCK_EX)
                return _started_by_another(locks) or _start(model, folder, locks)
            finally:
                os.close(start)


def running_server(locks: Locks) -> Server | None:
    """Return the server that runs and listens; None if there is none (yet)."""
    return _look(locks)[1]


def _look(locks: Locks) -> tuple[bool, Server | None]:
    """Return whether a server's process is alive, and the server once it listens."""
    try:
        alive = open_lock(locks.alive)
    except FileNotFoundError:  # the folder is gone
        return False, None
    try:
        try:
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return False, None
        record = json.loads(os.pread(alive, 4096, 0) or b"null")
        return True, Server(**record) if record else None
    except ValueError:  # read in the middle of its being written
        return True, None
    finally:
        os.close(alive)


def _started_by_another(locks: Locks) -> Server | None:
    """Return the server that is there already, waiting for one that is only just starting.

    Only a server whose starter died meanwhile is met half-started: the starter holds ``start``.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        is_alive, server = _look(locks)
        if server is not None or not is_alive:
            return server
        if time.monotonic() > deadline:
            raise ModelUnavailable(
                f"The embedded model's process does not come up; see {locks.log}."
            )
        time.sleep(0.02)


def _start(model: Path, folder: Path, locks: Locks) -> Server:
    command = [sys.executable, "-P", "-m", "ekiden.providers.embedded_server"]
    with locks.log.open("wb") as log:
        child = subprocess.Popen(  # noqa: S603  -- our own interpreter and module
            [*command, str(model), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C is for us: workers that drain still need answers
        )
    ready = _wait_ready(child)
    if not ready:
        child.kill()
    # Collects the child's exit whenever it comes, so that it never stays as a zombie.
    threading.Thread(target=child.wait, name="embedded-model-reaper", daemon=True).start()
    server = running_server(locks) if ready else None
    if server is None:
        last = locks.log.read_text(errors="replace").strip().splitlines()[-3:]
        raise ModelUnavailable(
            f"The embedded model's process did not start: {' | '.join(last)[-400:] or 'no reason'} "
            f"(see {locks.log})."
        )
    return server


def _wait_ready(child: subprocess.Popen[bytes]) -> bool:
    if child.stdout is None:
        return False
    with child.stdout as said:
        readable, _, _ = select.select([said], [], [], _START_SECONDS)
        return bool(readable) and said.readline() == b"ready\n"


def _asker(url: str, key: str | None) -> OpenAICompatible:
    return OpenAICompatible(
        base_url=url,
        model=MODEL_NAME,
        api_key=key,
        name="embedded",
        dialect=_DIALECT,
        cost_usd=0.0,
    )
