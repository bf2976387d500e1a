"""Runs the real program as a process of its own, as people do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOY = "tests.cli.toy:toy"
PATIENCE = 60.0  # seconds; a loaded machine, never a measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


class Program:
    """``ekiden`` with an environment of the test's own, in a folder of the test's own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            # This checkout, whichever one is installed.
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "PYTHONWARNINGS": "error",
            "EKIDEN_MODEL": "ollama:none",  # named, so nothing is probed and nothing is fetched
            "RETRY_DELAY": "0",
            **settings,
        }

    def but(self, **settings: str) -> Program:
        """The same with other settings."""
        other = Program(self.folder)
        other.environment = self.environment | settings
        return other

    def __call__(self, *words: str, stdin: str = "") -> Ended:
        """Run a command to its end."""
        ended = subprocess.run(
            self._command(words),
            check=False,
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    async def run(self, *words: str) -> Ended:
        """Run a command to its end while the test's loop goes on."""
        return await asyncio.to_thread(self, *words)

    @contextmanager
    def started(self, *words: str) -> Iterator[Running]:
        """Start a command that stays; end it if the test has not."""
        out, err = self.folder / "out.txt", self.folder / "err.txt"
        with out.open("ab") as stdout, err.open("ab") as stderr:
            process = subprocess.Popen(
                self._command(words),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        try:
            yield Running(process, out, err)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [str(Path(sys.executable).with_name("ekiden")), *words]


class Running:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str) -> None:
        """Wait until it has said this."""
        until(lambda: text in self.out or text in self.err, lambda: self.out + self.err)

    def children(self) -> dict[int, str]:
        """Return its children that live, and their command lines."""
        return children_of(self.process.pid)

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def children_of(pid: int) -> dict[int, str]:
    """Return the children of a process that live, and their command lines."""
    found = {}
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(FileNotFoundError):
        for child in map(int, listing.read_text().split()):
            if command := command_of(child):
                found[child] = command
    return found


def command_of(pid: int) -> str:
    """Return the command line of a process that lives; empty for a zombie, or none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def until(condition: Callable[[], Any], told: Callable[[], str] = str) -> Any:
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"it did not come about: {told()}")
