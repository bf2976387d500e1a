"""Reading the folders of the user (``ekiden sources add PATH``)."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ekiden.errors import NotFound
from ekiden.search.documents import Document, DocumentStore
from ekiden.search.pdf_docx import read_docx, read_pdf
from ekiden.search.reading import (
    Text,
    decode,
    read_html,
    read_markdown,
    read_plain,
    split_passages,
)
from ekiden.search.text import clean, guess_language

LARGEST = 5_000_000  # bytes; what is larger is data and not something a person reads
LARGEST_BOUND = 50_000_000  # bytes of what has pictures and fonts in it

_READERS = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_plain,
    ".html": read_html,
    ".htm": read_html,
}
_BOUND = {".pdf": read_pdf, ".docx": read_docx}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file or folder that was not read, and why, for people."""

    path: Path | str  # of a feed, the title of the entry
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What came of adding a folder."""

    source: str  # under which it is kept, and removed
    documents: int  # it has now
    written: int  # passages that were new or different
    removed: int  # documents that are no longer in the folder
    skipped: tuple[Skipped, ...]


async def add_folder(store: DocumentStore, path: Path) -> FolderReport:
    """Add a folder or a single file, or bring it up to date: what is gone from it is removed.

    Raises:
        NotFound: there is no such folder.
        DatabaseError: the documents could not be stored.
    """
    root = await asyncio.to_thread(_existing, path)
    source = str(root)
    skipped: list[Skipped] = []
    urls: set[str] = set()

    def documents() -> Iterator[Document]:
        for item in read_folder(root):
            if isinstance(item, Skipped):
                skipped.append(item)
            else:
                urls.add(item.url)
                yield item

    written = await store.put(documents())
    removed = await store.keep_only(source, urls)
    return FolderReport(
        source=source,
        documents=len(urls),
        written=written,
        removed=removed,
        skipped=tuple(skipped),
    )


def _existing(path: Path) -> Path:
    root = path.expanduser().resolve()
    if not root.exists():
        raise NotFound(f"There is no file or folder {path}.")
    return root


def read_folder(root: Path) -> Iterator[Document | Skipped]:
    """Yield the passages of every file that can be read, and what was skipped, in a fixed order."""
    root = root.resolve()
    for item in _files(root):
        if isinstance(item, Skipped):
            yield item
            continue
        try:
            passages = _read(item, root)
        except (OSError, ValueError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            yield Skipped(path=item, reason=reason[:1].lower() + reason[1:])
        else:
            yield from passages


def _files(root: Path) -> Iterator[Path | Skipped]:
    if not root.is_dir():
        yield root
        return
    unreadable: list[Skipped] = []

    def note(error: OSError) -> None:
        unreadable.append(
            Skipped(path=Path(error.filename), reason=(error.strerror or str(error)).lower())
        )

    for folder, folders, files in os.walk(root, onerror=note):
        folders.sort()
        for name in list(folders):
            path = Path(folder, name)
            if name.startswith("."):
                yield Skipped(path=path, reason="hidden")
            elif path.is_symlink():
                yield Skipped(path=path, reason="a link to a folder")
            else:
                continue
            folders.remove(name)
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith("."):
                yield Skipped(path=path, reason="hidden")
            elif path.is_symlink() and not path.resolve().is_relative_to(root):
                yield Skipped(path=path, reason="a link out of the folder")
            else:
                yield path
    yield from unreadable


def _read(path: Path, root: Path) -> list[Document]:
    """Read one file.

    Raises:
        ValueError: why it is skipped.
        OSError: it cannot be read.
    """
    kind = path.suffix.lower()
    if kind not in _READERS and kind not in _BOUND:
        raise ValueError("not .md, .txt, .html, .pdf or .docx")
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("not a regular file")
    largest = LARGEST_BOUND if kind in _BOUND else LARGEST
    if about.st_size > largest:
        raise ValueError(f"larger than {largest // 1_000_000} MB")
    text = _text(kind, path.read_bytes())
    passages = split_passages(text.body)
    if not any(clean(passage) for passage in passages):
        raise ValueError("empty")
    title = clean(text.title or "")[:300] or clean(path.stem.replace("_", " ")) or "untitled"
    return [
        Document(
            source=str(root),
            url=path.as_uri(),
            title=title,
            body=passage,
            part=part,
            language=guess_language(passage),
            published=text.published,
        )
        for part, passage in enumerate(passages)
    ]


def _text(kind: str, raw: bytes) -> Text:
    if kind in _BOUND:
        return _BOUND[kind](raw)
    reader = _READERS[kind]
    return reader(decode(raw, html=reader is read_html))
