"""What counts as an image, how folders are walked and how lists are read: the same rules for every command.

Everything here is lazy: a folder's names are in memory while that folder is read, a list's lines one at a time.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from biwaa.files import local
from biwaa.images.decoding import SUFFIXES

LOOKED_FOR = f"looked for {', '.join(sorted(SUFFIXES))}"  # For messages about a place without images


class Line(NamedTuple):
    """A line of a list that is not blank."""

    number: int  # Counted from 1
    text: str  # The whole line, without the space around it
    path: str  # All before the label, spaces included; the whole line where there is no label
    label: str | None  # The last word, where it is a whole number


def exists(path: Path | os.DirEntry[str]) -> bool:
    """Whether there is such a file; of a name that no file can have, False."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte; a link to itself
        return False


def is_image(path: Path) -> bool:
    """Whether a file is there and its name ends like an image's."""
    return path.suffix.lower() in SUFFIXES and exists(path)


def images_below(folder: str | Path) -> Iterator[Path]:
    """Every image in `folder` and the folders below it, sorted; hidden files and links to folders are left out."""
    names: dict[str, bool] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                names[entry.name] = True
            elif not entry.name.startswith(".") and Path(entry.name).suffix.lower() in SUFFIXES and exists(entry):
                names[entry.name] = False
    for name in sorted(names):
        path = f"{folder}{os.sep}{name}"
        if names[name]:
            yield from images_below(path)
        else:
            yield Path(path)


def list_lines(lines: Iterable[str]) -> Iterator[Line]:
    """The lines of a list: `PATH LABEL`, or a path alone."""
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            words = text.rsplit(maxsplit=1)
            labelled = len(words) == 2 and re.fullmatch(r"[+-]?[0-9]+", words[1])
            yield Line(number, text, *words) if labelled else Line(number, text, text, None)


def list_and_root(spec: str) -> tuple[Path, Path] | None:
    """LIST.txt[@ROOT] as the list and the folder that its paths start from; None for any other SPEC."""
    found = re.fullmatch(r"(.+\.txt)(?:@(.+))?", spec)
    if not found:
        return None
    file = local(found[1])
    return file, local(found[2]) if found[2] else file.parent
