"""The images behind a command's paths, in sets of bounded size: memory does not grow with their number."""

import glob
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from biwaa.domains.lines import is_table, list_and_root, list_lines, table_lines
from biwaa.domains.listing import LOOKED_FOR, PassedOver, exists, images_below, is_image, matching
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.files import local
from biwaa.images.images import FileImages, Images

SET_SIZE = 1024  # Most files in a set


def image_sets(paths: tuple[str, ...], passed: PassedOver, size: int = SET_SIZE) -> Iterator[Images]:
    """All images of `paths`, in order. Files of several paths may share a set; other images are one set a path.

    Args:
        paths: images, folders, globs, lists (LIST.txt[@ROOT], a path on each line, with or without a label, or a table
            TABLE.csv[@ROOT]), - for a list on standard input, or any other SPEC.
        passed: takes what the folders have that is no image.
        size: most files in a set.

    Raises:
        BiwaaError: nothing is there. A listed file that does not exist is no error here: reading it will be.
    """
    waiting: list[Path] = []
    for path in paths:
        found = _images(path, passed)
        if isinstance(found, Images):
            yield from _file_set(waiting)
            waiting = []
            yield found
            continue
        for file in found:
            waiting.append(file)
            if len(waiting) == size:
                yield from _file_set(waiting)
                waiting = []
    yield from _file_set(waiting)


def _file_set(files: list[Path]) -> Iterator[Images]:
    if files:
        yield FileImages(tuple(files))


def _images(path: str, passed: PassedOver) -> Iterable[Path] | Images:
    """The files behind one path, one at a time; or a domain's images, which need not be files."""
    if path == "-":
        return _listed(sys.stdin, Path())
    file = local(path)
    if is_image(file):
        return [file]
    if file.is_dir():
        return _not_empty(images_below(file, passed), f"no images in {path}", passed)
    listing = list_and_root(path)
    if listing and exists(listing[0]):
        return _list_file(*listing)
    if glob.has_magic(path) and not file.exists() and ":" not in path:
        return _not_empty(matching(file, passed), f"no image matches {path}", passed)
    return open_domain(path).images


def _not_empty(files: Iterator[Path], otherwise: str, passed: PassedOver) -> Iterable[Path]:
    first = next(files, None)
    if first is None:
        raise BiwaaError(f"{otherwise} ({LOOKED_FOR}{f'; passed over {passed}' if passed.counts else ''}).")
    return itertools.chain([first], files)


def _list_file(file: Path, root: Path) -> Iterator[Path]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="" if is_table(file) else None) as lines:
        if is_table(file):
            yield from (root / line.path for line in table_lines(lines, file, root))
        else:
            yield from _listed(lines, root)


def _listed(lines: Iterable[str], root: Path) -> Iterator[Path]:
    """The file that each line names; a number at the end may be a label, or part of an existing file's name."""
    for line in list_lines(lines):
        whole = root / line.text
        yield whole if line.label and exists(whole) else root / line.path
