"""What files hold, as one hash: the cache's key, and what tells a resumed run that its images are still the same.

Reading every byte costs what a first decoding costs anyway, so the hash of a set of files is remembered in the cache
under their paths, sizes, times of modification and of change, and inodes. No program sets the time of change: it moves
when a file is written, renamed or replaced, whatever time of modification is restored afterwards.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from biwaa.files import cache_dir, write_text
from biwaa.progress import track

SETTLED = 2.0
"""Seconds after which a change has another time than the one before it, on any file system that has times of change."""


def files_digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the files' contents, in order.

    Raises:
        OSError: a file is not there.
    """
    state = _state(paths)
    memory = cache_dir() / f"{hashlib.sha256(state.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.contents"
    try:
        return memory.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        pass
    digest = hashlib.sha256()
    with track("reading files", len(paths), "files") as advance:
        for done, one in enumerate(_digests(paths), 1):
            digest.update(one)
            advance(done)
    found = digest.hexdigest()
    newest = max((path.stat().st_ctime for path in paths), default=0.0)
    if newest < time.time() - SETTLED and _state(paths) == state:
        _remember(memory, found)
    return found


def _state(paths: Sequence[Path]) -> str:
    """What changes with the files, at the price of a look at each."""
    parts = []
    for path in paths:
        found = path.stat()
        times = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino} {found.st_dev}"
        parts.append(f"{path.absolute()}\0{times}\n")
    return "".join(parts)


def _digests(paths: Sequence[Path]) -> Iterator[bytes]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(_digest, paths)


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:  # an image that cannot be read is reported when it is decoded
        return str(error.errno).encode()


def _remember(memory: Path, digest: str) -> None:
    try:
        write_text(memory, digest)
    except OSError:  # only time is lost
        return
