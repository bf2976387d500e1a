"""Documents, kept and found by a real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import asyncpg
import pytest
import pytest_asyncio

from ekiden.errors import DatabaseUnreachable
from ekiden.store.connection import open_pool
from ekiden.store.documents import BATCH, Documents


@dataclass(frozen=True, kw_only=True)
class Given:
    title: str
    body: str
    url: str = ""
    source: str = "notes"
    part: int = 0
    language: str = "en"
    licence: str | None = None
    published: str | None = None


def doc(title: str, body: str, **more: str | int | None) -> Given:
    return replace(Given(title=title, body=body, url=f"https://example.org/{title}"), **more)


ENGLISH = [
    doc("Coffee", "Coffee is a drink prepared from roasted coffee beans. It is stimulating."),
    doc("Gardenia", "Gardenia is a genus of flowering plants in the coffee family."),
    doc("Tea", "Tea is an aromatic drink prepared by pouring hot water over leaves."),
    doc("Relay race", "A relay race is a racing competition where members of a team take turns."),
    doc("Auto racing", "Auto racing is a sport involving the racing of cars for competition."),
    doc("Japan", "Japan is an island country in East Asia, with a long history."),
    doc("Poincaré conjecture", "A theorem about the characterisation of the 3-sphere."),
]
JAPANESE = [
    doc(
        "駅伝",
        "駅伝競走は、数人が襷をつなぎながら長距離を走る日本発祥の陸上競技である。",
        language="ja",
    ),
    doc("箱根駅伝", "箱根駅伝は、東京と箱根の間を往復する大学駅伝の大会である。", language="ja"),
    doc(
        "東京都", "東京都は日本の首都である。人口は約1400万人で、観光も盛んである。", language="ja"
    ),
    doc("京都市", "京都市は京都府の府庁所在地で、寺社の観光で世界に知られる。", language="ja"),
    doc(
        "抹茶",
        "抹茶は碾茶を挽いた粉末である。近年は抹茶ラテなどのスイーツがトレンドである。",
        language="ja",
    ),
    doc(
        "機械学習",
        "機械学習は人工知能の技術の一つで、データから規則を見つける。",
        language="ja",
    ),
    doc(
        "りんご",
        "りんごはバラ科の果樹。青森県での生産が多い。apple とも書く。",
        language="ja",
    ),
]


@pytest_asyncio.fixture
async def documents(database: str) -> AsyncIterator[Documents]:
    async with open_pool(database) as pool:
        yield Documents(pool, database)


@pytest_asyncio.fixture
async def library(documents: Documents) -> Documents:
    await documents.put(ENGLISH + JAPANESE)
    return documents


async def titles(documents: Documents, query: str, **more: str | int) -> list[str]:
    return [found.title for found in await documents.search(query, **more)]


MEANT = {
    "coffee": "Coffee",
    "COFFEES": "Coffee",
    "poincare conjecture": "Poincaré conjecture",
    "relay racing": "Relay race",
    "What is the history of the relay race in Japan, and who runs it today?": "Relay race",
    "2026 trends for hot drinks with aromatic leaves among millennials": "Tea",
    "駅伝": "駅伝",
    "箱根駅伝の歴史": "箱根駅伝",
    "駅": "駅伝",
    "東京都": "東京都",
    "京都の観光": "京都市",
    "東京 人口": "東京都",
    "抹茶スイーツの最新トレンドについて教えてください": "抹茶",
    "ﾄﾚﾝﾄﾞ": "抹茶",
    "人工知能技術": "機械学習",
    "りんご": "りんご",
    "apple 生産": "りんご",
}


async def test_the_document_that_is_meant_comes_first(library: Documents):
    assert {query: (await titles(library, query))[0] for query in MEANT} == MEANT


async def test_a_title_counts_more_than_a_mention(library: Documents):
    assert await titles(library, "coffee") == ["Coffee", "Gardenia"]


async def test_a_document_with_all_the_words_comes_before_one_with_some(documents: Documents):
    await documents.put(
        [
            doc("One", "green apples are sold here"),
            doc("Two", "green tea and its benefits"),
            doc("Three", "tea tea tea tea"),
            doc("Four", "green green green green"),
        ]
    )
    assert (await titles(documents, "green tea"))[0] == "Two"


async def test_a_rare_word_counts_more_than_a_common_one(documents: Documents):
    common = [doc(f"Report {n}", "The market report of the year") for n in range(30)]
    await documents.put([*common, doc("Sash", "A tasuki is handed on")])
    assert (await titles(documents, "the market for a tasuki"))[0] == "Sash"


async def test_half_of_a_word_of_kanji_is_not_that_word(library: Documents):
    # 東京都 holds 京都 as characters, and so it is found, but after the city.
    assert (await titles(library, "京都"))[0] == "京都市"
    assert "京都市" not in await titles(library, "東京都")


async def test_the_language_asked_for_is_preferred_but_others_are_found(documents: Documents):
    same = "LLM agents"
    await documents.put(
        [
            doc("English", same, language="en"),
            doc("Japanese", same, language="ja"),
        ]
    )
    assert await titles(documents, "agents", language="ja") == ["Japanese", "English"]
    assert await titles(documents, "agents", language="en") == ["English", "Japanese"]


async def test_a_document_is_found_once_by_its_best_passage(documents: Documents):
    await documents.put(
        [
            doc("Handbook", "about the weather", url="u", part=0),
            doc("Handbook", "about relay races and the relay", url="u", part=1),
            doc("Handbook", "about a relay among other things and more", url="u", part=2),
            doc("Other", "a relay", url="v"),
        ]
    )
    found = await documents.search("relay")
    assert sorted((f.url, f.part) for f in found) == [("u", 1), ("v", 0)]


async def test_at_most_as_many_as_asked_for(library: Documents):
    assert len(await titles(library, "日本 観光 駅伝", limit=2)) == 2
    assert await titles(library, "coffee", limit=0) == []


UNKNOWN = ["xyzzy", "ペンギン", "the of and", "'; DROP TABLE ekiden.documents; --"]
WORDLESS = ["", "   ", "\x00", "&|!:*()<->'\"\\", "🙂", "\ud800"]
STRANGE = [
    '"coffee" & !(',
    "coffee:*",
    "cof\x00fee coffee",
    "coffee 🙂☕",
    "coffee " + "x" * 10_000,
    "coffee " * 2_000,
    "coffee -drink OR site:example.org",
    "$1 %s {coffee}",
    "coffee" + "<->" * 500,
]


async def test_nothing_found_is_an_empty_list(library: Documents):
    for query in UNKNOWN + WORDLESS:
        assert await titles(library, query) == [], query


async def test_no_query_is_a_syntax_error(library: Documents):
    for query in STRANGE:
        assert "Coffee" in await titles(library, query), query


async def test_any_characters_can_be_asked_for_and_kept(documents: Documents):
    characters = random.Random(5)  # the same ones each time
    texts = [
        "".join(chr(characters.randrange(0x110000)) for _ in range(characters.randrange(60)))
        for _ in range(200)
    ]
    texts += ["".join(characters.choices("a&|!:*()<->'\"\\ \x00東ー", k=20)) for _ in range(200)]
    await documents.put([doc("T", text, url=f"u{n}") for n, text in enumerate(texts)])
    for text in texts[::5]:
        await documents.search(text)


async def test_nul_and_lone_surrogates_do_not_enter_the_database(documents: Documents):
    await documents.put([doc("a\x00b", "nul\x00 sur\ud800rogate", url="u\x00", licence="CC\x00")])
    [found] = await documents.search("surrogate")
    assert (found.title, found.body, found.url, found.licence) == (
        "ab",
        "nul surrogate",
        "u",
        "CC",
    )


async def test_what_is_kept_comes_back(documents: Documents):
    given = doc("T", "relay", licence="CC BY-SA 4.0", published="2026-01-31", language="ja")
    await documents.put([given, doc("U", "sash", published="last spring")])
    [found] = await documents.search("relay")
    for name in ("source", "url", "part", "title", "body", "language", "licence", "published"):
        assert getattr(found, name) == getattr(given, name)
    assert found.score > 0
    assert (await documents.search("sash"))[0].published is None


async def test_putting_the_same_again_writes_nothing(library: Documents, database: str):
    connection = await asyncpg.connect(database)
    try:
        before = await connection.fetch("SELECT id, ctid::text FROM ekiden.documents ORDER BY id")
        assert await library.put(ENGLISH + JAPANESE) == 0
        after = await connection.fetch("SELECT id, ctid::text FROM ekiden.documents ORDER BY id")
    finally:
        await connection.close()
    assert after == before


async def test_a_changed_document_replaces_the_old_one(documents: Documents):
    old = [doc("T", f"passage {n} zebra", url="u", part=n) for n in range(3)]
    assert await documents.put(old) == 3
    assert await documents.put([doc("T", "now about penguins", url="u")]) == 1
    assert await titles(documents, "zebra") == []
    assert await titles(documents, "penguin") == ["T"]


async def test_a_passage_given_twice_is_kept_once(documents: Documents):
    assert await documents.put([doc("T", "first", url="u"), doc("T", "second", url="u")]) == 1
    assert await titles(documents, "first") == []
    assert await titles(documents, "second") == ["T"]


async def test_more_than_a_batch_is_stored_and_long_documents_stay_whole(documents: Documents):
    def passages() -> Iterator[Given]:
        for n in range(BATCH + 10):
            yield doc("Short", f"number {n}", url=f"short/{n}")
        for part in range(BATCH + 10):
            yield doc("Long", f"number {part}", url="long", part=part)

    assert await documents.put(passages()) == 2 * BATCH + 20
    assert await documents.put(passages()) == 0
    assert await documents.counts() == {"notes": BATCH + 11}


async def test_two_processes_may_add_the_same_at_once(documents: Documents):
    mine = ENGLISH + JAPANESE
    await asyncio.gather(*(documents.put(order) for order in (mine, mine[::-1], mine, mine[::-1])))
    assert await documents.counts() == {"notes": len(mine)}


async def test_an_enormous_passage_is_found_by_its_beginning(documents: Documents):
    words = " ".join(f"w{n}" for n in range(200_000))
    await documents.put(
        [doc("Log", words), doc("書", "".join(map(chr, range(0x4E00, 0x9FFF))) * 5)]
    )
    assert await titles(documents, "w7") == ["Log"]


async def test_documents_are_counted_by_source_and_not_by_passage(documents: Documents):
    assert await documents.counts() == {}
    await documents.put(
        [
            doc("A", "x", url="a", source="one"),
            doc("A", "y", url="a", source="one", part=1),
            doc("A", "x", url="a", source="two"),
            doc("B", "x", url="b", source="two"),
        ]
    )
    assert await documents.counts() == {"one": 1, "two": 2}


async def test_a_source_is_removed_whole_and_alone(documents: Documents):
    await documents.put(
        [doc("A", "relay", url="a", source="one"), doc("B", "relay", url="b", source="two")]
    )
    assert await documents.remove("one") == 1
    assert await documents.remove("one") == 0
    assert await titles(documents, "relay") == ["B"]


async def test_documents_that_are_gone_from_a_source_are_removed(documents: Documents):
    await documents.put(
        [
            doc("A", "relay", url="a", source="one"),
            doc("B", "relay", url="b", source="one"),
            doc("B", "relay", url="b", source="two"),
        ]
    )
    assert await documents.keep_only("one", ["a"]) == 1
    assert await documents.counts() == {"one": 1, "two": 1}


async def test_an_error_of_whoever_gives_the_passages_stays_theirs(documents: Documents):
    def passages() -> Iterator[Given]:
        yield doc("A", "x")
        raise FileNotFoundError("the folder is gone")

    with pytest.raises(FileNotFoundError, match="the folder is gone"):
        await documents.put(passages())


async def test_a_database_that_is_gone_is_named(tmp_path):
    dsn = f"postgresql://nobody@/nowhere?host={tmp_path}"
    async with open_pool(dsn) as pool:
        with pytest.raises(DatabaseUnreachable, match="nowhere"):
            await Documents(pool, dsn).search("coffee")


async def test_the_search_goes_through_the_index(documents: Documents, database: str):
    await documents.put([doc(f"T{n}", f"number {n} of many", url=f"u{n}") for n in range(2_000)])
    from ekiden.store.queries import sql

    connection = await asyncpg.connect(database)
    try:
        await connection.execute("ANALYZE ekiden.documents")
        plan = await connection.fetch(
            "EXPLAIN " + sql("search_documents"), ["number", "7"], [1.0, 1.0], "en", 5
        )
    finally:
        await connection.close()
    text = "\n".join(row[0] for row in plan)
    assert "Bitmap Index Scan on documents_words" in text
    assert "Seq Scan on documents" not in text
