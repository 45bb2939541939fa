"""Files and folders that appear complete or not at all, locks on folders, and the cache folder."""

import csv
import errno
import io
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from biwaa.errors import BiwaaError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DRAFT = re.compile(r"\.(?:(.+)\.[a-z0-9_]{8}|tmp[A-Za-z0-9]{6})")
"""Names of drafts: `tempfile`'s after `.NAME.`, and safetensors' own."""


ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)")
"""An address such as s3://bucket/photos, also with the one slash that a `Path` leaves of two."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path, with ~ or ~USER at its start as that home folder; a file whose name starts so is left as it is."""
    given = Path(path)
    if not str(path).startswith("~") or os.path.lexists(given):
        return given
    try:
        return given.expanduser()
    except RuntimeError:  # nobody is called so
        return given


def local(path: str | os.PathLike[str]) -> Path:
    """As `expanded`, of a path that must be one of this machine's.

    Raises:
        BiwaaError: it is an address, or a path of Windows elsewhere.
    """
    text = os.fspath(path)
    if os.path.lexists(text):
        return Path(text)
    found = ADDRESS.fullmatch(text)
    if found and (len(found[2]) > 1 or isinstance(path, Path)):
        if found[1].lower() == "file":
            raise BiwaaError(f"{text} is an address: write the path alone, /{found[3].removeprefix('localhost/')}.")
        raise BiwaaError(f"{text} is an address: biwaa reads and writes files of this machine, so copy it here.")
    if os.name != "nt" and re.match(r"[A-Za-z]:[\\/]", text):
        raise BiwaaError(f"{text} is a path of Windows, and this system has other paths; under WSL, C:\\ is /mnt/c/.")
    return expanded(text)


def cache_dir() -> Path:
    """The folder for decoded pixels and frozen features: $BIWAA_CACHE, or biwaa in the user's cache folder."""
    chosen = os.environ.get("BIWAA_CACHE")
    try:
        if chosen:
            return expanded(chosen)
        return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "biwaa"
    except RuntimeError:
        raise BiwaaError("there is no home folder for the cache: set BIWAA_CACHE to a folder of your own.") from None


def open_cache() -> Path:
    """`cache_dir`, made if there is none.

    Raises:
        BiwaaError: it cannot be made or written to.
    """
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise BiwaaError(
            f"the cache {folder} cannot be written to ({error.strerror}): set BIWAA_CACHE to a folder that can be."
        ) from None
    return folder


def check_new(path: Path | None, overwrite: bool) -> None:
    """Refuse to write over a file unasked; a pipe or a device is written to.

    Raises:
        BiwaaError: the file is there, and `overwrite` is off.
    """
    if path and path.is_file() and not overwrite:
        raise BiwaaError(f"{path} is there already: pass --overwrite to replace it, or name another file with --out.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft next to `path` to write to; it becomes `path` once the block has ended without an error.

    Raises:
        BiwaaError: `path` is not one of this machine's.
    """
    path = local(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path  # a pipe or a device is written to directly
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file to write", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        _sync(draft)
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o666 & ~umask)
        draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(draft)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None  # a full disk's error names no path
    finally:
        draft.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk: the content must be there before its new name."""
    if path.is_dir() and os.name == "nt":
        return  # a folder cannot be opened there
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def forget_drafts(folder: Path, name: str = "") -> None:
    """Remove the drafts in `folder` that `replacing` and `building` left when their process was killed.

    Call it only with a lock on the folder: otherwise another process may still be writing a draft.

    Args:
        folder: of the drafts.
        name: of the file or folder that the drafts are for; any, unless given.
    """
    for draft in folder.iterdir() if folder.is_dir() else ():
        found = DRAFT.fullmatch(draft.name)
        if not found or (name and found[1] not in (name, None)):
            continue
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock an existing folder against other processes; the lock of a killed process is released.

    Raises:
        BiwaaError: another process holds the lock.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BiwaaError(f"another process is at work in {folder}: wait for it or name another folder.") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def hold_folder(folder: Path, holder: object) -> None:
    """Share a folder with other readers for as long as `holder` lives: `lock_folder` then finds it at work.

    Its time of change becomes now, the last use. Where there are no locks, or no right to them, nothing happens.

    Raises:
        OSError: it is gone, or is being removed.
    """
    if fcntl is None:
        return
    handle = os.open(folder, os.O_RDONLY)
    weakref.finalize(holder, os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks
    with suppress(OSError):
        os.utime(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    with replacing(path) as draft:
        # Bytes of file names that are not UTF-8 are written unchanged.
        draft.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def json_text(content: Any) -> str:
    """What a JSON file holds, indented."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def csv_line(*cells: str) -> str:
    """A line of CSV; a reader gets back the same cells, also where they have ends of lines."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # cells with a part of the terminator are quoted
    return text.getvalue().removesuffix("\r\n") + "\n"


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A new folder to fill; it becomes `folder` once the block has ended without an error.

    Two processes may build the same folder at once: the first to finish wins, and both find it complete.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield draft
        for path in (*draft.iterdir(), draft):
            _sync(path)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        _sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
