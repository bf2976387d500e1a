"""The mutants still fit the code that they break."""

from __future__ import annotations

from pathlib import Path

import pytest

import ekiden
from chaos.mutants import MUTANTS

SOURCES = Path(ekiden.__file__).parent


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_takes_out_is_there_once(name: str) -> None:
    text = (SOURCES / MUTANTS[name].file).read_text()
    assert [text.count(old) for old, _ in MUTANTS[name].without] == [1] * len(MUTANTS[name].without)
