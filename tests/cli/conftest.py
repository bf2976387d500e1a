from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.answering import KEY, says
from tests.cli.program import Program
from tests.providers.fake_server import FakeServer


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


@pytest.fixture
async def model() -> AsyncIterator[FakeServer]:
    """A model that says "apple", whatever it is asked."""
    async with FakeServer() as server:
        server.reply = says("apple")
        yield server


@pytest.fixture
def asking(program: Program, model: FakeServer) -> Program:
    """The real program, which asks that model."""
    return program.but(EKIDEN_MODEL="openai:tiny", OPENAI_BASE_URL=model.url, OPENAI_API_KEY=KEY)
