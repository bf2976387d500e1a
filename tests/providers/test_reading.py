from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiden.errors import AnswerInvalid
from ekiden.providers.protocol import storable
from ekiden.providers.reading import StreamListener, read_body
from tests.providers.fake_server import chunk, completion, sse

TEXTS = st.lists(st.text(min_size=1), min_size=1, max_size=8)


def listen(body: bytes, *cuts: int) -> tuple[StreamListener, list[str]]:
    heard: list[str] = []
    listener = StreamListener(heard.append)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        listener.feed(body[start:end])
    listener.close()
    return listener, heard


@given(texts=TEXTS, cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_however_the_bytes_are_cut_the_pieces_add_up_to_the_text_that_is_read(texts, cuts):
    body = sse(*map(chunk, texts), chunk("", finish="stop"), done=True)
    listener, heard = listen(body, *cuts)
    assert "".join(heard) == storable("".join(read_body(body).text))
    assert "".join(heard) == storable("".join(texts))
    assert listener.parts.complete


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_and_never_crash(body):
    listen(body)
    try:
        read_body(body)
    except AnswerInvalid as error:
        assert error.message


def _dicts(inner: st.SearchStrategy) -> st.SearchStrategy:
    keys = ["choices", "delta", "message", "content", "usage", "error", "model", "finish_reason"]
    return st.dictionaries(st.sampled_from(keys), inner)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | _dicts(x)))
def test_any_json_is_read_or_refused_and_never_crashes(document):
    for body in (json.dumps(document).encode(), sse(json.dumps(document).encode())):
        listen(body)
        try:
            read_body(body)
        except AnswerInvalid as error:
            assert error.message


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_storable_is_utf_8_without_nul(text):
    safe = storable(text)
    assert "\0" not in safe
    assert safe.encode().decode() == safe
    assert storable(safe) == safe


def test_half_a_character_waits_for_its_other_half():
    first, second = "🏃".encode("utf-16-be")[:2], "🏃".encode("utf-16-be")[2:]
    halves = [half.decode("utf-16-be", "surrogatepass") for half in (first, second)]
    _, heard = listen(sse(*map(chunk, halves), done=True))
    assert heard == ["🏃"]


def test_comments_other_fields_and_windows_line_ends_are_passed_over():
    body = b": ping\r\nevent: message\r\nid: 1\r\ndata:" + chunk("hi") + b"\r\n\r\ndata: [DONE]"
    listener, heard = listen(body)
    assert (heard, listener.parts.done) == (["hi"], True)
    assert read_body(body).text == ["hi"]


def test_the_body_decides_and_not_its_content_type():
    stream = sse(chunk("a", finish="stop"))
    assert read_body(stream, "application/json").text == ["a"]
    assert read_body(completion("b"), "text/event-stream").text == ["b"]


def test_a_stream_without_its_end_is_no_answer_whatever_it_claims_to_be():
    for kind in ("application/json", "text/event-stream", ""):
        with pytest.raises(AnswerInvalid, match="ends before its end"):
            read_body(sse(chunk("half")), kind)


def test_a_byte_order_mark_takes_no_event_with_it():
    body = b"\xef\xbb\xbf" + sse(chunk("a"), chunk("b"), done=True)
    assert read_body(body).text == ["a", "b"]
    heard: list[str] = []
    listener = StreamListener(heard.append)
    listener.feed(body)
    listener.close()
    assert heard == ["a", "b"]


def test_an_event_nested_beyond_measure_does_not_stop_the_listener():
    listener = StreamListener(None)
    listener.feed(sse(b"[" * 100_000, chunk("a", finish="stop")))
    assert listener.close().text == ["a"]


def test_raw_control_characters_in_strings_are_tolerated():
    assert read_body(completion("a?b").replace(b"?", b"\0\n")).text == ["a\0\nb"]


def test_content_in_parts_is_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    body = json.dumps({"choices": [{"message": {"content": parts}}]}).encode()
    assert read_body(body).text == ["ab"]


def test_a_model_that_declines_is_quoted():
    body = json.dumps({"choices": [{"message": {"content": None, "refusal": "I will not"}}]})
    assert read_body(body.encode()).declined == "I will not"


def test_an_event_that_is_not_json_is_quoted():
    with pytest.raises(AnswerInvalid, match="half"):
        read_body(b'data: {"half\n\n')
    with pytest.raises(AnswerInvalid, match="error: kaput"):
        read_body(b'{"error": "kaput"}')


def test_nesting_without_end_is_refused():
    with pytest.raises(AnswerInvalid):
        read_body(b'{"a":' + b"[" * 200_000)
