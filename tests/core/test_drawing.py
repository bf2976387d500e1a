"""The drawing in ARCHITECTURE.md is the table in core/machine.py."""

from __future__ import annotations

import re
from pathlib import Path

from ekiden.core.machine import SESSION_TRANSITIONS, TASK_TRANSITIONS

TEXT = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")
DRAWINGS = [
    {(a, event, b) for a, b, event in re.findall(r"^    (\w+) --> (\w+): (\w+)$", part, re.M)}
    for part in re.findall(r"```mermaid\n(.*?)```", TEXT, re.DOTALL)
]


def test_the_drawings_are_the_tables() -> None:
    tables = [
        {(str(a), str(event), str(b)) for (a, event), b in table.items()}
        for table in (TASK_TRANSITIONS, SESSION_TRANSITIONS)
    ]
    assert tables == DRAWINGS
