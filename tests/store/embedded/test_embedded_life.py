"""The embedded PostgreSQL starts, is shared, and dies."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import asyncpg
import pytest
from embedded_helpers import (
    ask,
    lock_is_free,
    needs_proc,
    postmaster,
    until,
)

from ekiden.errors import EmbeddedServerError
from ekiden.store import _cluster, embedded
from ekiden.store.embedded import EmbeddedServer

# ------------------------------------------------------------------------------- start and stop


def test_a_first_start_makes_a_database_and_a_later_one_finds_it(new_home, serve):
    server = serve(new_home)
    server.start()
    ask(server, "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()

    server.start()

    assert ask(server, "SELECT n FROM kept") == 7
    assert ask(server, "SELECT current_user || ' ' || current_database()") == "ekiden ekiden"


def test_the_database_speaks_utf8_and_knows_letters_beyond_ascii(home, serve):
    server = serve(home)
    server.start()
    assert ask(server, "SHOW server_encoding") == "UTF8"
    assert ask(server, "SELECT upper('é') || lower('Я')") == "Éя"
    assert ask(server, "SELECT to_tsvector('simple', '駅伝 run')::text") == "'run':2 '駅伝':1"


def test_nothing_is_served_over_tcp_and_commits_are_safe_by_default(home, pg_bin):
    with EmbeddedServer(home, bin_dir=pg_bin) as server:
        assert ask(server, "SHOW listen_addresses") == ""
        assert ask(server, "SHOW fsync") == "on"
        assert ask(server, "SHOW synchronous_commit") == "on"


def test_settings_of_the_caller_win(home, serve):
    server = serve(home, settings={"max_connections": "33", "port": "6000"})
    server.start()
    assert ask(server, "SHOW max_connections") == "33"
    assert ask(server, "SHOW autovacuum_naptime") == "5s"


async def test_stopping_throws_out_who_is_connected_and_may_be_repeated(home, serve):
    server = serve(home)
    connection = await asyncpg.connect(server.start())
    server.stop()
    server.stop()
    assert not server.owned
    assert lock_is_free(home)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.execute("SELECT 1")
    await connection.close()


def test_a_start_while_it_runs_changes_nothing(home, serve):
    server = serve(home)
    server.start()
    before = postmaster(home)
    assert server.start() == server.ensure() == server.dsn
    assert postmaster(home) == before


async def test_only_the_main_thread_may_start_it_but_any_may_look(home, serve):
    server = serve(home)
    with pytest.raises(EmbeddedServerError, match="main thread"):
        await asyncio.to_thread(server.start)
    with pytest.raises(EmbeddedServerError, match="main thread"):
        await asyncio.to_thread(server.ensure)
    server.start()
    assert await asyncio.to_thread(server.ensure) == server.dsn
    assert threading.current_thread() is threading.main_thread()


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(home, serve):
    serve(home).start()
    assert os.getpgid(postmaster(home)) != os.getpgrp()


def test_the_server_sees_none_of_our_keys(home, serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PGPORT", "1")
    serve(home).start()
    if Path("/proc/self/environ").exists():
        seen = Path(f"/proc/{postmaster(home)}/environ").read_bytes()
        assert b"sk-secret" not in seen
        assert b"PGPORT" not in seen


def test_the_log_is_kept_bounded_while_the_server_runs(home, serve, monkeypatch):
    server = serve(home, settings={"log_statement": "all"})
    server.start()
    monkeypatch.setattr(embedded, "_LOG_LIMIT", 100)
    server.ensure()
    assert server.log.stat().st_size < 100
    assert "ready to accept connections" in (home / "postgres.log.old").read_text()
    ask(server, "SELECT 'after the cut'")
    assert "after the cut" in server.log.read_text()
    assert stat.S_IMODE(server.log.stat().st_mode) == 0o600


# ------------------------------------------------------------------------------------- sharing


def test_a_second_server_joins_and_its_stop_stops_nothing(home, serve):
    first, second = serve(home), serve(home)
    first.start()
    assert second.start() == first.dsn
    assert (first.owned, second.owned) == (True, False)
    second.stop()
    assert ask(first, "SELECT 1") == 1


def test_of_processes_that_race_to_start_exactly_one_owns(new_home, other_process):
    racers = [other_process(new_home) for _ in range(4)]
    said = [racer.stdout.readline().strip() for racer in racers]
    assert sorted(said) == ["joined", "joined", "joined", "owned"]


def test_who_had_joined_takes_over_when_the_owner_stopped(home, serve):
    first, second = serve(home), serve(home)
    first.start()
    second.start()
    first.stop()
    second.ensure()
    assert second.owned
    assert ask(second, "SELECT 1") == 1


def test_a_server_started_by_hand_is_joined_and_left_alone(home, serve, programs):
    server = serve(home)
    server.start()
    server.stop()
    account = _cluster.account_for(home, home / "postgres")
    by_hand = subprocess.Popen(
        [programs / "postgres", "-D", home / "postgres", "-k", home / "postgres", "-h", ""],
        stderr=subprocess.DEVNULL,
        user=account and account.uid,
        group=account and account.gid,
        cwd="/",
    )
    try:
        until(server._answers)
        server.start()
        assert not server.owned
        server.stop()
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait()


# --------------------------------------------------------------------------------------- death


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_the_server_dies_cleanly_with_a_killed_owner_and_the_next_one_takes_over(
    home, serve, other_process
):
    owner = other_process(home)
    assert owner.stdout.readline() == "owned\n"
    joined = serve(home)
    joined.start()
    assert not joined.owned

    owner.kill()

    until(lambda: lock_is_free(home))
    assert "database system is shut down" in joined.log.read_text()
    joined.ensure()
    assert joined.owned
    assert ask(joined, "SELECT 1") == 1
    assert "automatic recovery" not in joined.log.read_text()


def test_ensure_restarts_a_server_that_was_killed(home, serve):
    server = serve(home)
    server.start()
    os.kill(postmaster(home), signal.SIGKILL)
    until(lambda: not server.owned)
    server.ensure()
    assert server.owned
    assert ask(server, "SELECT 1") == 1


@needs_proc
def test_a_zombie_server_counts_as_dead(home, serve):
    first, second = serve(home), serve(home)
    first.start()
    zombie = postmaster(home)
    os.kill(zombie, signal.SIGKILL)
    # Nobody asks about the first one, so nobody buries it.
    until(lambda: f"{zombie} (postgres) Z" in Path(f"/proc/{zombie}/stat").read_text())

    second.start()

    assert second.owned
    assert "(postgres) Z" in Path(f"/proc/{zombie}/stat").read_text()


@needs_proc
@pytest.mark.parametrize("number", [os.getpid(), 2**22 + 1], ids=["reused", "unused"])
def test_a_stale_pid_file_is_no_obstacle(home, serve, number):
    server = serve(home)
    server.start()
    note = (home / "postgres" / "postmaster.pid").read_text().split("\n", 1)[1]
    socket_lock = home / "postgres" / ".s.PGSQL.5432.lock"
    server.stop()
    (home / "postgres" / "postmaster.pid").write_text(f"{number}\n{note}")
    socket_lock.write_text(f"{number}\n{note}")

    server.start()

    assert ask(server, "SELECT 1") == 1


def test_a_creation_that_was_cut_off_is_done_again(new_home, serve):
    (new_home / "postgres.new" / "base").mkdir(parents=True)
    (new_home / "postgres.new" / "PG_VERSION").write_text("18\n")
    server = serve(new_home)
    server.start()
    assert ask(server, "SELECT 1") == 1
    assert not (new_home / "postgres.new").exists()
