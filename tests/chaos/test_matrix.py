"""Cells of the matrix with real processes: one that passes, and one that must not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.failpoints import Cell
from chaos.house import Site
from chaos.judge import MUST_BE_NONE
from chaos.matrix import run_cell

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(seed=5, settings={"fsync": "off"}) as site:
        site.provider.control(piece_s=0.004)
        yield site


async def test_a_worker_dies_at_its_failpoint_and_another_one_finishes(site: Site) -> None:
    result = await run_cell(site, Cell(failpoint="call.stored", step="EXECUTE", phase=1))
    assert result["complaints"] == []
    assert result["passed"]
    judged = result["judged"]
    assert judged["sessions"] == judged["completed"] == 2
    assert judged["outputs_checked"] == 6
    assert judged["acknowledged"] == 24
    assert judged["attempts_crashed"] >= 1
    assert judged["invariants_examined"] > 0
    assert set(MUST_BE_NONE) <= set(judged["violations"])


async def test_a_failpoint_that_is_never_reached_is_a_failure(site: Site) -> None:
    nowhere = Cell(failpoint="call.before", step="EXECUTE", phase=2)  # a phase without EXECUTE
    result = await run_cell(site, nowhere)
    assert not result["reached"]
    assert not result["passed"]
    assert "was not reached" in result["complaints"][0]
