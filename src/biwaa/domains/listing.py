"""What counts as an image and how folders are walked: the same rules for every command.

- hidden names and the helper folders of other programs count nowhere, at any depth
- links to folders are followed only where they are named: as a domain, as one of its class folders, or by a glob
- everything that is passed over is counted with its reason; a folder that cannot be read is an error

Everything here is lazy: a folder's names are in memory while that folder is read.
"""

import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path

from biwaa.errors import BiwaaError, listed
from biwaa.images.decoding import SUFFIXES

LOOKED_FOR = f"looked for {', '.join(sorted(SUFFIXES))}"  # For messages about a place without images
HELPERS = frozenset({"@eadir", "__macosx", "__pycache__", "#recycle", "$recycle.bin", "lost+found"})
"""Folders that other programs leave, in lower case: of network disks, of macOS's archives, bins."""


class Why(Enum):
    """Why something was passed over, in words for one and for several."""

    ENDING = "file without an image's ending", "files without an image's ending"
    HELPER = "hidden image or helper folder", "hidden images and helper folders"
    LINK = "link to a folder", "links to folders"
    BROKEN = "broken link", "broken links"
    CLASS = "folder of no class of the benchmark", "folders of no class of the benchmark"


@dataclass
class PassedOver:
    """What a listing left out, and why."""

    counts: Counter[Why] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    """Of files that do not end like an image, in lower case; "" for none."""
    first: dict[Why, str] = field(default_factory=dict)
    """A path for each reason."""

    def add(self, why: Why, path: str | Path) -> None:
        """Count one."""
        self.counts[why] += 1
        self.first.setdefault(why, str(path))
        if why is Why.ENDING:
            self.endings[Path(path).suffix.lower()] += 1

    def join(self, other: "PassedOver", *reasons: Why) -> None:
        """Count what `other` has of these reasons."""
        for why in reasons:
            if other.counts[why]:
                self.counts[why] += other.counts[why]
                self.first.setdefault(why, other.first[why])

    def numbers(self) -> dict[str, int]:
        """How many for each reason, by its short name."""
        return {why.name.lower(): count for why, count in self.counts.items() if count}

    def __str__(self) -> str:
        """All reasons with their numbers, on one line; empty if nothing was passed over."""
        return ", ".join(self._part(why) for why in Why if self.counts[why])

    def _part(self, why: Why) -> str:
        count = self.counts[why]
        named = f"{self.first[why]}{' ..' if count > 1 else ''}"
        if why is Why.ENDING:
            shown = [(repr(end) if end != end.strip() else end) or "none" for end, _ in self.endings.most_common()]
            pairs = zip(shown, self.endings.most_common(), strict=True)
            named = listed([f"{end} {number}" for end, (_, number) in pairs])
        return f"{count} {why.value[count > 1]} ({named})"


def exists(path: Path | os.DirEntry[str]) -> bool:
    """Whether there is such a file; of a name that no file can have, False."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte; a link to itself
        return False


def locked_folder(path: Path) -> Path | None:
    """The folder that hides a file since it cannot be entered; None where the file is there, or nowhere."""
    try:
        path.stat()
    except PermissionError:
        return path.parent
    except (OSError, ValueError):
        return None
    return None


def is_image(path: Path) -> bool:
    """Whether a file is there and its name ends like an image's."""
    return path.suffix.lower() in SUFFIXES and exists(path)


def alphabetical(name: str) -> tuple[str, str]:
    """What classes are sorted by: the alphabet, regardless of case."""
    return name.casefold(), name


def is_helper(name: str) -> bool:
    """Whether a file or folder is hidden, or a helper folder of another program."""
    return name.startswith(".") or name.casefold() in HELPERS


def scan(
    folder: str | Path, passed: PassedOver, follow: bool = False, wanted: Callable[[str], bool] = bool
) -> dict[str, bool]:
    """The names in a folder that count: True for a folder, False for an image.

    Args:
        folder: to read.
        passed: takes what does not count.
        follow: count links to folders as folders.
        wanted: whether a name is asked for; all, unless given.

    Raises:
        BiwaaError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            kinds = {entry.name: _is_folder(entry, passed, follow) for entry in entries if wanted(entry.name)}
    except OSError as error:
        raise BiwaaError(
            f"the folder {folder} cannot be read ({error.strerror}): make it readable or move it away."
        ) from None
    return {name: kind for name, kind in sorted(kinds.items()) if kind is not None}


def _is_folder(entry: os.DirEntry[str], passed: PassedOver, follow: bool) -> bool | None:
    """True for a folder, False for an image, None for what is passed over."""
    folder, looks = entry.is_dir(follow_symlinks=False), Path(entry.name).suffix.lower() in SUFFIXES
    if is_helper(entry.name):
        if folder or looks:
            passed.add(Why.HELPER, entry.path)
    elif folder or (follow and _leads_to_folder(entry)):
        return True
    elif _leads_to_folder(entry):
        passed.add(Why.LINK, entry.path)
    elif entry.is_symlink() and not exists(entry):
        passed.add(Why.BROKEN, entry.path)
    elif looks and exists(entry):
        return False
    else:
        passed.add(Why.ENDING, entry.path)
    return None


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself, or into a locked folder
        return False


def images_below(folder: str | Path, passed: PassedOver) -> Iterator[Path]:
    """Every image in `folder` and the folders below it, sorted.

    Raises:
        BiwaaError: a folder cannot be read.
    """
    for name, is_folder in scan(folder, passed).items():
        path = f"{folder}{os.sep}{name}"
        if is_folder:
            yield from images_below(path, passed)
        else:
            yield Path(path)


def matching(pattern: Path, passed: PassedOver) -> Iterator[Path]:
    """The images that a glob matches, and those below the folders that it matches, as a shell would name them.

    Case matters in all but the ending, so that `*.jpg` finds a.JPG too. `**` stands for any number of folders.

    Raises:
        BiwaaError: a folder cannot be read.
    """
    fixed = list(pattern.parts)
    magic = next(place for place, part in enumerate(fixed) if glob.has_magic(part))
    yield from _matching(Path(*fixed[:magic]), fixed[magic:], passed)


def _matching(folder: Path, parts: list[str], passed: PassedOver) -> Iterator[Path]:
    if not parts or parts == ["**"]:
        if folder.is_dir():
            yield from images_below(folder, passed)
        elif is_image(folder):
            yield folder
        return
    here, *rest = parts
    if here == "**":
        yield from _matching(folder, rest, passed)
        beside = PassedOver()
        folders = [name for name, is_folder in scan(folder, beside).items() if is_folder] if folder.is_dir() else []
        passed.join(beside, Why.LINK)  # the files are for the rest of the pattern to judge
        for name in folders:
            yield from _matching(folder / name, parts, passed)
    elif not glob.has_magic(here):
        yield from _matching(folder / here, rest, passed)
    elif folder.is_dir():
        for name in scan(folder, passed, follow=True, wanted=partial(_matches, here)):
            yield from _matching(folder / name, rest, passed)


def _matches(pattern: str, name: str) -> bool:
    """As in a shell, but that the ending may be written in either case."""
    asked, found = Path(pattern), Path(name)
    alike = found.suffix.lower() == asked.suffix.lower() and fnmatch.fnmatchcase(found.stem, asked.stem)
    return alike or fnmatch.fnmatchcase(name, pattern)
