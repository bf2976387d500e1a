"""The short fault suite, whole: what ``make chaos-short`` runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = 1


@pytest.mark.alone
@pytest.mark.timeout(420)
def test_nothing_is_lost_in_the_short_fault_suite(tmp_path: Path) -> None:
    figures = tmp_path / "chaos.json"
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--short", "--seed", str(SEED), "--json", str(figures)],
        check=False,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": "/var/tmp"},  # on a real disk: fsync is on, and takes its time
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    found = json.loads(figures.read_text())
    assert found["seed"] == SEED
    assert found["sessions"]["COMPLETED"] >= 60
    assert not {name: n for name, n in found["violations"].items() if n}
