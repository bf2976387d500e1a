"""The bench's page says what was measured, and "missed" where a target was."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import report


def run(steps_per_s: int, **more: Any) -> dict[str, Any]:
    return {"steps_per_s": steps_per_s, "hop_1": {"p50": 0.15, "p99": 0.6, "n": 10}, **more}


def found(**engines: list[dict[str, Any]]) -> dict[str, Any]:
    ours = run(
        30_000,
        hop_256={"p50": 8.0, "p99": 20.0, "n": 10},
        hop_paced={"p50": 0.8, "p99": 2.0, "n": 10},
        pick_up={"p50": 1.0, "p99": 4.0, "n": 10},
        idle_tx_per_s=0.05,
        tx_per_step=0.04,
    )
    seen = {
        "ekiden": [ours],
        "ekiden-full": [run(29_000)],
        "prototype": [run(50_000)],
        "absurd": [run(2_000)],
        "celery": [run(9_000)],
        **engines,
    }
    return {
        "machine": "2 cores",
        "sessions": 64,
        "ours": 256,
        "bare": {"p50": 0.1, "p99": 0.3, "n": 1500},
        "engines": {
            name: {"keeps": "results", "versions": {name: "1.2"}, "runs": runs}
            for name, runs in seen.items()
        },
    }


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_engines_are_listed_fastest_first_beside_how_much_faster_we_are():
    seen = rows(report.table(found()))
    assert [row[0] for row in seen] == ["prototype", "ekiden", "ekiden-full", "celery", "absurd"]
    assert {row[0]: row[-1] for row in seen} == {
        "prototype": "0.6 ×",
        "ekiden": "",
        "ekiden-full": "1.0 ×",
        "celery": "3.3 ×",
        "absurd": "15.0 ×",
    }


def test_a_figure_is_the_median_of_the_runs_and_a_dash_where_there_is_none():
    seen = rows(report.table(found(absurd=[run(1_000), run(9_000), run(2_500)])))
    (absurd,) = (row for row in seen if row[0] == "absurd")
    assert absurd[1] == "2,500"
    assert absurd[4] == "–"


def test_what_reaches_all_targets_has_no_miss():
    seen = rows(report.targets(found()))
    assert len(seen) == 12
    assert [row for row in seen if row[-1] != "✓"] == []


@pytest.mark.parametrize(
    ("engine", "change", "missed"),
    [
        ("ekiden", {"steps_per_s": 19_000}, {"best peer", "prototype", "1,000,000"}),
        ("absurd", {"steps_per_s": 3_100}, {"best peer"}),
        ("ekiden-full", {"steps_per_s": 28_000}, {"1,000,000"}),
        (
            "ekiden",
            {"hop_1": {"p50": 0.16, "p99": 0.91, "n": 10}},
            {"session, p50", "session, p99"},
        ),
        ("ekiden", {"hop_256": {"p50": 8.0, "p99": 26.0, "n": 10}}, {"256 sessions"}),
        ("ekiden", {"idle_tx_per_s": 0.2}, {"idle worker, trans"}),
        ("ekiden", {"tx_per_step": 0.06}, {"transactions per step"}),
    ],
)
def test_a_target_that_is_not_reached_is_said_to_be_missed(
    engine: str, change: dict[str, Any], missed: set[str]
):
    seen = found()
    seen["engines"][engine]["runs"][0] |= change
    if "steps_per_s" in change and engine == "ekiden":
        seen["engines"]["ekiden-full"]["runs"][0] |= {"steps_per_s": 18_000}
    wrong = [row[0] for row in rows(report.targets(seen)) if row[-1] == "**missed**"]
    assert len(wrong) == len(missed)
    for part in missed:
        assert any(part in line for line in wrong), (part, wrong)


def test_a_peer_that_keeps_its_queue_elsewhere_is_not_the_one_to_beat():
    assert report.best_peer(found()["engines"]) == ("absurd", 2_000)


def test_the_page_keeps_what_stands_around_its_figures(tmp_path: Path):
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    report.write(found(), page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "![Durable steps a second](performance.svg)" in text
    picture = ElementTree.parse(tmp_path / "performance.svg")
    title = picture.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == (
        "Durable steps a second: prototype 50,000, ekiden 30,000, ekiden-full 29,000, "
        "celery 9,000, absurd 2,000"
    )


def test_a_page_without_a_place_for_figures_is_refused(tmp_path: Path):
    page = tmp_path / "performance.md"
    page.write_text("nothing here\n")
    with pytest.raises(SystemExit, match="no place for the figures"):
        report.write(found(), page)
    assert page.read_text() == "nothing here\n"
