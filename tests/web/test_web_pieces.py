"""The pieces that pages are made of, by themselves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiden import schemas
from ekiden.api.limits import parse_json, unstorable_text
from ekiden.api.problems import _OURS, Refusal
from ekiden.core.model import Budget
from ekiden.core.records import ReviewLine
from ekiden.errors import InputInvalid
from ekiden.schemas import check
from ekiden.store.pages import AttemptRow, RecentTask, TaskRow
from ekiden.web.changes import changes
from ekiden.web.charts import throughput
from ekiden.web.editing import Group, Leaf, edited, form_of
from ekiden.web.forms import fields_of, read_form
from ekiden.web.options import read_budget
from ekiden.web.seal import LOGIN_SECONDS, Seal
from ekiden.web.session_view import readable
from ekiden.web.shape import Part, shape
from ekiden.web.texts import LANGUAGES, Speech, load_texts
from ekiden.web.timeline import WIDTH, timeline
from ekiden.web.visible import MOST, folded, plain, visible
from ekiden.web.weights import weighted_length
from ekiden.web.words import told_in

EN, JA = Speech("en"), Speech("ja")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


# -- texts -----------------------------------------------------------------------------------------


def source_files() -> list[tuple[str, str]]:
    web = resources.files("ekiden.web")
    folders = (web, web / "templates", web / "static")
    return [
        (f.name, f.read_text("utf-8"))
        for folder in folders
        for f in folder.iterdir()
        if f.name.endswith((".py", ".html", ".js"))
    ]


def test_every_text_is_there_in_every_language_with_the_same_blanks():
    for key, said in load_texts().items():
        assert set(said) == set(LANGUAGES), key
        blanks = {code: set(re.findall(r"{(\w+)}", text)) for code, text in said.items()}
        assert blanks["en"] == blanks["ja"], key


def test_every_text_that_is_asked_for_by_name_is_there():
    asked = {
        (name, key)
        for name, text in source_files()
        for key in re.findall(r"""\bt\(\s*["']([a-z-]+\.[\w-]*\w)["']""", text)
    }
    assert len(asked) > 150
    assert {(n, k) for n, k in asked if k not in load_texts()} == set()


# -- what is wrong with an input -------------------------------------------------------------------

UNFIT: list[tuple[dict[str, Any], object]] = [
    ({"required": ["a"]}, {}),
    ({"additionalProperties": False}, {"a": 1}),
    ({"enum": ["甲", "乙\n丙"]}, 1),
    ({"type": "string"}, 1), ({"type": "integer"}, ""), ({"type": "number"}, ""),
    ({"type": "boolean"}, ""), ({"type": "array"}, ""), ({"type": "object"}, ""),
    ({"type": "null"}, ""),
    ({"type": ["integer", "boolean", "null"]}, ""), ({"anyOf": [{"type": "string"}]}, 1),
    ({"anyOf": [{"minimum": 2}, {"minimum": 3}]}, 1),
    ({"minLength": 2}, "あ"), ({"maxLength": 0}, "あ"), ({"minItems": 1}, []),
    ({"maxItems": 0}, [1]), ({"minimum": 2}, 1), ({"maximum": 2}, 3),
    ({"exclusiveMinimum": 2}, 2), ({"exclusiveMaximum": 2}, 2), ({"multipleOf": 2}, 3),
    ({"pattern": "^い"}, "あ"), ({"const": "甲"}, "乙"), ({"minProperties": 1}, {}),
    ({"maxProperties": 0}, {"a": 1}), ({"not": {}}, 1),
]  # fmt: skip


def test_every_sentence_about_an_input_is_told_in_the_readers_language():
    sentences = {
        "is a reserved name", "is required to reject an output", "is no version of this output",
        "is no time", unstorable_text("\0") or "", unstorable_text("\ud800") or "",
    }  # fmt: skip
    for body in (b"[1e999]", b'["\\u0000"]', b'{"\\u0000": 1}'):
        with pytest.raises(Refusal) as refused:
            parse_json(body)
        sentences |= {message for _, message in refused.value.fields}
    for schema, value in UNFIT:
        with pytest.raises(InputInvalid) as error:
            check(schema, value)
        sentences |= {message for _, message in error.value.problems}
    assert {rule for schema, _ in UNFIT for rule in schema} >= set(schemas._RULES)
    assert {f"must be {name}" for name in schemas.TYPES.values()} <= sentences
    for sentence in sentences:
        assert not re.search("[A-Za-z]", told_in(JA, sentence).replace("「not」", "")), sentence


def test_a_type_is_told_by_its_own_name():
    assert told_in(JA, "must be a whole number") == "整数で入力してください"
    assert told_in(JA, "must be a number") == "数字で入力してください"
    assert told_in(JA, "must be text or null") == "文字か空で入力してください"
    for name in schemas.TYPES.values():
        assert told_in(EN, f"must be {name}") == f"must be {name}"


def test_every_kind_of_refusal_has_a_title():
    kinds = {kind for _, _, kind in _OURS}
    for package in ("ekiden.api", "ekiden.web"):
        for file in resources.files(package).iterdir():
            if file.name.endswith(".py"):
                kinds |= set(re.findall(r'Refusal\(\s*\d+,\s*"([a-z-]+)"', file.read_text()))
    assert len(kinds) > 15
    assert {f"refusal.{kind}" for kind in kinds} - set(load_texts()) == set()


# -- hostile text ----------------------------------------------------------------------------------


@given(st.text())
def test_nothing_in_a_text_becomes_markup_and_nothing_gets_lost(text: str):
    html = str(visible(text))
    bare = re.sub(r'<span class="hidden-char" title="[^"<>]*">(U\+[0-9A-F]{4,6})</span>', "", html)
    assert "<" not in bare
    assert ">" not in bare
    assert '"' not in bare
    seen = "".join(c for c in text if plain(c) == c or c == "\u200d")
    unescaped = bare
    for sign, meant in (
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#34;", '"'),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ):
        unescaped = unescaped.replace(sign, meant)
    assert len(unescaped) <= len(seen)
    assert unescaped.replace("\u200d", "") == seen.replace("\u200d", "")


def test_direction_marks_are_shown_and_families_are_left_together():
    assert str(visible("a\u202eb")) == (
        'a<span class="hidden-char" title="U+202E RIGHT-TO-LEFT OVERRIDE">U+202E</span>b'
    )
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert str(visible(family)) == family
    assert "U+200D" in visible("pay\u200dpal")
    assert plain("x\u2066y") == "x[U+2066]y"


def test_a_long_text_is_folded_and_a_huge_one_is_cut():
    head, tail, length = folded("word " * 100)
    assert (tail, length) == (None, 500)
    head, tail, length = folded("word " * 1_000_000)
    assert tail is not None
    assert len(head) + len(tail) <= MOST
    assert length == 5_000_000


# -- the length of a post --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", 0),
        ("hello", 5),
        ("日本語", 6),
        ("caf\u00e9 cafe\u0301", 9),  # NFC first
        ("\u2018quoted\u2019", 8),
        ("https://example.com/a/very/long/address?with=many&parts=indeed", 23),
        ("見て https://example.com/路", 2 + 2 + 1 + 23 + 2),
        ("\U0001f600", 2),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", 2),
        ("\U0001f44d\U0001f3fd", 2),
        ("\U0001f1ef\U0001f1f5", 2),
        ("1\ufe0f\u20e3", 2),
        ("\u2764\ufe0f", 2),
        ("a" * 280, 280),
        ("駅" * 140, 280),
    ],
)
def test_a_post_is_as_long_as_x_counts_it(text: str, length: int):
    assert weighted_length(text) == length


# -- shapes ----------------------------------------------------------------------------------------


def kinds(part: Part) -> set[str]:
    inner = [p for p in part.items if isinstance(p, Part)] + [p for _, p in part.rows]
    return {part.kind}.union(*(kinds(p) for p in inner))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["text", "hashtags", "id", "url", "title", "x"]), inner)
    ),
    max_leaves=40,
)


@given(JSON)
def test_any_json_has_a_shape_and_a_page(output: object):
    from ekiden.web.rendering import _environment

    part = shape(output, JA)
    assert kinds(part) <= {
        "text", "value", "refers", "nothing", "tags", "bullets", "pairs", "sources", "facts",
        "cards", "post", "rest",
    }  # fmt: skip
    module = _environment().get_template("_macros.html").module
    assert module.part(part, JA)  # type: ignore[attr-defined]


def test_only_web_addresses_may_be_followed():
    def followed(url: str) -> bool:
        (source,) = shape([{"url": url, "title": "t"}], EN).items
        return bool(source["link"])

    assert all(followed(url) for url in ("https://a.example", "HTTP://a"))
    others = "javascript:x", "file:///etc", "//a.example", "data:text/html,x", "", " https://a"
    assert not any(followed(url) for url in others)


def test_a_wide_and_deep_output_is_bounded():
    deep: object = "x"
    for _ in range(200):
        deep = {"in": deep}
    assert "rest" in kinds(shape(deep, EN))
    assert "rest" in kinds(shape([{"n": i, "m": i} for i in range(5000)], EN))


# -- forms -----------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "properties": {
        "word": {"type": "string", "minLength": 1},
        "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "tone": {"$ref": "#/$defs/Tone"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "sure": {"type": "boolean", "default": True},
        "more": {"type": "object"},
    },
    "required": ["word"],
    "$defs": {"Tone": {"enum": ["calm", "loud"]}},
}


def test_a_schema_makes_a_field_of_each_kind():
    found = {f.name: f.kind for f in fields_of(SCHEMA, EN)}
    assert found == {
        "f.word": "text", "f.count": "number", "f.tone": "choice", "f.tags": "lines",
        "f.sure": "flag", "f.more": "json",
    }  # fmt: skip


def test_a_list_says_that_it_is_one_a_line_also_where_nothing_describes_it():
    from ekiden.web.rendering import _environment

    fields = _environment().get_template("_fields.html").module
    described = {
        **SCHEMA,
        "properties": {"tags": {**SCHEMA["properties"]["tags"], "description": "Words."}},
    }
    for schema, said in ((SCHEMA, "One a line."), (described, "Words. One a line.")):
        (tags,) = (f for f in fields_of(schema, EN) if f.name == "f.tags")
        shown = str(fields.field(tags, EN))  # type: ignore[attr-defined]
        assert f'<p class="help" id="f-tags-help">{said}</p>' in shown
        assert 'aria-describedby="f-tags-help"' in shown
    (word,) = (f for f in fields_of(SCHEMA, EN) if f.name == "f.word")
    assert "help" not in str(fields.field(word, EN))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("cost", "tokens", "budget", "wrong"),
    [
        ("", "", Budget(), []),
        (" 2.50 ", "20,000", Budget(max_cost_usd=Decimal("2.50"), max_tokens=20_000), []),
        ("1250", "1,234,567", Budget(max_cost_usd=Decimal(1250), max_tokens=1_234_567), []),
        ("1,250", "9", Budget(max_tokens=9), [("max_cost_usd", "form.not-an-amount")]),
        ("9", "1,25", Budget(max_cost_usd=Decimal(9)), [("max_tokens", "form.not-whole")]),
        ("9", "1,0000", Budget(max_cost_usd=Decimal(9)), [("max_tokens", "form.not-whole")]),
        ("9", "1.5", Budget(max_cost_usd=Decimal(9)), [("max_tokens", "form.not-whole")]),
        ("Infinity", "-1", Budget(), [("max_cost_usd", "form.not-an-amount"),
                                      ("max_tokens", "must be at least 0")]),
    ],
)  # fmt: skip
def test_a_budget_is_read_field_by_field(
    cost: str, tokens: str, budget: Budget, wrong: list[tuple[str, str]]
):
    problems: list[tuple[str, str]] = []
    assert read_budget({"max_cost_usd": cost, "max_tokens": tokens}, problems) == budget
    assert problems == wrong


def test_a_form_becomes_json_and_what_cannot_be_read_is_named():
    value, problems = read_form(
        SCHEMA,
        {"f.word": "a", "f.count": "12", "f.tone": "calm", "f.tags": "x\n\n y ", "f.more": "{1"},
    )
    assert value == {"word": "a", "count": 12, "tone": "calm", "tags": ["x", "y"], "sure": False}
    assert problems == [("more", "form.not-json")]
    for bad in ("NaN", "1e999", "twelve", "[", "99999999999999999999"):
        assert read_form(SCHEMA, {"f.count": bad})[1] == [("count", "form.not-a-number")], bad


OUTPUT = {
    "id": "t1",
    "title": "One",
    "score": 12345678901234567890123,
    "posts": [{"text": "a\nb", "tags": ["#a", "#b"], "sources": [{"url": "u"}], "on": True}],
    "a/b~c": "odd",
}


def leaves(group: Group | None) -> dict[str, Leaf]:
    assert group is not None
    found: dict[str, Leaf] = {}
    for part in group.parts:
        found |= {part.name: part} if isinstance(part, Leaf) else leaves(part)
    return found


def sent(group: Group | None) -> dict[str, str]:
    """What a browser sends of a form that nobody touched."""
    form: dict[str, str] = {}
    for name, leaf in leaves(group).items():
        if leaf.kind == "flag":
            form[f"{name}?"] = "1"
            if not leaf.value:
                continue
        form[name] = leaf.value
    return form


def test_an_output_that_nobody_touched_stays_as_it_is():
    assert edited(OUTPUT, sent(form_of(OUTPUT, None, EN))) == (OUTPUT, [])


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_any_output_that_nobody_touched_stays_as_it_is(output: dict[str, object]):
    group = form_of(output, None, EN)
    if group is not None and "\r" not in str(sent(group)):
        assert edited(output, sent(group))[0] == output


def test_what_was_typed_is_in_the_output_and_nothing_else_changes():
    form = sent(form_of(OUTPUT, None, EN))
    assert "/id" not in form
    assert not any("sources" in name for name in form)
    del form["/posts/0/on"]
    new, problems = edited(
        OUTPUT,
        {
            **form,
            "/posts/0/text": "c",
            "/posts/0/tags": "#z\n",
            "/a~1b~0c": "even",
            "/posts/9": "x",
        },
    )
    assert problems == []
    assert new == {
        **OUTPUT,
        "a/b~c": "even",
        "posts": [{**OUTPUT["posts"][0], "text": "c", "tags": ["#z"], "on": False}],  # type: ignore[dict-item,index]
    }
    assert edited(OUTPUT, {"/score": "many"})[1] == [("score", "form.not-a-number")]


def test_differences_are_told_word_by_word_and_escaped():
    found, more = changes(
        {"posts": [{"text": "pour <b>fast</b> now"}]},
        {"posts": [{"text": "pour <b>slow</b> now"}]},
        EN,
    )
    assert more == 0
    assert found[0].where == "Posts › 1 › Text"
    assert found[0].html == "pour &lt;b&gt;<del>fast</del><ins>slow</ins>&lt;/b&gt; now"


# -- text as it is written -------------------------------------------------------------------------


def test_json_is_read_along_without_its_signs_from_any_beginning():
    whole = '{"why_now": "Say \\"hi\\".", "list": ["a, b", "c"], "n": 3}'
    assert readable(whole) == 'why now: Say "hi".\nlist: a, b\nc\nn: 3'
    for length in range(len(whole)):
        readable(whole[:length])
    assert readable("No JSON at all: {") == "No JSON at all: {"


# -- logins ----------------------------------------------------------------------------------------


def test_a_login_holds_until_it_ends_and_for_its_key_only():
    seal, other = Seal("one"), Seal("two")
    token = seal.login(1000)
    login = seal.login_of(token, 1000)
    assert login is not None
    assert login.ends == 1000 + LOGIN_SECONDS
    assert login.name != (seal.login_of(seal.login(1000), 1000) or login).name
    assert seal.login_of(token, 1000 + LOGIN_SECONDS - 1) == login
    assert seal.login_of(token, 1000 + LOGIN_SECONDS) is None
    assert other.login_of(token, 1000) is None
    assert Seal("").login_of(Seal("").login(1000), 1000) is None
    assert not Seal("").is_key("")
    assert seal.is_key("one")
    assert not seal.is_key("two")
    assert not seal.is_form_token(seal.form_token(""), "")


# -- time ------------------------------------------------------------------------------------------


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def task(number: int, step: str, start: float, end: float | None, **more: object) -> TaskRow:
    values = {
        "id": number, "phase": 1, "generation": 1, "step": step, "item": 0, "queued": False,
        "status": "RUNNING" if end is None else "COMPLETED", "awaiting": False, "tolerated": False,
        "attempt": 1, "available_at": at(start), "worker_id": 1, "error": None,
        "created_at": at(start), "started_at": at(start),
        "completed_at": None if end is None else at(end), **more,
    }  # fmt: skip
    return TaskRow(**values)  # type: ignore[arg-type]


def attempt(task_id: int, number: int, start: float, end: float, outcome: str) -> AttemptRow:
    return AttemptRow(
        task_id=task_id, number=number, outcome=outcome, started_at=at(start), finished_at=at(end),
        retry_at=None,
    )  # fmt: skip


def test_the_time_line_keeps_order_and_a_persons_hours_do_not_squeeze_seconds():
    tasks = [
        task(1, "THINK", 0, 4, attempt=2),
        task(2, "EXECUTE", 4, 5),
        task(3, "EXECUTE", 4, 9, item=1),
        task(4, "INTEGRATE", 9, 10),
        task(5, "THINK", 7210, None, phase=2),
    ]
    attempts = [
        attempt(1, 1, 0, 1, "RETRIED"), attempt(1, 2, 3, 4, "COMPLETED"),
        attempt(2, 1, 4, 5, "COMPLETED"), attempt(3, 1, 4, 9, "COMPLETED"),
        attempt(4, 1, 9, 10, "COMPLETED"),
    ]  # fmt: skip
    review = ReviewLine(
        id=1, phase=1, generation=1, step=None, verb="approve", revision_id=1, actor="me",
        comment=None, passes=True, waited=timedelta(seconds=7200), created_at=at(7210),
    )  # fmt: skip
    line = timeline(tasks, attempts, [], [review], waiting=None, ended=None, now=at(7215))
    assert line is not None
    assert [[b.kind for b in r.bars] for r in line.rows] == [
        ["failed", "retry", "run"], ["run"], ["run"], ["run"], ["running"],
    ]  # fmt: skip
    assert [r.critical for r in line.rows] == [True, False, True, True, False]
    (wait,) = line.waits
    assert (wait.seconds, line.person, line.total) == (7200, 7200, 7215)
    assert wait.width < WIDTH / 10
    assert all(b.left >= 0 and b.left + b.width <= WIDTH + 1 for r in line.rows for b in r.bars)
    lefts = [
        b.left for r in (line.rows[0], line.rows[2], line.rows[3], line.rows[4]) for b in r.bars
    ]
    assert lefts == sorted(lefts)
    assert line.rows[4].bars[0].width > 200  # five seconds of fifteen
    assert timeline([], [], [], [], waiting=None, ended=None, now=NOW) is None


def test_an_attempt_that_was_given_back_is_not_drawn_as_failed():
    tasks = [task(1, "THINK", 0, 4, attempt=2)]
    attempts = [attempt(1, 1, 0, 1, "RELEASED"), attempt(1, 2, 3, 4, "COMPLETED")]
    line = timeline(tasks, attempts, [], [], waiting=None, ended=None, now=at(5))
    assert line is not None
    assert [[b.kind for b in r.bars] for r in line.rows] == [["run", "retry", "run"]]


def test_an_edit_and_the_approval_after_it_share_one_wait():
    tasks = [task(1, "THINK", 0, 10)]
    reviews = [
        ReviewLine(
            id=n, phase=1, generation=1, step=None, verb=verb, revision_id=n, actor="me",
            comment=None, passes=True, waited=timedelta(seconds=end - 10), created_at=at(end),
        )
        for n, (verb, end) in enumerate((("edit", 3610), ("edit", 5410)))
    ]  # fmt: skip
    line = timeline(tasks, [], [], reviews, waiting=(1, at(10)), ended=None, now=at(7210))
    assert line is not None
    assert [w.seconds for w in line.waits] == [3600, 1800, 1800]
    assert line.person == 7200


def test_what_ended_after_the_clock_was_read_is_drawn_as_of_now():
    task = RecentTask(status="COMPLETED", ended_at=NOW + timedelta(milliseconds=3))
    chart = throughput([task], NOW)
    assert chart is not None
    assert [b.completed for b in chart.bars] == [1]
