"""``python -m chaos``: break everything, judge, report. Exit code 1 when a target is missed."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos import report
from chaos.house import Site
from chaos.matrix import run_matrix
from chaos.nemesis import Nemesis
from chaos.scenarios import NAMES, run_scenarios
from chaos.schedule import LONG, SHORT, Length

PARTS = ("matrix", "nemesis", "scenarios")


def say(line: str) -> None:
    """Say how it goes."""
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="in under four minutes")
    parser.add_argument("--seed", type=int, help="the same seed gives the same faults")
    parser.add_argument("--kills", type=int, help="kills of workers by the nemesis")
    parser.add_argument(
        "--only",
        choices=[*PARTS, *NAMES],
        action="append",
        metavar="PART",
        help=f"{', '.join(PARTS)}, or a scenario: {', '.join(NAMES)}; may be repeated",
    )
    parser.add_argument("--json", type=Path, default=report.JSON, help="where to write the figures")
    parser.add_argument("--page", type=Path, help="where to write the page of the documentation")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    length = SHORT if given.short else LONG
    say(f"seed {seed}: python -m chaos{' --short' if given.short else ''} --seed {seed}")
    data = run(length, seed, given.kills, given.only or PARTS)
    report.write(data, given.json)
    if given.page is not None:
        given.page.write_text(report.page(data), "utf-8")
    say("\n" + report.text(data))
    say(f"\nWritten to {given.json}")
    return 1 if report.missed(data) else 0


def run(length: Length, seed: int, kills: int | None, parts: Collection[str]) -> dict[str, Any]:
    """Run the parts, one after the other, and put together what they found."""
    began, started = time.monotonic(), datetime.now(UTC)
    short = length is SHORT
    found: dict[str, Any] = {}
    if "nemesis" in parts:
        say("The nemesis:")
        with Site(seed=seed) as site:
            found["nemesis"] = asdict(asyncio.run(Nemesis(site, length, seed, kills, say).run()))
    if "matrix" in parts:
        say("The matrix:")
        found["matrix"] = asyncio.run(run_matrix(short, seed, say))
    if only := NAMES if "scenarios" in parts else [name for name in NAMES if name in parts]:
        say("The scenarios:")
        found["scenarios"] = run_scenarios(short, seed, say, only)
    return together(found, seed, started, time.monotonic() - began)


def together(parts: dict[str, Any], seed: int, started: datetime, seconds: float) -> dict[str, Any]:
    """Return the whole of a run, as it is written."""
    nemesis, matrix = parts.get("nemesis", {}), parts.get("matrix", {})
    violations: Counter[str] = Counter()
    for part in (nemesis, matrix, parts.get("scenarios", {})):
        violations.update(part.get("violations", {}))
    violations.update({"matrix cells that failed": len(matrix.get("failed", []))})
    faults = dict(nemesis.get("faults", {}))
    if matrix:
        faults["deaths at a named place of the code"] = matrix["n"] - len(matrix["not_reached"])
    faults |= parts.get("scenarios", {}).get("faults", {})
    return {
        "seed": seed,
        "startedAt": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "machine": report.machine(),
        "code": report.code(),
        "faults": faults,
        "sessions": nemesis.get("sessions", {}),
        "steps": nemesis.get("figures", {}).get("steps", 0),
        "violations": dict(violations),
        "ids": nemesis.get("ids", {}),
        "figures": nemesis.get("figures", {}),
        "parts": parts,
    }


if __name__ == "__main__":
    sys.exit(main())
