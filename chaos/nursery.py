"""Workers that start in a twentieth of a second: a process that has everything imported forks them.

Each is the real ``ekiden worker`` from its first own line on: it reads its settings, opens its own
connections and says hello. Only the start of Python and the imports are spared, so that a thousand
can be killed while you wait.

    nursery = Nursery(house)
    async with nursery:
        worker = await nursery.worker(dsn="...")     # like ``House.worker``
        worker.kill()
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.house import FLOW, MODEL, ROOT, House, NotReached, wait_until

_PR_SET_PDEATHSIG = 1
_LINE = 65536  # bytes; one command


class Nursling:
    """One forked worker, and what can be done to it. Its number cannot be someone else's."""

    def __init__(self, name: str, pid: int, ready_fd: int, log: Path) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self.started = time.time()
        self.frozen = False
        self.meant = False  # we ended it, it did not die by itself
        self._ready = False
        self._ready_fd = ready_fd
        os.set_blocking(ready_fd, False)
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = -1  # dead already

    @property
    def alive(self) -> bool:
        """Whether it lives; a frozen one does."""
        if self._fd >= 0:
            try:
                signal.pidfd_send_signal(self._fd, 0)
            except ProcessLookupError:
                os.close(self._fd)
                self._fd = -1
        return self._fd >= 0

    @property
    def code(self) -> int | None:
        """None while it lives; nobody knows how a forked worker ended."""
        return None if self.alive else -1

    @property
    def ready(self) -> bool:
        """Whether it has said that it is ready, at any time."""
        if not self._ready and self._ready_fd >= 0:
            with contextlib.suppress(BlockingIOError):
                self._ready = os.read(self._ready_fd, 1) == b"1"
                # It spoke, or it is gone: a thousand pipes kept open would be too many.
                os.close(self._ready_fd)
                self._ready_fd = -1
        return self._ready

    async def is_ready(self, timeout: float = 60.0) -> Self:
        """Wait until it is ready.

        Raises:
            NotReached: it died first, or took too long; ends with its log.
        """
        await wait_until(lambda: self.ready or not self.alive, timeout, self.last_words)
        if not self.ready:
            raise NotReached(f"{self.name} died before it was ready:\n{self.last_words()}")
        return self

    def kill(self) -> None:
        """kill -9."""
        self.meant = True
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        self.meant = True
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.frozen = False
        self._signal(signal.SIGCONT)

    def last_words(self, size: int = 2000) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-size:]

    def close(self) -> None:
        """End it and forget it."""
        self.kill()
        for fd in (self._fd, self._ready_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._ready_fd = -1

    def _signal(self, number: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)


class Nursery:
    """Forks workers for a house.

    Args:
        house: whose workers they are.
        flow: what they load.
        environment: of every worker, on top of what it needs.
    """

    def __init__(
        self, house: House, *, flow: str = FLOW, environment: dict[str, str] | None = None
    ) -> None:
        self._house = house
        self._flow = flow
        self._environment = environment or {}
        self._numbers = count(1)
        self._lock = asyncio.Lock()
        self.workers: list[Nursling] = []  # every one that was ever started

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with (self._house.folder / "nursery.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "chaos.nursery", str(theirs.fileno()), str(os.getpid())],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": _path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
            )
        theirs.close()
        self._socket = ours
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            worker.close()
        self._socket.close()
        self._process.kill()
        self._process.wait()

    async def worker(self, *, dsn: str = "", **environment: str) -> Nursling:
        """Fork a worker. It is not ready yet.

        Args:
            dsn: connect there instead of to the house's database, e.g. through a proxy.
            environment: on top of the nursery's, e.g. WORKER_BATCH_SIZE="4".
        """
        name = f"worker-f{next(self._numbers)}"
        log = self._house.folder / f"{name}.log"
        log.touch()
        command = {
            "flow": self._flow,
            "log": str(log),
            "environment": {
                "PATH": os.environ["PATH"],
                "HOME": str(self._house.folder),
                "DATABASE_URL": dsn or self._house.dsn,
                "OPENAI_BASE_URL": self._house.site.provider.url,
                "EKIDEN_MODEL": MODEL,
                "EKIDEN_HOME": str(self._house.folder / "home"),
                **self._environment,
                **environment,
            },
        }
        reading, writing = os.pipe()
        async with self._lock:
            line = json.dumps(command).encode()
            await asyncio.to_thread(socket.send_fds, self._socket, [line], [writing])
            os.close(writing)
            pid = int((await asyncio.to_thread(self._socket.recv, 64)).decode() or "0")
        if not pid:
            os.close(reading)
            words = (self._house.folder / "nursery.log").read_text()
            raise NotReached(f"the nursery is gone: {words[-2000:]}")
        worker = Nursling(name, pid, reading, log)
        self.workers.append(worker)
        return worker


def _path() -> str:
    """Return the tree that the workers are from: this one, or the one under test."""
    return os.environ.get("CHAOS_PATH") or f"{ROOT / 'src'}{os.pathsep}{ROOT}"


# -- the other side: runs in the nursery's own process --------------------------------------------


def main(fd: int, parent: int) -> None:
    """Fork one worker a command until the other side hangs up."""
    _end_with(parent)
    _import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    with socket.socket(fileno=fd) as commands:
        while True:
            line, fds, _, _ = socket.recv_fds(commands, _LINE, 1)
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                commands.close()
                _live(json.loads(line), fds[0])
            os.close(fds[0])
            commands.send(str(pid).encode())


def _import_everything() -> None:
    import gc

    import openai.resources.chat.completions  # noqa: F401
    import uvloop  # noqa: F401

    import chaos.flows  # noqa: F401
    import ekiden.cli.working
    import ekiden.providers.openai_compatible  # noqa: F401

    gc.collect()
    gc.freeze()  # what is here stays where it is, shared by all


def _live(command: dict[str, Any], ready_fd: int) -> None:
    """Be a worker; does not return."""
    parent = os.getppid()
    code = 1
    try:
        _end_with(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with Path(command["log"]).open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.chdir(Path(command["log"]).parent)
        os.environ.clear()
        os.environ.update(command["environment"], EKIDEN_READY_FD=str(ready_fd))
        from ekiden.cli.working import work

        code = work([command["flow"]])
    except BaseException as error:  # noqa: BLE001 - the last line of a process
        print(f"worker ended: {error!r}", file=sys.stderr, flush=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent is gone already")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
