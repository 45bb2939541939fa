"""The cache by what lies in it, and how it is emptied: of it, only what a name and a lock show to be ours and unused.

- a process holds each array that it has open (`files.hold_folder`), and the lock of each that it is making
- removing an array costs its next run the time to make it again, and nothing else
"""

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from biwaa.errors import BiwaaError
from biwaa.files import cache_dir, lock_folder

KEY = re.compile(r"(\.?)([0-9a-f]{32})(\.\w+)?")
"""A stored array's folder; after a point, with letters behind, one that was not finished."""
DAY = 86400.0


class Entry(NamedTuple):
    """One thing in the cache."""

    path: Path
    kind: str
    size: int  # Bytes
    used: float  # When a run last opened it, in seconds since 1970


def entries() -> list[Entry]:
    """All that is ours in the cache, sorted by kind; other files in the folder are not touched."""
    folder = cache_dir()
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [Entry(path, kind, _size(path), path.stat().st_mtime) for path in paths if (kind := _kind(path))]
    return sorted(found, key=lambda entry: entry.kind)


def older(found: Sequence[Entry], days: float) -> list[Entry]:
    """Those that no run has opened for so many days.

    Raises:
        BiwaaError: a negative number of days.
    """
    if not days >= 0:
        raise BiwaaError(f"--older-than takes a number of days from 0 up, not {days:g}.")
    return [entry for entry in found if entry.used <= time.time() - days * DAY]


def clear(found: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Remove entries; those removed, and those kept since a running process uses them or they cannot be removed."""
    removed: list[Entry] = []
    kept: list[Entry] = []
    for entry in found:
        (removed if _remove(entry.path) else kept).append(entry)
    return removed, kept


def summed(found: Sequence[Entry]) -> Iterator[tuple[str, int, int]]:
    """Kind, how many and bytes, of each kind in order."""
    for kind in dict.fromkeys(entry.kind for entry in found):
        mine = [entry.size for entry in found if entry.kind == kind]
        yield kind, len(mine), sum(mine)


def _kind(path: Path) -> str:
    """What it is, in words; empty for what is not ours to remove."""
    if path.name == "matplotlib":
        return "fonts"
    if path.name.startswith("bundled-digits-") and path.suffix == ".npz":
        return "bundled digits"
    named = KEY.fullmatch(path.name)
    if not named or named[3] == ".lock":
        return ""
    if not path.is_dir():
        return "hashes of files"
    if named[1]:
        return "unfinished"
    try:
        rows = np.load(path / "rows.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return "damaged"
    return "decoded images" if rows.dtype == np.uint8 else "frozen features"


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in (path.rglob("*") if path.is_dir() else [path]) if part.is_file())


def _remove(path: Path) -> bool:
    named = KEY.fullmatch(path.name)
    try:
        if not named or not path.is_dir():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return True
        with FileLock(path.with_name(f"{named[2]}.lock"), timeout=0), lock_folder(path):
            shutil.rmtree(path)
    except (Timeout, BiwaaError, OSError):  # it is being made, or read, or is another user's
        return False
    return True
