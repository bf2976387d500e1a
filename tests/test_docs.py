"""What the documents say of the repository is so."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest

from ekiden.config import Settings, variable_of

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _prose(path: Path) -> str:
    return FENCE.sub("", path.read_text("utf-8"))


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#{1,6} (.+)$", _prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _commands(path: Path) -> list[tuple[str, list[str]]]:
    """Each code block's language and lines, without comments."""
    blocks = []
    for language, text in FENCE.findall(path.read_text("utf-8")):
        lines = (re.sub(r"(?:^|\s+)# .*$", "", line).rstrip() for line in text.splitlines())
        blocks.append((language, [line for line in lines if line]))
    return blocks


def _levels(path: Path) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#{1,6}) ", _prose(path), re.MULTILINE)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in LINK.findall(_prose(document)):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        place, _, anchor = unquote(target).partition("#")
        page = (document.parent / place).resolve() if place else document
        if not page.exists() or (anchor and anchor not in _anchors(page)):
            broken.append(target)
    assert not broken


def test_every_setting_has_a_row_with_its_default() -> None:
    rows = dict(
        re.findall(
            r"^\| `([\w*]+)`[^|]*\| ([^|]*) \|",
            (ROOT / "docs/settings.md").read_text("utf-8"),
            re.MULTILINE,
        )
    )
    variables = {variable_of(field) for field in Settings.model_fields}
    assert set(rows) == variables
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, bool | int):
            assert rows[variable_of(name)] == f"`{str(field.default).lower()}`"


def test_both_readmes_have_the_same_headings() -> None:
    assert _levels(ROOT / "README.ja.md") == _levels(ROOT / "README.md")


def test_both_readmes_give_the_same_commands() -> None:
    assert _commands(ROOT / "README.ja.md") == _commands(ROOT / "README.md")


def test_both_readmes_link_to_the_same_pages() -> None:
    def pages(path: Path) -> set[str]:
        return {link for link in LINK.findall(_prose(path)) if not link.startswith("README")}

    assert pages(ROOT / "README.ja.md") == pages(ROOT / "README.md")


def test_the_flow_on_its_page_and_the_tests_of_it_run(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [
        t for lang, t in FENCE.findall((ROOT / "docs/flows.md").read_text()) if lang == "python"
    ]
    flow = ModuleType("my_flows")
    monkeypatch.setitem(sys.modules, "my_flows", flow)
    exec(blocks[0], flow.__dict__)
    (page,) = (block for block in blocks if "FakeContext" in block)
    tests: dict[str, Any] = {}
    exec(page, tests)
    named = [test for name, test in tests.items() if name.startswith("test_")]
    assert len(named) == 3
    for test in named:
        test()
