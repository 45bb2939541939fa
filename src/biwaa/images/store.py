"""The store of decoded images: each is decoded once, to 8-bit arrays that all runs and processes share.

- decoding uses all cores and keeps the order; large JPEGs are decoded at a fraction of their size
- objects that users hand over are read on one thread
- `stored` is the one cache, for pixels and for frozen features; the key is all that an array was made from
- an image that cannot be decoded is recorded with its row and the reason, never silently replaced
- channels are last, as decoders write them and as crops and convolutions read them fastest
"""

import errno
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from numpy.typing import NDArray

from biwaa.files import building, cache_dir, forget_drafts, hold_folder, open_cache
from biwaa.images.images import Images
from biwaa.images.unreadable import reason
from biwaa.progress import track

DECODING = 3
"""Version of the way from a file to pixels; part of every key, so that a new way finds no arrays of an older one."""

Row = NDArray[np.uint8] | str  # (size, size, 3) pixels, or the reason why there are none
Fill = Callable[[NDArray[Any]], dict[int, str]]
"""Writes all rows of the array that it gets, and returns the unreadable ones with the reasons."""


@dataclass(frozen=True)
class Stored:
    """An array with a row for each image."""

    rows: NDArray[Any]
    unreadable: dict[int, str]  # Row -> the reason why its image could not be decoded; such rows are zero


def decode(images: Images, size: int) -> Iterator[Row]:
    """Every image in order, as (size, size, 3) uint8 RGB; bilinear, aspect not kept.

    Objects that a user has handed over are read on the calling thread, one after the other, and resized on all cores.
    """

    def attempt(work: Callable[[], Row]) -> Row:
        try:
            return work()
        except Exception as error:  # decoders raise any kind; the image is unreadable either way
            return reason(error)

    def read(index: int) -> Row:
        return attempt(lambda: images.read(index, size))

    def finish(found: Row | int) -> Row:
        pixels = read(found) if isinstance(found, int) else found
        return pixels if isinstance(pixels, str) else attempt(lambda: resized(pixels, size))

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Row]] = deque()
        for index in range(len(images)):
            ahead.append(pool.submit(finish, index if images.threads else read(index)))
            if len(ahead) > 8 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> (size, size, 3), bilinear with antialiasing: within 2 of 255 of Pillow's, several times as fast."""
    pixels = torch.from_numpy(image).unsqueeze(0).permute(0, 3, 1, 2)
    square = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return square[0].permute(1, 2, 0).numpy()


def decode_batches(images: Images, size: int, batch: int) -> Iterator[tuple[NDArray[np.uint8], dict[int, str]]]:
    """`decode` in batches of (n, size, size, 3), each with its unreadable rows, numbered over all images."""
    pixels: list[NDArray[np.uint8]] = []
    bad: dict[int, str] = {}
    for index, row in enumerate(decode(images, size)):
        if isinstance(row, str):
            bad[index] = row
            row = np.zeros((size, size, 3), dtype=np.uint8)
        pixels.append(row)
        if len(pixels) == batch or index == len(images) - 1:
            yield np.stack(pixels), bad
            pixels, bad = [], {}


def stored(key: str, shape: tuple[int, ...], dtype: str, fill: Fill) -> Stored:
    """The array that the store has under `key`; made now if there is none.

    Args:
        key: everything that the rows depend on.
        shape: of the whole array.
        dtype: by NumPy's name.
        fill: makes them.
    """
    folder = _place(key)
    if found := _found(folder, shape):  # a shared cache may be one to read only
        return found
    open_cache()
    with FileLock(folder.with_suffix(".lock")):  # one process makes it, others wait
        return _found_or_made(folder, shape, dtype, fill)


def _place(key: str) -> Path:
    return cache_dir() / hashlib.sha256(key.encode()).hexdigest()[:32]


def _found_or_made(folder: Path, shape: tuple[int, ...], dtype: str, fill: Fill) -> Stored:
    if found := _found(folder, shape):
        return found
    _remove(folder)
    forget_drafts(folder.parent, folder.name)  # the lock is held, so their process has ended
    with building(folder) as draft:
        rows = np.lib.format.open_memmap(draft / "rows.npy", mode="w+", dtype=dtype, shape=shape)
        _reserve(draft / "rows.npy")
        unreadable = fill(rows)
        rows.flush()
        del rows
        (draft / "unreadable.json").write_text(json.dumps(unreadable))
    return _open_stored(folder)


def _found(folder: Path, shape: tuple[int, ...]) -> Stored | None:
    try:
        found = _open_stored(folder)
    except (OSError, ValueError, EOFError):
        return None  # not there, or damaged
    # An array with unreadable rows is made again: the files may be readable by now.
    return found if found.rows.shape == shape and not found.unreadable else None


def _reserve(path: Path) -> None:
    """Take a file's whole size from the disk now: on a full disk, writing to a mapped file would kill the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise OSError(error.errno, os.strerror(error.errno or 0), str(cache_dir())) from None


def _open_stored(folder: Path) -> Stored:
    rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
    hold_folder(folder, rows)  # `biwaa cache --clear` leaves it alone
    unreadable = json.loads((folder / "unreadable.json").read_text())
    return Stored(rows, {int(row): why for row, why in unreadable.items()})


def _remove(folder: Path) -> None:
    for name in ("rows.npy", "unreadable.json"):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir():
        folder.rmdir()


def store_pixels(images: Images, name: str, size: int) -> Stored:
    """All images as (N, size, size, 3) uint8, memory-mapped; decoded now unless the store has them.

    Args:
        images: N of them.
        name: for the progress display.
        size: pixels a side.
    """
    fill = filling(decode_batches(images, size, 64), f"decoding {name}")
    return stored(_pixels_key(images, size), (len(images), size, size, 3), "uint8", fill)


def filling(batches: Iterable[tuple[NDArray[Any], dict[int, str]]], what: str) -> Fill:
    """Fills an array with batch after batch, each with its unreadable rows; `what` is for the progress display."""

    def fill(rows: NDArray[Any]) -> dict[int, str]:
        unreadable: dict[int, str] = {}
        done = 0
        with track(what, len(rows), "images") as advance:
            for part, bad in batches:
                rows[done : done + len(part)] = part
                unreadable |= bad
                done += len(part)
                advance(done)
        return unreadable

    return fill


def _pixels_key(images: Images, size: int) -> str:
    return f"pixels {DECODING} {size} {images.fingerprint()}"


def pixel_batches(images: Images, size: int, batch: int) -> Iterator[tuple[NDArray[np.uint8], dict[int, str]]]:
    """As `decode_batches`, but read from the store if `store_pixels` has put the same images there."""
    found = _found(_place(_pixels_key(images, size)), (len(images), size, size, 3))
    if not found:
        yield from decode_batches(images, size, batch)
        return
    for start in range(0, len(images), batch):
        yield np.array(found.rows[start : start + batch]), {}
