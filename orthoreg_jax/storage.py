"""Files of a run: written completely or not at all, and never pickled."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SCRATCH = ".partial"


class StorageError(Exception):
    """A file cannot be read or written; the message says which one, why, and what to do."""


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary name on the same disk that becomes `path` if the block succeeds.

    The content is on disk before it replaces `path`, with the permissions that the process's umask
    gives new files.

    Raises:
      StorageError: the folder cannot be created or written, or the disk is full; no file is left.
    """
    with _writing(path), _scratch(path) as folder:
        scratch = folder / path.name
        yield scratch
        _complete(scratch, folder)
        scratch.replace(path)


@contextlib.contextmanager
def replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder that becomes `path`, with its content, if the block succeeds.

    An existing folder is replaced.

    Raises:
      StorageError: as in `replacing`.
    """
    with _writing(path), _scratch(path) as folder:
        scratch = folder / "new"
        scratch.mkdir()
        yield scratch
        for file in scratch.iterdir():
            _complete(file, folder)
        if path.exists():
            path.rename(folder / "old")
        scratch.rename(path)


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    """Turns errors of the operating system into `StorageError`."""
    try:
        yield
    except Exception as error:
        # safetensors wraps the operating system's error in its own.
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise write_error(path, error) from error
        raise


@contextlib.contextmanager
def _scratch(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A scratch folder next to `path`, removed at the end.

    Its lock shows that its process is alive. Scratch folders for the same path that killed
    processes left are removed, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}."
    _remove_left(path.parent.glob(f"{glob.escape(prefix)}*{SCRATCH}"))
    folder = path.parent / f"{prefix}{secrets.token_hex(4)}{SCRATCH}"
    folder.mkdir()
    try:
        with _opened(folder) as handle:
            _lock(handle)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_scratch(folder: pathlib.Path) -> None:
    """Removes what killed processes left anywhere in a folder while writing.

    New writes remove leftovers for their own files; this is for files that are not written again.
    """
    _remove_left([*folder.rglob(f".*{SCRATCH}")])


def _remove_left(folders: Iterable[pathlib.Path]) -> None:
    """Removes scratch folders that no process has locked."""
    for left in folders:
        with contextlib.suppress(OSError), _opened(left) as handle:
            if _lock(handle):
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: pathlib.Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)  # also releases a lock


def _complete(file: pathlib.Path, folder: pathlib.Path) -> None:
    """Gives a file the permissions of `folder` and flushes it to disk."""
    file.chmod(0o666 & folder.stat().st_mode)  # some libraries make their files private
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: pathlib.Path, error: Exception) -> StorageError:
    """The error for a `path` that cannot be written."""
    reason = str(error)
    if "No space left" in reason:  # some libraries bury it in pages of internal state
        reason = "No space left on device"
    return StorageError(
        f"{path}: cannot be written ({reason}); make the folder writable and free disk space, or "
        "choose another place. Finished work is kept; repeat the command to resume"
    )


@contextlib.contextmanager
def only_one(folder: pathlib.Path, patience: float = 0.0) -> Iterator[None]:
    """Locks a folder against other processes that call this function.

    On systems without file locks, this does nothing.

    Args:
      folder: created if missing; folders inside it have their own locks.
      patience: seconds to wait for another process.

    Raises:
      StorageError: another process has locked the folder, or it cannot be created.
    """
    with contextlib.ExitStack() as stack:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(_opened(folder))
        last = time.monotonic() + patience
        while _lock(handle) is False:
            if time.monotonic() >= last:
                raise StorageError(
                    f"{folder}: another process is using it; wait for it, stop it, or choose "
                    "another --workdir"
                )
            time.sleep(0.1)
        yield


def _lock(handle: int) -> bool | None:
    """Locks an open file: True if done, False if another process has it, None without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return None
    return True


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON; refuses NaN, which JSON does not have."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def cache_folder() -> pathlib.Path | None:
    """The user's cache folder, whether or not it exists.

    None if the user has no home folder and XDG_CACHE_HOME is not set.
    """
    try:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # neither HOME nor an entry in the user database
        return None
    return home / "orthoreg_jax"


def read_text(path: pathlib.Path) -> str:
    """Reads a text file.

    Raises:
      StorageError: the file does not exist, or is not UTF-8.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait forever
        raise StorageError(f"{path}: cannot be read (not a file)")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read ({error})") from error


def read_json(path: pathlib.Path) -> Any:
    """Reads JSON.

    Raises:
      StorageError: the file does not exist, or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        raise StorageError(f"{path}: cannot be read ({error})") from error


def write_sealed(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON table and the hash of its content, under "sha256"."""
    write_json(path, {**value, "sha256": json_sha256(value)})


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `write_sealed` wrote; checks and removes the hash.

    Raises:
      StorageError: the file does not exist, is not JSON, or has changed since it was written.
    """
    value = read_json(path)
    seal = value.pop("sha256", None) if isinstance(value, dict) else None
    if seal != json_sha256(value):
        raise StorageError(
            f"{path}: has changed since it was written (its hash differs); it is damaged, or was "
            "edited by hand"
        )
    checked: dict[str, Any] = value
    return checked


def json_sha256(value: Any) -> str:
    """Hash of a JSON value, independent of the file's formatting."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
