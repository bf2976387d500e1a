"""Processes that can be broken, and waiting for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
POLL = 0.02  # seconds between looks of the harness


class NotReached(AssertionError):
    """What was waited for did not come about."""


class Process:
    """One process of a house, and what can be done to it."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path):
        self.name = name
        self.log = log
        self.started = time.time()
        reading, writing = os.pipe()
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                command,
                cwd=log.parent,
                env={
                    **environment,
                    "EKIDEN_SUPERVISOR": str(os.getpid()),  # it ends when we do
                    "EKIDEN_READY_FD": str(writing),
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(writing,),
            )
        os.close(writing)
        os.set_blocking(reading, False)
        self._ready_fd = reading
        self._ready = False

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return self.popen.poll()

    @property
    def alive(self) -> bool:
        return self.code is None

    @property
    def frozen(self) -> bool:
        """Whether it is stopped, as by SIGSTOP."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] == "T"
        except OSError:
            return False

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

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.popen.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        self.popen.terminate()

    async def gone(self, timeout: float = 60.0) -> int:
        """Wait until it is gone; return its exit code."""
        await wait_until(lambda: not self.alive, timeout, self._why("is still there"))
        assert self.code is not None
        return self.code

    async def is_ready(self, timeout: float = 60.0) -> Self:
        """Wait until it is ready.

        Raises:
            NotReached: it died first, or took too long; ends with its log.
        """
        await wait_until(
            lambda: self.ready or not self.alive, timeout, self._why("does not get ready")
        )
        if not self.ready:
            raise NotReached(self._why(f"died with {self.code} before it was ready")())
        return self

    def last_words(self, size: int = 2000) -> str:
        return self.log.read_text(errors="replace")[-size:]

    def close(self) -> None:
        if self.alive:
            self.thaw()
            self.kill()
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1

    def _why(self, what: str) -> Callable[[], str]:
        return lambda: f"{self.name} ({self.pid}) {what}:\n{self.last_words()}"


class Provider:
    """The scripted provider as a process."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.log = folder / "provider.jsonl"
        self._port_file = folder / "provider.port"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it, on the port it had before if it had one."""
        self._port_file.unlink(missing_ok=True)
        with (self._folder / "provider.err").open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "chaos.provider", "--seed", str(self.seed)),
                    *("--port-file", str(self._port_file), "--log", str(self.log)),
                    *("--port", str(self.port), "--parent", str(os.getpid())),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        give_up = time.monotonic() + 30
        while not self._port_file.exists():
            if self._process.poll() is not None or time.monotonic() > give_up:
                words = (self._folder / "provider.err").read_text()
                raise NotReached(f"the provider did not start: {words[-2000:]}")
            time.sleep(POLL)
        self.port = int(self._port_file.read_text())

    def stop(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def control(self, **knobs: Any) -> dict[str, Any]:
        """Set how it behaves (see ``chaos.provider.Control``) and return how it does.

        ``heal=True`` puts everything back first. Blocks for about a millisecond.
        """
        asking = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control", data=json.dumps(knobs).encode(), method="POST"
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(asking, timeout=10) as answer:
            return dict(json.load(answer))

    def entries(self) -> list[dict[str, Any]]:
        """Return the log so far: the billing oracle."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines(keepends=True)
        # The last line may be half written while the provider lives, or was killed.
        return [json.loads(line) for line in lines if line.endswith("\n")]


async def wait_until(
    condition: Callable[[], Awaitable[Any] | Any],
    timeout: float = 60.0,
    told: Callable[[], str] | str = "it did not come about",
) -> Any:
    """Wait for a condition, plain or a coroutine function, and return its value.

    Raises:
        NotReached: it did not come about in ``timeout`` seconds.
    """
    give_up = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > give_up:
            raise NotReached(told() if callable(told) else told)
        await asyncio.sleep(POLL)
