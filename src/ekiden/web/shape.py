"""What a phase made, as parts that a page can show: found by its shape, not by its flow.

An object with texts is a card, a list of objects is cards side by side, a list of sources shows
where something was read, a text with hashtags is a post. What no rule knows is shown as a list of
named values. All of it is bounded; the raw JSON is one click away and has everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ekiden.web.texts import Speech
from ekiden.web.weights import LIMIT, weighted_length

MOST_PARTS = 600
MOST_DEPTH = 8
_HEADS = ("title", "name", "hook", "label", "headline", "query", "when", "question", "topic")
_COUNTED_BY_WEIGHT = "x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of an output; ``kind`` names the macro that shows it."""

    kind: (
        str  # text, value, refers, nothing, tags, bullets, pairs, sources, facts, cards, post, rest
    )
    text: str = ""
    items: list[Any] = field(default_factory=list)  # of bullets, tags, sources, cards
    rows: list[tuple[str, Part]] = field(default_factory=list)  # of facts: label and part
    title: str = ""
    mark: str = ""  # the id of a record, as others refer to it
    whole: str = ""  # of a post: as it is published
    count: int = 0  # of a post: its length as its platform counts it
    limit: int = 0  # of a post: the most it may have; 0 when that is not known


class _Budget:
    """How many parts may still be made."""

    def __init__(self) -> None:
        self.left = MOST_PARTS

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def shape(output: Any, t: Speech, names: dict[str, str] | None = None) -> Part:
    """Return the parts of an output.

    Args:
        output: JSON.
        t: the language of the labels.
        names: the titles of records by their ids, of all that the session has made.
    """
    return _Shaper(t, names or {}).part(output, "", "", 0)


def names_in(output: Any) -> Iterator[tuple[str, str]]:
    """Yield the ids of records in an output, each with the title of its record."""
    stack, looked = [output], 0
    while stack and looked < MOST_PARTS:
        value = stack.pop()
        looked += 1
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            mark, title = value.get("id"), _head(value)
            if isinstance(mark, str) and title:
                yield mark, value[title]
            stack.extend(v for v in value.values() if isinstance(v, dict | list))


def _is_pair(part: Part) -> bool:
    """Whether a record is a name with one short value, for which a card is too much."""
    short = all(inner.kind == "value" for _, inner in part.rows)
    return part.kind == "facts" and bool(part.title) and len(part.rows) <= 1 and short


def _head(record: dict[str, Any]) -> str:
    """Return the name of the field that names a record, or an empty text."""
    return next(
        (n for n in _HEADS if isinstance(record.get(n), str) and 0 < len(record[n]) <= 300), ""
    )


class _Shaper:
    def __init__(self, t: Speech, names: dict[str, str]) -> None:
        self._t = t
        self._names = names
        self._budget = _Budget()

    def part(self, value: Any, name: str, platform: str, depth: int) -> Part:
        if not self._budget.take() or depth > MOST_DEPTH:
            return Part(kind="rest")
        match value:
            case None:
                return Part(kind="value", text="–")
            case bool():
                return Part(kind="value", text=self._t("word.yes" if value else "word.no"))
            case str():
                return self._text(value, name)
            case list():
                return self._list(value, name, platform, depth)
            case dict():
                return self._record(value, platform, depth)
            case _:
                return Part(kind="value", text=str(value))

    def _text(self, text: str, name: str) -> Part:
        if name.endswith("_id") and text in self._names:
            return Part(kind="refers", text=self._names[text], mark=text)
        return Part(kind="text" if len(text) > 24 or "\n" in text else "value", text=text)

    def _list(self, items: list[Any], name: str, platform: str, depth: int) -> Part:
        if not items:
            empty = "output.no-sources" if name == "sources" else "output.nothing"
            return Part(kind="nothing", text=self._t(empty))
        if all(isinstance(i, dict) and isinstance(i.get("url"), str) for i in items):
            return Part(kind="sources", items=[_source(i) for i in items[:50]])
        if all(isinstance(i, str) and i.startswith("#") for i in items):
            return Part(kind="tags", items=items[:50])
        if all(isinstance(i, dict) for i in items):
            parts = [self.part(i, name, platform, depth + 1) for i in items]
            return Part(kind="pairs" if all(map(_is_pair, parts)) else "cards", items=parts)
        return Part(kind="bullets", items=[self.part(i, name, platform, depth + 1) for i in items])

    def _record(self, record: dict[str, Any], platform: str, depth: int) -> Part:
        platform = str(record.get("platform") or platform).lower()
        head = _head(record)
        title = record[head] if head else ""
        mark = record["id"] if isinstance(record.get("id"), str) else ""
        post = isinstance(record.get("text"), str) and isinstance(record.get("hashtags"), list)
        left_out = {head, "id"} | ({"text", "hashtags"} if post else set())
        rows = [
            (self._label(key), self.part(value, key, platform, depth + 1))
            for key, value in record.items()
            if key not in left_out
        ]
        if not post:
            return Part(kind="facts", rows=rows, title=title, mark=mark)
        whole = post_text(record)
        weighted = platform in {"", _COUNTED_BY_WEIGHT}
        return Part(
            kind="post",
            text=record["text"],
            whole=whole,
            items=[str(tag) for tag in record["hashtags"][:50]],
            rows=rows,
            title=title,
            mark=mark,
            count=weighted_length(whole) if weighted else len(whole),
            limit=LIMIT if platform == _COUNTED_BY_WEIGHT else 0,
        )

    def _label(self, name: str) -> str:
        return self._t.maybe(f"field.{name}", name.replace("_", " ").strip().capitalize())


def post_text(record: dict[str, Any]) -> str:
    """Return a post as it is published: its text, then the hashtags that are not in it."""
    text = str(record["text"])
    said = text.casefold()
    tags = [str(t) for t in record.get("hashtags") or () if str(t).casefold() not in said]
    return f"{text}\n\n{' '.join(tags)}" if tags else text


def _source(record: dict[str, Any]) -> dict[str, str]:
    """Return what is shown of a source. Only a web address may be followed, and only by a click."""
    url = record["url"]
    kept = {k: v for k, v in record.items() if isinstance(v, str)}
    return {
        "title": kept.get("title") or url,
        "url": url,
        "link": url if url.lower().startswith(("https://", "http://")) and len(url) < 2000 else "",
        "snippet": kept.get("snippet", ""),
        "where": " · ".join(kept[k] for k in ("origin", "published", "licence") if kept.get(k)),
    }
