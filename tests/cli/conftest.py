from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def program(database: str, tmp_path: Path, home: Path) -> Program:
    """The real program, on a database of the test's own."""
    return Program(tmp_path, EKIDEN_HOME=str(home), DATABASE_URL=database)


@pytest.fixture
def alone(tmp_path: Path, home: Path) -> Program:
    """The real program with nothing set: it brings its own database."""
    return Program(tmp_path, EKIDEN_HOME=str(home))
