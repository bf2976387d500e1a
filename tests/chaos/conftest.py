"""The scripted provider as a process, for the tests of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.house import Provider


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    running = Provider(tmp_path, seed=7)
    running.start()
    try:
        yield running
    finally:
        running.stop()
