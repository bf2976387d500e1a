"""Reading a file: its encoding, its title, its plain text, its passages."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from datetime import date
from html.parser import HTMLParser

PASSAGE = 2_000  # characters: long enough to answer, short enough to be about one thing

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_KANA = re.compile(
    "[\u3041-\u3096\u30a1-\u30fa]"
)  # full width: the half-width ones are a misreading
_DECLARED = re.compile(rb"""charset\s*=\s*["']?([A-Za-z0-9_\-]{2,20})""")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n(?:---|\.\.\.)\s*\n", re.DOTALL)
_FIELD = re.compile(r"^(title|date)\s*:\s*(.+)$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_UNDERLINED = re.compile(r"^(\S.*)\n=+[ \t]*$", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？\n])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What a file says."""

    title: str | None
    body: str  # paragraphs with empty lines between them
    published: str | None = None  # ISO date, when the file says it


def decode(raw: bytes, *, html: bool = False) -> str:
    """Return the text of bytes of unknown encoding.

    UTF-8 and UTF-16 know themselves. The Japanese encodings can each be read as another, so the
    reading with the most kana is the right one; what has none is Western.

    Raises:
        ValueError: it is not text.
    """
    for bom, encoding in _BOMS.items():
        if raw.startswith(bom):
            return raw.decode(encoding, "replace")
    if b"\x00" in raw:
        raise ValueError("looks like binary data")
    if b"\x1b$" in raw and (text := _decoded(raw, "iso2022_jp")) is not None:
        return text
    if (text := _decoded(raw, "utf-8")) is not None:
        return text
    if (
        html
        and (declared := _DECLARED.search(raw[:2048]))
        and (text := _decoded(raw, declared[1].decode("ascii"))) is not None
    ):
        return text
    readings = [t for e in ("cp932", "euc_jp") if (t := _decoded(raw, e)) is not None]
    kana = {reading: len(_KANA.findall(reading)) for reading in readings}
    best = max(kana, key=kana.__getitem__, default="")
    if kana.get(best, 0) * 10 >= sum(not c.isascii() for c in best) > 0:
        return best
    return raw.decode("cp1252", "replace")


def _decoded(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def read_plain(text: str) -> Text:
    """Return a text file as it is; it has no title of its own."""
    return Text(title=None, body=text)


def read_markdown(text: str) -> Text:
    """Return Markdown as plain text, with the title and date it gives itself."""
    text = text.replace("\r\n", "\n")
    fields: dict[str, str] = {}
    if front := _FRONT_MATTER.match(text):
        fields = {name: value.strip().strip("\"'") for name, value in _FIELD.findall(front[1])}
        text = text[front.end() :]
    heading = _HEADING.search(text) or _UNDERLINED.search(text)
    return Text(
        title=fields.get("title") or (_unmarked(heading[1]) if heading else None),
        body=_unmarked(text),
        published=_iso_date(fields.get("date", "")),
    )


def _unmarked(text: str) -> str:
    """Return Markdown without the marks that only say how it looks."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]\n]*\]\([^)\n]*\)", "", text)
    text = re.sub(r"\[([^\]\n]+)\]\([^)\n]*\)", r"\1", text)
    text = re.sub(
        r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[*+-][ \t]+|```.*$|=+$|-{3,}$)", "", text, flags=re.M
    )
    return re.sub(r"(\*\*|__|`)(\S[^\n]*?)\1", r"\2", text)


def _iso_date(text: str) -> str | None:
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        return None


def read_html(text: str) -> Text:
    """Return what a person would read of a page: no scripts, no styles, no markup."""
    page = _Page()
    page.feed(text)
    page.close()
    return Text(title=page.title.strip() or page.heading.strip() or None, body="".join(page.parts))


class _Page(HTMLParser):
    """Collects the text of a page."""

    hidden = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "object"})
    blocks = frozenset(
        {
            *("address", "article", "aside", "blockquote", "body", "caption", "dd", "div", "dl"),
            *("dt", "figcaption", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header"),
            *("hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "tr", "ul"),
        }
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title = ""
        self.heading = ""
        self._hidden: str | None = None  # the outermost element that is not read, and how deep
        self._depth = 0
        self._within: str | None = None  # title or h1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            self._depth += tag == self._hidden
        elif tag in self.hidden:
            self._hidden, self._depth = tag, 1
        elif tag == "title" or (tag == "h1" and not self.heading):
            self._within = tag
        if tag in self.blocks:
            self.parts.append("\n\n")
        elif tag in {"br", "td", "th"}:
            self.parts.append("\n" if tag == "br" else " ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.blocks or tag == "br":
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            self._depth -= tag == self._hidden
            if not self._depth:
                self._hidden = None
        elif tag == self._within:
            self._within = None
        if tag in self.blocks:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        # In the source a line break is a space; paragraphs come from the elements.
        data = re.sub(r"\s+", " ", data)
        if self._within == "title":
            self.title += data
            return
        if self._within == "h1":
            self.heading += data
        self.parts.append(data)


def split_passages(body: str, size: int = PASSAGE) -> list[str]:
    """Cut a text into passages of about this size, at paragraphs when they allow it."""
    passages: list[str] = []
    current = ""
    for piece in _pieces(body, size):
        if current and len(current) + len(piece) + 2 > size:
            passages.append(current)
            current = ""
        current = f"{current}\n\n{piece}" if current else piece
    return [*passages, current] if current else passages


def _pieces(body: str, size: int) -> list[str]:
    """Return the paragraphs, the long ones cut at sentences, the long sentences cut anywhere."""
    pieces = []
    for paragraph in _PARAGRAPH.split(body.replace("\r", "\n")):
        rest = paragraph.strip()
        while len(rest) > size:
            ends = [end.end() for end in _SENTENCE_END.finditer(rest, 0, size)]
            at = ends[-1] if ends and ends[-1] > size // 4 else rest.rfind(" ", size // 2, size)
            at = at if at > 0 else size
            pieces.append(rest[:at].strip())
            rest = rest[at:].strip()
        if rest:
            pieces.append(rest)
    return pieces
