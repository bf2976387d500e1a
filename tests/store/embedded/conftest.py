"""Homes and servers of a test's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from embedded_helpers import OTHER_PROCESS, Serve

from ekiden.store import _cluster
from ekiden.store.embedded import EmbeddedServer


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path that every account may enter (pytest's own has neither)."""
    path = Path(tempfile.mkdtemp(prefix="ekiden-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def new_home(place: Path) -> Path:
    """A home in which nothing was ever started."""
    return place / "home"


@pytest.fixture(scope="session")
def made(pg_bin: Path | None) -> Iterator[Path]:
    """A home with a database, to be copied: making one takes several times as long."""
    home = Path(tempfile.mkdtemp(prefix="ekiden-test-"))
    with EmbeddedServer(home, bin_dir=pg_bin, settings={"fsync": "off"}):
        pass
    yield home
    shutil.rmtree(home)


@pytest.fixture
def home(new_home: Path, made: Path) -> Path:
    """A home of the test's own that already has a database."""
    subprocess.run(["cp", "-a", str(made / "."), str(new_home)], check=True)
    new_home.chmod(0o755)
    return new_home


@pytest.fixture
def serve(pg_bin: Path | None) -> Iterator[Serve]:
    made: list[EmbeddedServer] = []

    def serve(home: Path, **options: object) -> EmbeddedServer:
        settings = {"fsync": "off"} | options.pop("settings", {})
        made.append(EmbeddedServer(home, **{"bin_dir": pg_bin, "settings": settings} | options))
        return made[-1]

    yield serve
    for server in made:
        server.stop()


@pytest.fixture
def other_process(pg_bin: Path | None) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    made: list[subprocess.Popen[str]] = []

    def start(home: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OTHER_PROCESS, str(home), str(pg_bin or "")]
        made.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        return made[-1]

    yield start
    for process in made:
        process.communicate()  # ends its input


@pytest.fixture
def programs(place: Path, pg_bin: Path | None) -> Path:
    """PostgreSQL's programs in a folder of the test's own, where it can replace one."""
    folder = place / "bin"
    folder.mkdir()
    real = pg_bin or _cluster._wheel()
    for name in ("initdb", "postgres"):
        (folder / name).symlink_to(real / name)
    return folder
