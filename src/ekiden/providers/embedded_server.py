"""The process in which the embedded model runs: ``python -m ekiden.providers.embedded_server``.

A process of its own, so that a crash in native code takes no worker down, and one for all workers
of a machine that share a home, because each would cost hundreds of megabytes and the same two
cores. Three lock files say everything, and the kernel frees their locks whoever dies, and how:

``users``   every process that uses the server holds it shared. The server waits for it alone: it
            gets it at the moment the last user is gone, and ends. No server outlives its users.
``alive``   the server holds it alone from its first moment. Free means: there is no server.
            The file's content is where it listens, written once it does.
``start``   held by the user that is starting a server, so that two never start two.

Lock order: ``users`` (shared), then ``start``, then ``alive``.

A parent-death signal would be simpler, but ties the server to one of its users (and on Linux to
the *thread* that started it): when that worker dies, its neighbours would lose their model.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

MODEL_NAME = "smollm2"
SLOTS = 2  # requests at the same time; more do not make a few cores faster
CONTEXT = 4096  # tokens per slot, prompt and answer together


@dataclass(frozen=True, slots=True, kw_only=True)
class Locks:
    """The three files through which users and server know of each other."""

    users: Path
    alive: Path
    start: Path
    log: Path  # what the native code said on stderr


def locks_in(folder: Path) -> Locks:
    """Return the lock files in this folder, for this machine as the network sees it.

    Containers that share a folder do not share a loopback interface: the network namespace is
    part of the name.
    """
    try:
        network = Path("/proc/self/ns/net").readlink().name
    except OSError:  # not Linux
        network = ""
    place = hashlib.sha256(f"{socket.gethostname()} {network}".encode()).hexdigest()[:8]
    name = f"server-{place}"
    return Locks(
        users=folder / f"{name}.users",
        alive=folder / f"{name}.alive",
        start=folder / f"{name}.start",
        log=folder / f"{name}.log",
    )


def open_lock(path: Path) -> int:
    """Open a lock file; only its owner may read it, because it may hold the server's key."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def threads_for(cores: int) -> int:
    """Return how many threads compute: one on a small machine, and never all cores.

    The threads meet at a spinning barrier after every layer. When a database and workers want
    the same cores, one of them is always descheduled while the others spin: with two threads on
    two busy cores 5 tokens a second were left of 120; one thread gives 95 and keeps them.
    """
    return max(1, min(4, cores // 4))


def _end_with_last_user(users: int) -> None:
    fcntl.flock(users, fcntl.LOCK_EX)
    os._exit(0)  # at once: nothing here needs saving, and native threads end with the process


def serve(model: Path, folder: Path) -> None:
    """Run the server until its last user is gone."""
    locks = locks_in(folder)
    users = open_lock(locks.users)
    threading.Thread(target=_end_with_last_user, args=(users,), daemon=True).start()
    alive = open_lock(locks.alive)
    fcntl.flock(alive, fcntl.LOCK_EX)
    os.ftruncate(alive, 0)

    import xllamacpp  # noqa: PLC0415  -- native code: only here, never in a worker

    key = secrets.token_urlsafe(24)  # other users of the machine reach the port, too
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL_NAME}
    params.api_keys = [key]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    params.n_gpu_layers = 0
    threads = threads_for(os.cpu_count() or 1)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.fit_params = False  # asks devices for their memory; there is nothing to fit
    params.cache_ram_mib = 0  # would grow to 8 GB
    params.warmup = False  # a second of start for nothing: the first call warms as well
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 1  # errors only
    server = xllamacpp.Server(params)

    record = json.dumps({"url": server.listening_address, "key": key, "pid": os.getpid()})
    os.pwrite(alive, record.encode(), 0)
    os.write(sys.stdout.fileno(), b"ready\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads it from here on
    threading.Event().wait()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
