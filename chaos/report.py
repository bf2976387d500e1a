"""What a run found, as JSON, as a table and as a page of the documentation.

Everything is a pure function of the JSON: the page can be written again from ``build/chaos.json``.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.house import ROOT

JSON = ROOT / "build" / "chaos.json"
PAGE = ROOT / "docs" / "reliability.md"

Data = Mapping[str, Any]
HEALTH = ("/healthz", "/readyz")
LOGIN = ("/login", "/static/1/1")
AFTER_A_CUT = 3.0  # seconds until a worker whose doorbell was cut has looked at everything again


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    figure: str
    target: str
    result: str
    met: bool | None  # None: that part was not run


def machine() -> str:
    """Return what this ran on, in a line without names."""
    with Path("/proc/meminfo").open() as lines:
        memory = int(next(lines).split()[1]) / 2**20
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def code() -> str:
    """Return which commit this is, shortened, or that nobody knows."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.check_output(command, cwd=ROOT, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def rows(data: Data) -> list[Row]:
    """Return the table."""
    return [row for make in _ROWS for row in [make(data)]]


def missed(data: Data) -> list[str]:
    """Return what this run must be red for, in words."""
    table = [f"{row.figure}: {row.result}" for row in rows(data) if row.met is False]
    counted = [f"{name}: {n}" for name, n in data["violations"].items() if n]
    return table + counted


def text(data: Data) -> str:
    """Return everything as a person at a terminal wants to see it."""
    lines = [f"seed {data['seed']}, {data['seconds']:.0f} s, {data['machine']}", "", "Done:"]
    lines += [f"  {n:>7,}  {what}" for what, n in data["faults"].items()]
    if hit := data["parts"].get("nemesis", {}).get("hit"):
        lines += ["", "Of these:"] + [f"  {n:>7,}  {what}" for what, n in hit.items()]
    lines += ["", f"Sessions: {_counts(data['sessions'])}; steps: {data['steps']:,}", ""]
    width = max(len(row.figure) for row in rows(data))
    for row in rows(data):
        mark = {True: "met", False: "MISSED", None: "not run"}[row.met]
        lines.append(f"  {row.figure:<{width}}  {mark:>7}  {row.result}  (target: {row.target})")
    if broken := {name: n for name, n in data["violations"].items() if n}:
        lines += ["", "Violations:"] + [f"  {n:>7,}  {name}" for name, n in broken.items()]
        for name, ids in data.get("ids", {}).items():
            lines += [f"    {name}: {id_}" for id_ in ids]
    return "\n".join(lines)


def write(data: Data, path: Path = JSON) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, default=str) + "\n")


def page(data: Data) -> str:
    """Return the page of the documentation."""
    table = ["| figure | to reach | seen | |", "| --- | --- | --- | --- |"]
    for row in rows(data):
        mark = {True: "✓", False: "**missed**", None: "not run"}[row.met]
        table.append(f"| {row.figure} | {row.target} | {row.result} | {mark} |")
    faults = ["| done to it | N |", "| --- | ---: |"]
    faults += [f"| {what} | {n:,} |" for what, n in data["faults"].items()]
    checked = ["| must never be | seen |", "| --- | ---: |"]
    checked += [f"| {name.replace('_', ' ')} | {n} |" for name, n in data["violations"].items()]
    return _PAGE.format(
        date=data["startedAt"][:10],
        code=data["code"],
        seed=data["seed"],
        minutes=f"{data['seconds'] / 60:.0f}",
        machine=data["machine"],
        sessions=_counts(data["sessions"]),
        steps=f"{data['steps']:,}",
        table="\n".join(table),
        faults="\n".join(faults),
        checked="\n".join(checked),
    )


def _counts(sessions: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {status}" for status, n in sorted(sessions.items())) or "none"


# -- the rows of the table ------------------------------------------------------------------------


def _part(data: Data, *names: str) -> Any:
    found: Any = data["parts"]
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _row(figure: str, target: str, seen: Any, say: Callable[[Any], tuple[str, bool]]) -> Row:
    if not seen:
        return Row(figure=figure, target=target, result="", met=None)
    result, met = say(seen)
    return Row(figure=figure, target=target, result=result, met=met)


def _found(data: Data, *names: str) -> int:
    """Return how many of these violations there were, in all parts."""
    return sum(data["violations"].get(name, 0) for name in names)


def _lost(data: Data) -> Row:
    def say(nemesis: Any) -> tuple[str, bool]:
        done, figures = nemesis["faults"], nemesis["figures"]
        crashes = sum(n for what, n in done.items() if "PostgreSQL" in what and "half" not in what)
        lost = _found(data, "acknowledged_lost", "answers_vanished", "acknowledged sessions lost",
                      "acknowledged approvals lost", "acknowledged cancels lost")  # fmt: skip
        return (
            f"{lost} of {figures['acknowledged']:,} over {done['kill -9 of a worker']:,} worker "
            f"kills and {crashes} database crashes",
            lost == 0 and figures["acknowledged"] > 0,
        )

    return _row("acknowledged steps lost", "0", _part(data, "nemesis"), say)


def _twice(data: Data) -> Row:
    def say(nemesis: Any) -> tuple[str, bool]:
        twice = _found(data, "effects applied twice", "sessions created twice", "wrong_outputs")
        return f"{twice} of {nemesis['figures']['steps']:,} steps", twice == 0

    return _row("effects applied twice in the same run", "0", _part(data, "nemesis"), say)


def _matrix(data: Data) -> Row:
    def say(matrix: Any) -> tuple[str, bool]:
        passed, n = matrix["passed"], matrix["n"]
        return f"{passed} of {n}", passed == n > 0

    figure = "failpoints × step kinds × phase edges passed"
    return _row(figure, "all", _part(data, "matrix"), say)


def _paid(data: Data) -> Row:
    def say(nemesis: Any) -> tuple[str, bool]:
        lost = _found(data, "answers_received_and_lost", "answers_vanished")
        twice = _found(data, "answers_stored_twice")
        n = nemesis["figures"]["answers_stored"]
        return f"{lost} / {twice} of {n:,} answers stored", lost == twice == 0 < n

    figure = "paid answers received and lost / stored twice"
    return _row(figure, "0 / 0", _part(data, "nemesis"), say)


def _per_crash(data: Data) -> Row:
    def say(nemesis: Any) -> tuple[str, bool]:
        most = nemesis["figures"]["paid_twice_per_crash"]
        bad = _found(data, "paid_twice_per_crash", "paid_though_stored", "paid_twice_without_crash")
        said = f"{most} over {nemesis['figures']['attempts_crashed']:,} crashed attempts"
        kept = [c for c in _part(data, "matrix", "cells") or [] if "kept" in c["name"]]
        if kept:
            fetched = sum(cell["judged"].get("answers_fetched", 0) for cell in kept)
            again = sum(len(cell["judged"].get("paid_though_kept", [])) for cell in kept)
            unknown = sum(cell["judged"].get("paid_twice", 0) for cell in kept) - again
            said += (
                f"; of answers the provider keeps {fetched} were fetched and {again} paid for "
                f"again, and {unknown} more whose id had not come when the worker died"
            )
            bad += again + (fetched == 0)
        return said, bad == 0

    figure = "calls paid twice, at most per crash"
    target = "≤ 1, and 0 where the database has the id to fetch the answer by"
    return _row(figure, target, _part(data, "nemesis"), say)


def _zombies(data: Data) -> Row:
    def say(zombies: Any) -> tuple[str, bool]:
        n, accepted = zombies["late_writes"], zombies["accepted"]
        frozen = (_part(data, "nemesis", "faults") or {}).get(
            "SIGSTOP of a worker beyond its lease, then SIGCONT", 0
        )
        cells = [c for c in _part(data, "matrix", "cells") or [] if "frozen" in c["name"]]
        accepted += sum(not cell["passed"] for cell in cells)
        return (
            f"{accepted} of {n} late writes that reached PostgreSQL; {len(cells)} workers that "
            f"woke in the middle of their successor's attempt, {frozen} in the nemesis",
            accepted == 0 < n,
        )

    return _row("zombie writes accepted", "0", _part(data, "scenarios", "zombies"), say)


def _clicks(data: Data) -> Row:
    def say(clicks: Any) -> tuple[str, bool]:
        more = clicks["more_than_once"] + _found(data, "gates_passed_twice")
        more += _found(data, "gates told passed twice")
        return (
            f"{more} of {clicks['rounds']} gates clicked on a quiet system, and of "
            f"{len(_part(data, 'nemesis', 'figures', 'clicks told passed, per 64') or [])} "
            "in the nemesis",
            more == 0 == clicks["never"] and clicks["rounds"] > 0,
        )

    figure = "gates passed more than once under 64 simultaneous clicks"
    return _row(figure, "0", _part(data, "scenarios", "clicks"), say)


def _decisions(data: Data) -> Row:
    def say(seen: Any) -> tuple[str, bool]:
        bad = sum(len(seen[name]) for name in ("lost", "not_ended", "wrong_sums", "verify"))
        kinds = ", ".join(f"{n:,} {verb}" for verb, n in sorted(seen["taken"].items()))
        return (
            f"{bad + seen['answers_500']} of {seen['decisions']:,} ({kinds}) on "
            f"{seen['sessions']} sessions, over {seen['kills']} kills -9",
            bad == 0 == seen["answers_500"] and len(seen["taken"]) >= 4,
        )

    figure = "decisions of people that were lost, doubled or not followed while workers died"
    return _row(figure, "0", _part(data, "scenarios", "decisions"), say)


def _hostile(data: Data) -> Row:
    def say(hostile: Any) -> tuple[str, bool]:
        n, stored, stuck = hostile["n"], hostile["stored"], hostile["stuck"]
        said = f"{stored} of {n} stored byte for byte, {stuck} stuck"
        return said, stored == n > 0 == stuck

    figure = "hostile model outputs"
    return _row(figure, "all stored, none stuck", _part(data, "scenarios", "hostile"), say)


def _deaf(data: Data) -> Row:
    def say(deaf: Any) -> tuple[str, bool]:
        worst = max(deaf["heard_after_s"], default=None)
        if worst is None:
            return "never heard again", False
        cut = max(deaf["heard_after_a_cut_s"], default=math.inf)
        said = (
            f"at most {worst:.1f} s, N {len(deaf['heard_after_s'])}; after a cut at most "
            f"{cut:.1f} s, N {deaf['cuts']}; {deaf['lost']} lost"
        )
        heard = worst <= 15 and len(deaf["heard_after_s"]) == deaf["n"]
        return said, heard and cut <= AFTER_A_CUT and deaf["lost"] == 0

    figure = "listener deaf (half-open socket): heard again"
    return _row(figure, "within 15 s, nothing lost", _part(data, "scenarios", "deaf"), say)


def _standby(data: Data) -> Row:
    def say(standby: Any) -> tuple[str, bool]:
        again, lost = standby["going_again_s"], standby["lost"]
        if again is None:
            return f"{lost} of {standby['acknowledged']:,} lost, not going again", False
        return (
            f"{lost} of {standby['acknowledged']:,} lost, going again after {again:.1f} s",
            lost == 0 < standby["acknowledged"] and again <= 30,
        )

    figure = "promotion of a synchronous standby under load"
    return _row(figure, "0 lost, within 30 s", _part(data, "scenarios", "standby"), say)


def _drained(data: Data) -> Row:
    def say(nemesis: Any) -> tuple[str, bool]:
        n = sum(nemesis["sessions"].values())
        left = _found(data, "sessions not drained after healing", "not_ended")
        after = nemesis["figures"]["drained after healing, s"]
        said = f"{(n - left) / max(1, n):.0%} of {n:,}"
        return said + (f", after {after:.0f} s" if after is not None else ""), left == 0 < n

    return _row("sessions drained after healing", "100 %", _part(data, "nemesis"), say)


def _routes(data: Data) -> Row:
    def say(routes: Any) -> tuple[str, bool]:
        found = routes["open"]
        said = f"{len(found)} of {routes['n']} ({', '.join(found)})"
        return said, sorted(found) == sorted((*HEALTH, *LOGIN))

    figure = "routes and sockets that answer without credentials"
    target = "4: the health paths, the login page and its style"
    return _row(figure, target, _part(data, "scenarios", "routes"), say)


def _rerun(data: Data) -> Row:
    def say(rerun: Any) -> tuple[str, bool]:
        said = [
            f"{name} {one['p50_s']:.2f} / {one['p99_s']:.2f} s, N {one['n']}"
            for name, one in rerun.items()
        ]
        met = all(one["p99_s"] <= 1 and one["never"] == 0 for one in rerun.values())
        return "; ".join(said), met

    figure = "kill -9 of a worker → its step runs again, p50 / p99"
    return _row(figure, "p99 ≤ 1 s", _part(data, "scenarios", "rerun"), say)


_ROWS = (
    _lost, _twice, _matrix, _paid, _per_crash, _zombies, _clicks, _decisions, _hostile, _deaf,
    _standby, _drained, _routes, _rerun,
)  # fmt: skip

_PAGE = """\
# Nothing is lost

```sh
make chaos          # everything below, about 35 minutes on two cores
make chaos-short    # the same in small, under four minutes; part of make test
make mutants        # takes out a safeguard and wants this suite to be red
```

The first two break a real system: PostgreSQL with fsync on, worker and API processes as `ekiden
worker` and `ekiden serve` run them, and a scripted model server whose own log says what was asked
and paid.

- **The matrix** kills a process at each named place of the code, for each kind of step and at each
  edge of a phase, and lets another go on.
- **The nemesis** keeps sessions in flight while everything breaks at random times: the seed decides
  what, when and whom, and the same seed gives the same plan. Then it mends everything, and every
  session must come to its end.
- **Scenarios** measure one thing each.

What is wrong is decided by those who were outside: a witness that writes down each step and each
answer once it has seen it committed, the clients who were told "yes", the provider's log, the
outputs (a function of every answer on the way), and `ekiden verify`.

## Who guards the guards

`make mutants` copies the code, takes out one safeguard, and runs what guards it.

| taken out | what catches it |
| --- | --- |
| the fence of the completion | a worker wakes while its successor has the task: its write counts |
| the look at everything after a re-connect | a doorbell that is cut as it rings: heard after 12 s |
| the replay from the ledger | the bill: paid although the answer was in the ledger |

## What was seen

{date}, code of {code}, seed {seed}, {minutes} minutes on {machine}.
Sessions: {sessions}; steps: {steps}.

{table}

{faults}

{checked}

The figures come from `build/chaos.json`, which the same run writes: again with
`python -m chaos --seed {seed}`.
"""
