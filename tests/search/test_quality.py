"""How well the search of documents finds what is meant; docs/search.md has the same table."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from ekiden.search.corpus import ensure_corpus
from ekiden.search.documents import DocumentSearch
from ekiden.search.folders import add_folder
from ekiden.store.documents import Documents
from tests.search.japanese import ASKED, NOTES

PAGE = Path(__file__).parents[2] / "docs/search.md"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| (\d|–) \|$", re.MULTILINE)
SHOWN = 5

ENGLISH = [
    ("history of the relay race", "Relay"),
    ("how do volcanoes erupt", "Volcano"),
    ("who painted the Mona Lisa", "Mona Lisa"),
    ("largest planet in the solar system", "Jupiter"),
    ("what causes tides in the ocean", "Tide"),
    ("electric cars and batteries", "Electric battery"),
    ("the French Revolution", "French Revolution"),
    ("how vaccines work", "Vaccine"),
    ("climate change and greenhouse gases", "Climate change"),
    ("origin of the Olympic Games", "Olympic Games"),
    ("how bread is made", "Bread"),
    ("black holes in space", "Black hole"),
    ("human heart and blood circulation", "Heart"),
    ("the fall of the Roman Empire", "Fall of the Western Roman Empire"),
    ("machine learning and neural networks", "Machine learning"),
    ("music of Beethoven", "Ludwig van Beethoven"),
    ("coffee drinking", "Coffee"),
    ("sleep and dreams", "Sleep"),
    ("printing press inventor", "Johannes Gutenberg"),
    ("social media marketing", "Social media"),
]


async def ranks(
    pool: asyncpg.Pool, store: Documents, asked: list[tuple[str, str]], language: str
) -> list[tuple[str, str, str]]:
    """(query, what is meant, at which place it was found) as the page has them."""
    # How many passages there are is an estimate of the planner's, and a term's worth depends on it.
    await pool.execute("ANALYZE ekiden.documents")
    engine = DocumentSearch(store)
    rows = []
    for query, meant in asked:
        titles = [s.title for s in await engine.search(query, limit=SHOWN, language=language)]
        rows.append((query, meant, str(titles.index(meant) + 1) if meant in titles else "–"))
    return rows


def judged(rows: list[tuple[str, str, str]]) -> None:
    assert sum(rank == "1" for _, _, rank in rows) >= 0.6 * len(rows)
    assert sum(rank in {"1", "2", "3"} for _, _, rank in rows) >= 0.9 * len(rows)
    asked = {(query, meant) for query, meant, _ in rows}
    on_page = [row for row in ROW.findall(PAGE.read_text("utf-8")) if row[:2] in asked]
    assert [row[:2] for row in on_page] == [row[:2] for row in rows]
    # Near scores may stand in either order, from one database to the next.
    places = {rank: n for n, rank in enumerate(["1", "2", "3", "4", "5", "–"])}
    assert all(
        abs(places[told] - places[seen]) <= 1
        for (*_, told), (*_, seen) in zip(on_page, rows, strict=True)
    )


@pytest.mark.model
async def test_the_demo_corpus_answers_twenty_questions(
    pool: asyncpg.Pool, store: Documents, tmp_path: Path
):
    await ensure_corpus(store, tmp_path)
    judged(await ranks(pool, store, ENGLISH, "en"))


async def test_a_folder_of_japanese_notes_answers_twenty_questions(
    pool: asyncpg.Pool, store: Documents, tmp_path: Path
):
    for number, (title, text) in enumerate(NOTES.items()):
        # Old files are in the old encoding.
        encoding = "cp932" if number % 5 == 0 else "utf-8"
        (tmp_path / f"{number:02}.md").write_text(f"# {title}\n\n{text}\n", encoding)
    await add_folder(store, tmp_path)
    judged(await ranks(pool, store, ASKED, "ja"))
