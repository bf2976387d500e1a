from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ekiden.core.json_changes import Change, compare

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=3), one, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_a_value_does_not_differ_from_itself(value: Any):
    assert compare(value, value) == []


@given(JSON, JSON)
def test_nothing_differs_only_where_nothing_does(old: Any, new: Any):
    assert bool(compare(old, new)) == (repr(old) != repr(new) and not _same(old, new))


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[k], new[k]) for k in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(_same(a, b) for a, b in zip(old, new, strict=True))
    return type(old) is type(new) and old == new


def test_what_was_put_in_front_of_a_list_is_one_line():
    assert compare(["b", "c"], ["a", "b", "c"]) == [Change(op="add", path="/0", new="a")]


def test_a_changed_field_of_one_element_names_that_field():
    old, new = [{"t": "a"}, {"t": "b", "n": 1}], [{"t": "a"}, {"t": "b", "n": 2}]
    assert compare(old, new) == [Change(op="replace", path="/1/n", old=1, new=2)]


def test_true_is_not_one():
    assert compare(1, True) == [Change(op="replace", path="", old=1, new=True)]


def test_a_path_is_a_json_pointer():
    assert compare({"a/b~c": 1}, {})[0].path == "/a~1b~0c"
