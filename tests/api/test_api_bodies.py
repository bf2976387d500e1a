from __future__ import annotations

import json

import httpx2
import pytest

from ekiden.api.limits import MAX_DEPTH, parse_json
from ekiden.api.problems import Refusal

JSON = {"Content-Type": "application/json"}


UNKEEPABLE = [
    (b"{", 400, None),
    (b"{'theme': 1}", 400, None),
    (b'{"theme": NaN}', 400, None),
    (b'{"theme": -Infinity}', 400, None),
    (b'{"theme": "a\x00b"}', 400, None),
    (b'{"theme": "\xff"}', 400, None),
    (b'\xef\xbb\xbf{"theme": "t"}', 400, None),
    ('{"theme": "t"}'.encode("utf-16"), 400, None),
    (rb'{"theme": "a\u0000b"}', 422, "theme"),
    (rb'{"theme": "\ud800"}', 422, "theme"),
    (rb'{"the\u0000me": "t"}', 422, r"the\u0000me"),
    (rb'{"the\udfffme": "t"}', 422, r"the\udfffme"),
    (b'{"input": {"tags": ["a", 99999999999999999999]}}', 422, "input.tags.1"),
    (b'{"count": 9223372036854775808}', 422, "count"),
    (b'{"count": -9223372036854775809}', 422, "count"),
    (b'{"count": 1e999}', 422, "count"),
    (b'{"count": ' + b"9" * 100_000 + b"}", 422, "count"),
    (b'{"a":' * 70 + b"1" + b"}" * 70, 422, None),
    (b"[" * 100_000, 422, None),
    (b'{"input": ' + b"[" * 500 + b"]" * 500 + b"}", 422, None),
    (b"", 422, ""),
    (b"null", 422, ""),
    (b"  ", 422, ""),
]


async def test_what_cannot_be_kept_is_refused_with_its_place(client: httpx2.AsyncClient, base: str):
    for body, status, field in UNKEEPABLE:
        answer = await client.post(f"{base}/create", content=body, headers=JSON)
        assert answer.status_code == status, answer.text
        if field is not None:
            assert [e["field"] for e in answer.json()["errors"]] == [field]


def test_what_can_be_kept_comes_through_as_it_was():
    body = r'{"a": "\ud83c\udfc3 駅伝", "b": [9223372036854775807, -1.5e300, true, null, ""]}'
    assert parse_json(body.encode()) == {
        "a": "\U0001f3c3 駅伝",
        "b": [2**63 - 1, -1.5e300, True, None, ""],
    }


def test_depth_is_bounded_where_it_says():
    def nested(levels: int) -> bytes:
        return b"[" * levels + b"]" * levels

    parse_json(nested(MAX_DEPTH))
    with pytest.raises(Refusal) as refused:
        parse_json(nested(MAX_DEPTH + 1))
    assert refused.value.status == 422


async def test_a_large_field_is_refused_without_being_repeated(
    client: httpx2.AsyncClient, base: str
):
    answer = await client.post(f"{base}/create", json={"theme": "x" * 900_000})
    assert answer.status_code == 422
    assert len(answer.content) < 1000


async def test_text_with_a_nul_is_refused_wherever_it_stands(client: httpx2.AsyncClient, base: str):
    made = (await client.post(f"{base}/create", json={"theme": "t"})).json()["sessionId"]
    for path, body, field in (
        ("create", {"theme": "t", "title": "\0"}, "title"),
        (f"{made}/pause", {"actor": "a\0"}, "actor"),
        (f"{made}/proceed-next-phase", {"comment": "\ud83d"}, "comment"),
        (
            f"{made}/continue-async",
            {"taskId": 1, "attempt": 1, "result": [{"x": "\0"}]},
            "result.0.x",
        ),
    ):
        sent = json.dumps(body).encode()
        answer = await client.post(f"{base}/{path}", content=sent, headers=JSON)
        assert answer.status_code == 422, path
        assert [e["field"] for e in answer.json()["errors"]] == [field]
