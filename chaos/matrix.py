"""Runs the failpoint matrix: a process dies at one exact place, another goes on, a judge looks.

A cell passes when its process did die there (exit code 86), every session came to its end on a
fresh worker, and the judge has no complaint. A failpoint that was never reached is a failure.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from chaos.deaths import die, sessions_of
from chaos.failpoints import Cell, all_cells, some_cells
from chaos.house import House, NotReached, Site
from chaos.judge import complaints, judge
from chaos.observer import Observer
from ekiden import failpoint

AT_ONCE = 4  # cells side by side: they wait for processes more than they work
_PATIENCE = 60.0  # seconds until a cell is given up
_PIECE = 0.004  # seconds between two pieces of an answer: so that there is a middle to die in

_COUNTED = (
    "sessions", "completed", "acknowledged", "answers_seen", "calls_asked", "calls_billed",
    "answers_stored", "answers_fetched", "attempts_crashed", "paid_twice", "outputs_checked",
    "gates_passed", "claims_of_frozen_workers", "invariants_examined",
)  # fmt: skip

Say = Callable[[str], None]


async def run_matrix(short: bool, seed: int, say: Say) -> dict[str, Any]:
    """Run the matrix, or the part of it that the seed chooses.

    Returns:
        ``cells`` (each with its name, whether it passed, what the judge found), their number ``n``,
        how many ``passed``, which were ``not_reached``, and ``violations`` by name.
    """
    cells = some_cells(seed) if short else all_cells()
    began = time.monotonic()
    with Site(seed=seed) as site:
        site.provider.control(piece_s=_PIECE)
        await site.database()  # the template is made once, before anyone is in a hurry
        results: list[dict[str, Any]] = []
        waiting = iter(cells)

        async def work() -> None:
            for cell in waiting:
                result = await run_cell(site, cell)
                results.append(result)
                mark = "passed" if result["passed"] else "FAILED"
                say(f"[{len(results)}/{len(cells)}] {cell.name}: {mark}, {result['seconds']:.1f} s")
                for line in result["complaints"]:
                    say(f"    {line}")

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return _summary(results, short=short, seed=seed, seconds=time.monotonic() - began)


def _summary(
    results: list[dict[str, Any]], *, short: bool, seed: int, seconds: float
) -> dict[str, Any]:
    violations: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for result in results:
        violations.update(result["judged"].get("violations", {}))
        totals.update({name: result["judged"].get(name, 0) for name in _COUNTED})
    by_failpoint: dict[str, dict[str, int]] = {}
    for name in failpoint.NAMES:
        of_it = [r for r in results if r["failpoint"] == name]
        by_failpoint[name] = {"n": len(of_it), "passed": sum(r["passed"] for r in of_it)}
    return {
        "seed": seed,
        "short": short,
        "seconds": round(seconds, 1),
        "n": len(results),
        "passed": sum(r["passed"] for r in results),
        "not_reached": [r["name"] for r in results if not r["reached"]],
        "failed": [r["name"] for r in results if not r["passed"]],
        "by_failpoint": by_failpoint,
        "totals": dict(totals),
        "paid_twice_per_crash": max(
            (r["judged"].get("paid_twice_per_crash", 0) for r in results), default=0
        ),
        "violations": dict(violations),
        "cells": results,
    }


async def run_cell(site: Site, cell: Cell) -> dict[str, Any]:
    """Run one cell and say how it went."""
    began = time.monotonic()
    result: dict[str, Any] = {
        "name": cell.name,
        "failpoint": cell.failpoint,
        "reached": False,
        "passed": False,
        "complaints": [],
        "judged": {},
    }
    environment = {"RETRY_DELAY": "20"}
    if cell.kept:
        environment["EKIDEN_STORE_ANSWERS"] = "true"
    try:
        async with (
            asyncio.timeout(_PATIENCE * 3),
            House(site, environment=environment) as house,
            Observer(house.dsn) as observer,
        ):
            await die(house, cell)
            result["reached"] = True
            if not house.workers:
                house.worker()
            try:
                await house.drain(_PATIENCE)
            except NotReached as stuck:
                result["complaints"].append(str(stuck))
            found = await judge(house, observer)
            result["judged"] = found
            result["complaints"] += complaints(found)
            if cell.kept and found["answers_fetched"] == 0:
                result["complaints"].append("nothing was fetched from the provider")
            if found["completed"] != sessions_of(cell) or found["acknowledged"] == 0:
                result["complaints"].append(
                    f"{found['completed']} of {sessions_of(cell)} sessions completed, "
                    f"{found['acknowledged']} steps were witnessed"
                )
    except (NotReached, TimeoutError) as error:
        result["complaints"].append(str(error) or f"it took longer than {_PATIENCE * 3:g} s")
    result["seconds"] = round(time.monotonic() - began, 2)
    result["passed"] = result["reached"] and not result["complaints"]
    return result
