"""Files written whole or not at all, and the one place outside run folders that is written to."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o666 & ~umask)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as draft:
        # File names may hold bytes that are no UTF-8; they come out as they are.
        draft.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill; it becomes `folder` only once the block ended well.

    Two processes may build the same folder at once: the first to finish wins, both find it complete.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield draft
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
