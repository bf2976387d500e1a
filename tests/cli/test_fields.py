"""The input of a flow out of options."""

from __future__ import annotations

from typing import Any

import pytest

from ekiden.cli.fields import read_input
from tests.cli.toy import ToyInput

SCHEMA = ToyInput.model_json_schema()


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--numbers", "1"], ["1"]),
        (["--numbers", "1", "--numbers", "2", "--numbers=3"], ["1", "2", "3"]),
        (["--numbers", "[1, 2]"], [1, 2]),
        (["--numbers", "[1, 2]", "--numbers", "3"], [1, 2, "3"]),
    ],
)
def test_a_list_is_the_option_again_or_json(words: list[str], numbers: list[Any]):
    given = read_input(["--name", "x", *words], SCHEMA, text=None, file=None)
    assert given == {"name": "x", "numbers": numbers}
    ToyInput.model_validate(given)


def test_options_win_over_the_json():
    given = read_input(["--name", "b"], SCHEMA, text='{"name": "a", "mood": "good"}', file=None)
    assert given == {"name": "b", "mood": "good"}
