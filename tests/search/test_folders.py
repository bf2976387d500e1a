from __future__ import annotations

import os
from pathlib import Path

import pytest

from ekiden.errors import NotFound
from ekiden.search.documents import Document, DocumentSearch
from ekiden.search.folders import LARGEST, Skipped, add_folder, read_folder
from ekiden.store.documents import Documents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "race notes"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "relay.md").write_text("# The relay\n\nRunners hand on a sash.", "utf-8")
    (root / "deep" / "歴史.txt").write_bytes("箱根駅伝の歴史について。".encode("cp932"))
    (root / "deep" / "er" / "page.html").write_text("<title>Rules</title><p>No shortcuts", "utf-8")
    return root


def read(root: Path) -> tuple[list[Document], dict[str, str]]:
    items = list(read_folder(root))
    skipped = {i.path.name: i.reason for i in items if isinstance(i, Skipped)}
    return [i for i in items if isinstance(i, Document)], skipped


def test_every_folder_below_is_read(folder: Path):
    documents, skipped = read(folder)
    assert skipped == {}
    assert {(d.title, d.language) for d in documents} == {
        ("The relay", "en"),
        ("歴史", "ja"),
        ("Rules", "en"),
    }
    assert all(d.source == str(folder) and d.part == 0 for d in documents)


def test_the_url_opens_the_file(folder: Path):
    [document] = read(folder / "relay.md")[0]
    assert document.url == (folder / "relay.md").as_uri()
    assert "race%20notes" in document.url


def test_what_is_skipped_is_named_with_the_reason(folder: Path, tmp_path: Path):
    (tmp_path / "secret.txt").write_text("not in the folder")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.txt").write_text("x")
    (folder / ".env.txt").write_text("x")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / "data.txt").write_bytes(b"a\x00b")
    (folder / "empty.md").write_text("\n \n")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "broken.txt").symlink_to(folder / "nowhere.txt")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    with (folder / "huge.txt").open("wb") as huge:
        huge.truncate(LARGEST + 1)
    documents, skipped = read(folder)
    assert len(documents) == 3
    assert skipped == {
        ".git": "hidden",
        ".env.txt": "hidden",
        "photo.png": "not .md, .txt, .html, .pdf or .docx",
        "data.txt": "looks like binary data",
        "empty.md": "empty",
        "out.txt": "a link out of the folder",
        "broken.txt": "no such file or directory",
        "loop": "a link to a folder",
        "pipe.txt": "not a regular file",
        "huge.txt": "larger than 5 MB",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_skipped(folder: Path):
    (folder / "relay.md").chmod(0)
    assert read(folder)[1] == {"relay.md": "permission denied"}


def test_a_long_document_becomes_passages_of_one_url(folder: Path):
    body = "\n\n".join(f"Paragraph {n}. " + "words and words. " * 30 for n in range(40))
    (folder / "relay.md").write_text(f"# Long\n\n{body}")
    passages = [d for d in read(folder)[0] if d.title == "Long"]
    assert len(passages) > 5
    assert [p.part for p in passages] == list(range(len(passages)))
    assert {p.url for p in passages} == {(folder / "relay.md").as_uri()}
    assert max(len(p.body) for p in passages) <= 2_000


async def test_an_added_folder_is_found_in_both_languages(store: Documents, folder: Path):
    report = await add_folder(store, folder)
    assert (report.documents, report.written, report.removed) == (3, 3, 0)
    engine = DocumentSearch(store)
    assert [s.title for s in await engine.search("sash")] == ["The relay"]
    [found] = await engine.search("駅伝の歴史", language="ja")
    assert (found.title, found.origin) == ("歴史", "race notes")
    assert found.url.startswith("file://")


async def test_adding_a_folder_again_brings_it_up_to_date(store: Documents, folder: Path):
    await add_folder(store, folder)
    assert (await add_folder(store, folder)).written == 0
    (folder / "relay.md").write_text("# The relay\n\nNow about batons.")
    (folder / "deep" / "er" / "page.html").unlink()
    report = await add_folder(store, folder)
    assert (report.documents, report.written, report.removed) == (2, 1, 1)
    assert await store.search("sash", language="en", limit=5) == []
    assert len(await store.search("batons", language="en", limit=5)) == 1


async def test_two_folders_of_one_name_are_kept_apart(store: Documents, tmp_path: Path):
    for parent in ("a", "b"):
        (tmp_path / parent / "notes").mkdir(parents=True)
        (tmp_path / parent / "notes" / "x.txt").write_text(f"relay {parent}")
        await add_folder(store, tmp_path / parent / "notes")
    assert sum((await store.counts()).values()) == 2


async def test_a_folder_that_is_not_there_is_named(store: Documents, tmp_path: Path):
    with pytest.raises(NotFound, match="missing"):
        await add_folder(store, tmp_path / "missing")
