"""What PDF and Word files say."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from ekiden.search.reading import Text

if TYPE_CHECKING:
    from docx.document import Document

MOST_PAGES = 2_000  # of one PDF


class _Unreadable(ValueError):
    """Why a file is not read, in words for people."""


def read_pdf(raw: bytes) -> Text:
    """Return the text of a PDF, page by page.

    Raises:
        ValueError: it is damaged or locked, or there is no text in it (a scan).
    """
    # pypdf tells each oddity of a file to the log; here only the outcome matters.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    return _guarded(_pdf, raw, "PDF")


def read_docx(raw: bytes) -> Text:
    """Return the text of a Word file: paragraphs and tables, in their order.

    Raises:
        ValueError: it is damaged, or another kind of file.
    """
    return _guarded(_docx, raw, "Word file")


def _guarded(read: Callable[[bytes], Text], raw: bytes, kind: str) -> Text:
    try:
        return read(raw)
    except _Unreadable:
        raise
    # The libraries follow whatever a file says of itself: a damaged one breaks them in any way.
    except Exception as error:
        raise ValueError(f"is no readable {kind} ({type(error).__name__})") from error


def _pdf(raw: bytes) -> Text:
    from pypdf import PdfReader  # noqa: PLC0415  -- late: rarely needed

    reader = PdfReader(io.BytesIO(raw))
    if reader.is_encrypted and not reader.decrypt(""):
        raise _Unreadable("is locked with a password")
    if len(reader.pages) > MOST_PAGES:
        raise _Unreadable(f"has more than {MOST_PAGES:,} pages")
    body = "\n\n".join(page.extract_text() for page in reader.pages)
    if not body.strip():
        raise _Unreadable("has no text in it; it may be a scan")
    about = reader.metadata
    if about is None:
        return Text(title=None, body=body)
    return Text(title=about.title, body=body, published=_day(about.creation_date))


def _docx(raw: bytes) -> Text:
    import docx  # noqa: PLC0415  -- late: rarely needed

    document = docx.Document(io.BytesIO(raw))
    about = document.core_properties
    return Text(
        title=about.title or None,
        body="\n\n".join(_paragraphs(document)),
        published=_day(about.modified or about.created),
    )


def _paragraphs(document: Document) -> Iterator[str]:
    from docx.table import Table  # noqa: PLC0415

    for block in document.iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:
                yield " | ".join(cell.text for cell in row.cells)
        else:
            yield block.text


def _day(moment: datetime | None) -> str | None:
    return moment.date().isoformat() if moment is not None else None
