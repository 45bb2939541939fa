"""What `biwaa predict` does: images stream through, so what is held in memory does not grow with their number.

A folder's names are kept while it is read; lists and standard input are read a line at a time.
"""

import glob
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.images.decoding import SUFFIXES
from biwaa.images.images import FileImages, Images
from biwaa.inference.classifier import stream_predictions
from biwaa.inference.prediction_table import rows, writing
from biwaa.models.saved import load_model
from biwaa.progress import say, track

CHUNK = 1024
"""Files that are opened as one set of images, rounded up to whole batches."""

SPOKEN = 10
"""Unreadable images that are named on standard error; the table has them all."""


def predict_paths(
    run: Path, paths: tuple[str, ...], out: Path, device: str, batch_size: int, top: int = 1
) -> tuple[int, int]:
    """Write predictions of images as a table; an unreadable image has a row that says why instead of a label.

    Args:
        run: a run folder or a model.safetensors.
        paths: see `_files`.
        out: the table, its kind by its suffix.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        top: how many of the likeliest classes to write.

    Returns:
        How many images were predicted, and how many could not be read.

    Raises:
        BiwaaError: no model, or a path that is neither an image nor a domain.
    """
    model = load_model(run)
    if out.is_dir():
        raise BiwaaError(f"{out} is a folder: name the file to write.")
    if not paths:
        raise BiwaaError("name at least one image or folder to predict.")
    if not 1 <= top <= len(model.classes):
        raise BiwaaError(f"--top-k must lie between 1 and the model's {len(model.classes)} classes, not {top}.")
    read = unreadable = 0
    size = max(CHUNK // batch_size, 1) * batch_size
    with writing(out, top) as write, track("predicting", None, "images") as advance:
        for images in image_sets(paths, size):
            names, first = images.names, 0
            for probabilities, bad in stream_predictions(model, images, device, batch_size):
                for row, why in list(bad.items())[: max(SPOKEN - unreadable, 0)]:
                    say(f"unreadable: {names[row]} ({why})")
                here = {row - first: why for row, why in bad.items()}
                write(rows(names[first : first + len(probabilities)], probabilities, here, model.classes, top))
                first += len(probabilities)
                read, unreadable = read + len(probabilities) - len(bad), unreadable + len(bad)
                advance(read + unreadable)
    return read, unreadable


def image_sets(paths: tuple[str, ...], size: int = CHUNK) -> Iterator[Images]:
    """All images in order, in sets of at most `size` where they are files, whatever argument they come from.

    Raises:
        BiwaaError: as of `_files`.
    """
    waiting: list[Path] = []
    for path in paths:
        found = _files(path)
        if isinstance(found, Images):
            yield from _full(waiting)
            waiting = []
            yield found
            continue
        for file in found:
            waiting.append(Path(file))
            if len(waiting) == size:
                yield from _full(waiting)
                waiting = []
    yield from _full(waiting)


def _full(files: list[Path]) -> Iterator[Images]:
    if files:
        yield FileImages(tuple(files))


def _files(path: str) -> Iterable[str] | Images:
    """Paths of images behind an argument, one at a time; or a domain's images that are no files of their own.

    An argument is an image, a folder, a glob, a list (LIST.txt[@ROOT]: a path a line, a label behind it is passed
    over), - for a list on standard input, or any other SPEC.

    Raises:
        BiwaaError: nothing is there. A file that a list names and that is not there is no error: its row says so.
    """
    if path == "-":
        return _listed(sys.stdin, Path())
    file = Path(path).expanduser()
    if file.is_file() and file.suffix.lower() in SUFFIXES:
        return [str(file)]
    if file.is_dir():
        return _some(_below(str(file)), f"no images in {path} (looked for {', '.join(sorted(SUFFIXES))}).")
    listing = re.fullmatch(r"(.+\.txt)(?:@(.+))?", path)
    if listing and Path(listing[1]).expanduser().is_file():
        return _list_file(Path(listing[1]).expanduser(), listing[2])
    if glob.has_magic(path) and not file.exists() and ":" not in path:
        every = glob.iglob(str(file), recursive=True)  # noqa: PTH207 (takes a pattern with its folders)
        matches = (name for name in every if _is_image(name))
        return _some(matches, f"no image matches {path} (looked for {', '.join(sorted(SUFFIXES))}).")
    return open_domain(path).images


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and Path(name).is_file()


def _some(files: Iterator[str], otherwise: str) -> Iterable[str]:
    first = next(files, None)
    if first is None:
        raise BiwaaError(otherwise)
    return itertools.chain([first], files)


def _below(folder: str) -> Iterator[str]:
    """As `sources.images_below`, with no more in memory than the names in one folder."""
    names: list[str] = []
    folders: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
            elif entry.name.startswith(".") or os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122
                continue
            names.append(entry.name)
    names.sort()
    for name in names:
        path = f"{folder}{os.sep}{name}"
        if name in folders:
            yield from _below(path)
        else:
            yield path


def _list_file(file: Path, root: str | None) -> Iterator[str]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        yield from _listed(lines, Path(root).expanduser() if root else file.parent)


def _listed(lines: Iterable[str], root: Path) -> Iterator[str]:
    """The path in each line below `root`, without a label behind it where such a file is not there."""
    for line in lines:
        text = line.strip()
        if not text:
            continue
        labelled = re.fullmatch(r"(.+?)\s+[+-]?\d+", text)
        path = root / text
        if labelled and not path.exists():
            path = root / labelled[1]
        yield str(path)
