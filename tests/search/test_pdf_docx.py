from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import docx
import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from ekiden.search.documents import DocumentSearch
from ekiden.search.folders import Skipped, add_folder, read_folder
from ekiden.search.pdf_docx import read_docx, read_pdf
from ekiden.store.documents import Documents


def pdf(*pages: str, password: str | None = None) -> bytes:
    """A PDF of these pages, in a font that every reader has."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(width=595, height=842)
        font = DictionaryObject({
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        })  # fmt: skip
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
    writer.add_metadata({"/Title": "Race rules", "/CreationDate": "D:20260102030405Z"})
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def word_file() -> bytes:
    document = docx.Document()
    document.core_properties.title = "駅伝の規則"
    document.core_properties.modified = datetime(2026, 1, 2)
    document.add_heading("規則", 1)
    document.add_paragraph("走者は次の走者にたすきを渡す。")
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text = "区間"
    table.rows[0].cells[1].text = "21.4 km"
    document.add_paragraph("終わり。")
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def test_a_pdf_gives_its_pages_title_and_day():
    read = read_pdf(pdf("The sash is handed over.", "In the exchange zone."))
    assert read.body == "The sash is handed over.\n\nIn the exchange zone."
    assert (read.title, read.published) == ("Race rules", "2026-01-02")


def test_a_word_file_gives_paragraphs_and_tables_in_their_order():
    read = read_docx(word_file())
    assert read.body == "規則\n\n走者は次の走者にたすきを渡す。\n\n区間 | 21.4 km\n\n終わり。"
    assert (read.title, read.published) == ("駅伝の規則", "2026-01-02")


@pytest.mark.parametrize(
    ("reader", "raw", "says"),
    [
        (read_pdf, b"", "readable PDF"),
        (read_pdf, b"%PDF-1.7\nnonsense", "readable PDF"),
        (read_pdf, pdf("text")[:300], "readable PDF"),
        (read_pdf, pdf(""), "no text in it"),
        (read_pdf, pdf("secret", password="x"), "locked with a password"),
        (read_docx, b"", "readable Word file"),
        (read_docx, b"PK\x03\x04nonsense", "readable Word file"),
        (read_docx, word_file()[:500], "readable Word file"),
    ],
)
def test_what_cannot_be_read_says_why(reader, raw, says):
    with pytest.raises(ValueError, match=says):
        reader(raw)


@pytest.mark.parametrize("reader", [read_pdf, read_docx], ids=["pdf", "docx"])
def test_a_damaged_file_is_read_or_refused_and_never_crashes(reader):
    whole = pdf("The sash is handed over.") if reader is read_pdf else word_file()
    for at in range(0, len(whole), max(1, len(whole) // 120)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x5A
        try:
            reader(bytes(damaged))
        except ValueError as error:
            assert str(error)


async def test_they_are_found_in_a_folder_by_what_they_say(store: Documents, tmp_path: Path):
    (tmp_path / "rules.pdf").write_bytes(pdf("The sash is handed over in the exchange zone."))
    (tmp_path / "規則.docx").write_bytes(word_file())
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-")
    report = await add_folder(store, tmp_path)
    assert report.documents == 2
    assert [Path(s.path).name for s in report.skipped] == ["broken.pdf"]
    engine = DocumentSearch(store)
    [found] = await engine.search("exchange zone")
    assert (found.title, found.published) == ("Race rules", "2026-01-02")
    [found] = await engine.search("たすき", language="ja")
    assert found.url.endswith(".docx")


def test_a_pdf_may_be_larger_than_a_text_and_not_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("ekiden.search.folders.LARGEST", 10)
    monkeypatch.setattr("ekiden.search.folders.LARGEST_BOUND", 100_000)
    (tmp_path / "a.txt").write_text("more than ten bytes")
    (tmp_path / "b.pdf").write_bytes(pdf("text"))
    assert [isinstance(item, Skipped) for item in read_folder(tmp_path)] == [True, False]
