"""Files written whole or not at all, and the one place outside run folders that is written to."""

import csv
import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from biwaa.errors import BiwaaError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DRAFT = re.compile(r"\.(?:(.+)\.[a-z0-9_]{8}|tmp[A-Za-z0-9]{6})")
"""What `tempfile` makes of `.NAME.`, and what safetensors writes to before it renames."""


def cache_dir() -> Path:
    """Where decoded pixels and frozen features are kept: $BIWAA_CACHE, else biwaa in the user's cache folder."""
    chosen = os.environ.get("BIWAA_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "biwaa"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` only once the block ended well."""
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path  # a pipe or a device is written to, never replaced
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
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None  # a full disk does not say where
    finally:
        draft.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk: a rename must not overtake what it names."""
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
    """Remove what `replacing` and `building` left in `folder` when their process was killed.

    Only whoever owns the folder may: a draft may be another process's that is at work.

    Args:
        folder: where.
        name: of the file or folder that the drafts are of; any, unless given.
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
    """Keep other processes from writing to `folder`, which exists; a killed process owns nothing any more.

    Raises:
        BiwaaError: another process owns it.
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


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as draft:
        # File names may hold bytes that are no UTF-8; they come out as they are.
        draft.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def csv_line(*cells: str) -> str:
    """A line of CSV that a reader gets the very cells from, whatever ends of lines they hold."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # what is in it gets quoted
    return text.getvalue().removesuffix("\r\n") + "\n"


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill; it becomes `folder` only once the block ended well.

    Two processes may build the same folder at once: the first to finish wins, both find it complete.
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
