"""Start-up and the API under load, as a user meets them.

    python bench/startup.py [--only help --only first_step --only progress] [--json]

help        `ekiden --help`, from the call to its end
first_step  `ekiden run` on a stopped embedded database that exists, until its first step is called
progress    GET .../progress at 1,000 requests/s: an open loop, timed from when each was due, so a
            server that stalls cannot hide it
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from time import perf_counter

import uvloop

from ekiden.store.migrate import migrate
from handoff import create_held, worker
from measuring import as_text, command, database, percentiles, say, served

EKIDEN = [sys.executable, "-m", "ekiden.cli"]
HERE = Path(__file__).parent


def _figures(what: str, values: list[float], unit: str, digits: int) -> dict[str, float]:
    p50, p99 = percentiles(values)
    return {
        f"{what} p50, {unit}": round(p50, digits),
        f"{what} p99, {unit}": round(p99, digits),
        "N": len(values),
    }


def help_(given: argparse.Namespace) -> dict[str, float]:
    """Time ``ekiden --help``."""
    took = []
    for _ in range(given.repeats):
        began = perf_counter()
        subprocess.run([*EKIDEN, "--help"], check=True, stdout=subprocess.DEVNULL)
        took.append(perf_counter() - began)
    return _figures("until its end", took, "s", 3)


def first_step(given: argparse.Namespace) -> dict[str, float]:
    """Time ``ekiden run`` until the first step; the first run of all makes the database."""
    took, first = [], 0.0
    with tempfile.TemporaryDirectory() as home:
        called = Path(home) / "called"
        environment = {
            **os.environ, "EKIDEN_HOME": home, "DATABASE_URL": "", "PYTHONPATH": str(HERE),
            "CALLED": str(called),
        }  # fmt: skip
        for n in range(given.repeats + 1):
            began = time.time()
            subprocess.run(
                [*EKIDEN, "run", "starting:starting", "--auto-approve", "--json"],
                check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            seconds = float(called.read_text()) - began
            if n:
                took.append(seconds)
            else:
                first = round(seconds, 2)
    return {
        **_figures("until the first step", took, "s", 2),
        "the first time of all, s": first,
    }


async def _client(port: int, path: str, due: list[float], took: list[float]) -> None:
    """Ask at these moments over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for moment in due:
        await asyncio.sleep(max(0.0, moment - perf_counter()))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n", 1)[0], head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        took.append((perf_counter() - moment) * 1000)
    writer.close()


async def _load(dsn: str, port: int, given: argparse.Namespace) -> dict[str, float]:
    await migrate(dsn)
    async with worker(dsn, 1):
        pass  # makes the flow known
    sessions = await create_held(dsn, 100)
    found: dict[str, float] = {}
    for rate in (100, 500, 1000):
        clients = 64
        count = rate * given.seconds // clients
        begin, took = perf_counter() + 0.5, []
        await asyncio.gather(
            *(
                _client(
                    port,
                    f"/api/noop/cot-session/{sessions[n % len(sessions)]}/progress",
                    [begin + (k * clients + n) / rate for k in range(count)],
                    took,
                )
                for n in range(clients)
            )
        )
        seen = len(took) / (perf_counter() - begin)
        say(f"  asked {rate:,}/s, answered {seen:,.0f}/s")
        for name, value in _figures(f"at {rate:,}/s", took, "ms", 2).items():
            found[name if name != "N" else f"N at {rate:,}/s"] = value
    return found


def progress(given: argparse.Namespace) -> dict[str, float]:
    """Time GET progress under load."""
    with database() as (dsn, home), served(dsn, home) as (port, _):
        return uvloop.run(_load(dsn, port, given))


PARTS = {"help": help_, "first_step": first_step, "progress": progress}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="may be repeated")
    parser.add_argument("--repeats", type=int, default=20, help="starts of each command")
    parser.add_argument("--seconds", type=int, default=20, help="of load, at each rate")
    given = parser.parse_args()
    found = {}
    for name in given.only or PARTS:
        say(name)
        found[name] = PARTS[name](given)
    print(json.dumps(found) if given.json else as_text(found))


if __name__ == "__main__":
    main()
