"""Loads the named SQL of ``queries/*.sql``. There is no SQL in Python.

A file is a sequence of ``-- name: some_name``, one or more comment lines that say what it does, and
the statement.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^-- name: (\w+)\n((?:--.*\n)+)", re.MULTILINE)


@cache
def load_queries() -> dict[str, str]:
    """Return every statement by its name."""
    found: dict[str, str] = {}
    folder = resources.files("ekiden.store") / "queries"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".sql"):
            continue
        parts = _HEADER.split(file.read_text("utf-8"))
        for name, _comment, statement in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            if name in found:
                raise ValueError(f"{file.name}: the query {name} is defined twice")
            found[name] = statement.strip().rstrip(";")
    return found


def sql(name: str) -> str:
    """Return the statement with this name."""
    return load_queries()[name]
