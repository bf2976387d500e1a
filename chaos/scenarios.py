"""Scenarios: one fault each, and a figure of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import ExitStack
from traceback import format_exception
from typing import Any

from chaos.house import Site
from chaos.scenes import clicks, deaf, decisions, hostile, rerun, routes, standby, zombies

Say = Callable[[str], None]
Scene = Callable[[Site, bool], Coroutine[Any, Any, dict[str, Any]]]

# Each is given a site of its own, and whether this is the short run. Those of one group run side by
# side: they wait more than they work. What measures a time that matters runs alone.
GROUPS: tuple[dict[str, Scene], ...] = (
    {"rerun": rerun.run},
    {"deaf": deaf.run, "zombies": zombies.run},
    {"clicks": clicks.run, "hostile": hostile.run, "routes": routes.run},
    {"decisions": decisions.run},
    {"standby": standby.run},
)


NAMES = tuple(name for group in GROUPS for name in group)


def run_scenarios(
    short: bool, seed: int, say: Say, only: Collection[str] = NAMES
) -> dict[str, Any]:
    """Run these; return what each found, by name. One that broke off is a violation of its own."""
    found: dict[str, Any] = {}
    broke: dict[str, int] = {}
    for whole in GROUPS:
        group = {name: scene for name, scene in whole.items() if name in only}
        with ExitStack() as stack:
            sites = {name: stack.enter_context(Site(seed=seed)) for name in group}
            found |= asyncio.run(_together(group, sites, short, broke, say))
    return found | {"violations": broke}


async def _together(
    group: dict[str, Scene],
    sites: dict[str, Site],
    short: bool,
    broke: dict[str, int],
    say: Say,
) -> dict[str, Any]:
    async def one(name: str) -> dict[str, Any]:
        began = time.monotonic()
        found: dict[str, Any] = {}
        try:
            found = await group[name](sites[name], short)
        except Exception as error:  # noqa: BLE001 - what the others found must not be lost
            broke[f"scenario {name} broke off"] = 1
            say("".join(format_exception(error)))
        say(f"{name}: {time.monotonic() - began:.1f} s, {found}")
        return found

    names = list(group)
    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
