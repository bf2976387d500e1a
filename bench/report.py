"""What a run of ``versus.py`` found, for people: a table, the targets, a chart, a page.

``found`` is ``{"machine": str, "bare": {...}, "engines": {name: {"versions", "keeps", "runs"}}}``;
a run is what the measures of ``peers/common.py`` return, and a figure is the median of the runs.
"""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

OURS, FULL, LIMIT = "ekiden", "ekiden-full", "prototype"
ELSEWHERE = {"celery"}  # keeps its queue in something that is not PostgreSQL

COLUMNS = (
    ("steps/s", ("steps_per_s",), ",.0f"),
    ("hop p50 ms", ("hop_1", "p50"), ".2f"),
    ("p99", ("hop_1", "p99"), ".2f"),
    ("256: p99 ms", ("hop_256", "p99"), ",.1f"),
    ("1,000/s: p50 ms", ("hop_paced", "p50"), ".2f"),
    ("p99", ("hop_paced", "p99"), ".2f"),
    ("pick-up p50 ms", ("pick_up", "p50"), ",.2f"),
    ("p99", ("pick_up", "p99"), ",.2f"),
    ("idle tx/s", ("idle_tx_per_s",), ".2f"),
    ("tx/step", ("tx_per_step",), ".3f"),
    ("MB", ("rss_mb",), ".0f"),
)
_BEGIN, _END = "<!-- bench: begin -->", "<!-- bench: end -->"


def figure(engine: dict[str, Any] | None, *path: str) -> float | None:
    """Return the median over the runs; None when it was not measured."""
    values = []
    for run in engine["runs"] if engine else ():
        value: Any = run
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    return statistics.median(values) if values else None


def best_peer(engines: dict[str, Any]) -> tuple[str, float] | None:
    """Return the fastest peer on PostgreSQL, and its steps a second."""
    rates = {
        name: rate
        for name, engine in engines.items()
        if name not in {OURS, FULL, LIMIT, *ELSEWHERE}
        and (rate := figure(engine, "steps_per_s")) is not None
    }
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def table(found: dict[str, Any]) -> str:
    """Return the figures of all engines as a Markdown table, the fastest first."""
    engines = found["engines"]
    ours = figure(engines.get(OURS), "steps_per_s")
    lines = [
        "| engine | " + " | ".join(title for title, _, _ in COLUMNS) + " | Ekiden is |",
        "| --- |" + " ---: |" * (len(COLUMNS) + 1),
    ]
    for name, engine in _fastest_first(engines):
        cells = [_cell(figure(engine, *path), how) for _, path, how in COLUMNS]
        rate = figure(engine, "steps_per_s")
        cells.append(f"{ours / rate:.1f} ×" if ours and rate and name != OURS else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def targets(found: dict[str, Any]) -> str:
    """Return what is to be reached and what was, as a Markdown table."""
    engines, bare = found["engines"], found["bare"]
    ours = engines.get(OURS)
    rate, peer = figure(ours, "steps_per_s"), best_peer(engines)
    limit, full = (figure(engines.get(e), "steps_per_s") for e in (LIMIT, FULL))
    lines = ["| figure | to reach | seen | |", "| --- | --- | --- | --- |"]

    def line(what: str, wanted: str, seen: float | None, how: str, *, well: bool) -> None:
        if seen is not None:
            mark = "✓" if well else "**missed**"
            lines.append(f"| {what} | {wanted} | {seen:{how}} | {mark} |")

    def at_least(what: str, part: float | None, of: float | None, least: float) -> None:
        if part and of:
            line(what, f"≥ {least:g} ×", part / of, ".2f", well=part / of >= least)

    def at_most(what: str, most: float, *path: str, of: float | None = None) -> None:
        seen = figure(ours, *path)
        if seen is not None:
            seen /= of or 1
            line(what, f"≤ {most:g}{' ×' if of else ''}", seen, ".3f", well=seen <= most)

    if peer:
        at_least(f"steps/s, against the best peer on PostgreSQL ({peer[0]})", rate, peer[1], 10)
    at_least("steps/s, against the bare prototype", rate, limit, 0.5)
    at_least("steps/s beside 1,000,000 finished tasks, against empty tables", full, rate, 0.95)
    p50, p99 = bare["p50"], bare["p99"]
    at_most(f"hop, one session, p50 / bare commit ({p50:.3f} ms)", 1.5, "hop_1", "p50", of=p50)
    at_most(f"hop, one session, p99 / bare commit's p99 ({p99:.3f} ms)", 3, "hop_1", "p99", of=p99)
    at_most("hop at 256 sessions, p99, ms", 25, "hop_256", "p99")
    at_most("hop at a paced 1,000 steps/s, p50, ms", 1.5, "hop_paced", "p50")
    at_most("hop at a paced 1,000 steps/s, p99, ms", 5, "hop_paced", "p99")
    at_most("pick-up by an idle worker, p50, ms", 2, "pick_up", "p50")
    at_most("pick-up by an idle worker, p99, ms", 5, "pick_up", "p99")
    at_most("idle worker, transactions/s", 0.1, "idle_tx_per_s")
    at_most("transactions per step at saturation", 0.05, "tx_per_step")
    return "\n".join(lines)


def kept(found: dict[str, Any]) -> str:
    """Return what each engine keeps of a step, and its versions."""
    return "\n".join(
        f"- **{name}** keeps {engine['keeps']}. "
        + ", ".join(f"{package} {version}" for package, version in engine["versions"].items())
        for name, engine in found["engines"].items()
    )


def chart(found: dict[str, Any]) -> str:
    """Return steps a second as bars, in SVG; the figures are its text, too."""
    rates = [
        (name, rate)
        for name, engine in _fastest_first(found["engines"])
        if (rate := figure(engine, "steps_per_s"))
    ]
    longest, row, left, width = max(rate for _, rate in rates), 30, 120, 480
    said = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates)
    cores = escape(found["machine"].partition(",")[0])
    height = row * len(rates) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="14">',
        f"<title>Durable steps a second: {escape(said)}</title>",
        "<style>text{fill:#1f2328}.bar{fill:#8c959f}.ours{fill:#0969da}.limit{fill:#d0d7de}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.limit{fill:#484f58}}</style>",
    ]
    for n, (name, rate) in enumerate(rates):
        kind = "ours" if name in {OURS, FULL} else "limit" if name == LIMIT else "bar"
        top, length = n * row + 8, max(1.0, rate / longest * width)
        parts += [
            f'<text x="{left - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{left}" y="{top}" width="{length:.1f}" height="20" rx="3"/>',
            f'<text x="{left + length + 8:.1f}" y="{top + 15}">{rate:,.0f}</text>',
        ]
    parts.append(f'<text x="{left}" y="{height - 8}">durable steps a second, {cores}</text></svg>')
    return "\n".join(parts) + "\n"


def section(found: dict[str, Any], picture: str) -> str:
    """Return what the page says of a run."""
    runs = len(next(iter(found["engines"].values()))["runs"])
    bare = found["bare"]
    return "\n\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}, {found['machine']}. Median of {runs} runs each, in "
            f"turn (idle, and a peer's pace: one); {found['sessions']:,} sessions of 15 steps in a "
            f"rate run, {found['ours']:,} for ours and the prototype. The bare durable commit in "
            f"between: {bare['p50']:.3f} ms (p50), {bare['p99']:.3f} ms (p99), N {bare['n']:,}.",
            f"![Durable steps a second]({picture})",
            table(found),
            targets(found),
            kept(found),
        ]
    )


def write(found: dict[str, Any], page: Path) -> None:
    """Write the chart beside the page, and the run between the page's marks.

    Raises:
        SystemExit: the page has no marks.
    """
    before, begin, rest = page.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise SystemExit(f"{page} has no place for the figures: {_BEGIN} ... {_END}")
    picture = page.with_suffix(".svg")
    picture.write_text(chart(found))
    page.write_text(f"{before}{_BEGIN}\n{section(found, picture.name)}\n{_END}{after}")


def _fastest_first(engines: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(engines.items(), key=lambda item: -(figure(item[1], "steps_per_s") or 0))


def _cell(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)
