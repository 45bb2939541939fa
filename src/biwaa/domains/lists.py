"""Domains from lists: text files with lines `PATH LABEL`, and CSV tables with columns path and label.

A benchmark of the catalogue is opened with `class_of`, as in `sources`.
"""

from collections import Counter
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING, LabelKind
from biwaa.domains.lines import Line, is_table, list_lines, table_lines
from biwaa.domains.listing import alphabetical, exists, locked_folder
from biwaa.domains.sources import ClassOf
from biwaa.errors import BiwaaError, listed
from biwaa.images.images import FileImages


def open_list(spec: str, file: Path, root: Path, class_of: ClassOf | None = None) -> Domain:
    """A list of `PATH LABEL` lines, a CSV table of paths and labels, or either with paths alone.

    Args:
        spec: for messages.
        file: the list.
        root: the folder that its paths start from.
        class_of: see the module.

    Raises:
        BiwaaError: no list, a line without a label, labels with gaps; or, without `class_of`, a missing image.
    """
    table = is_table(file)
    try:
        with file.open(encoding="utf-8-sig", newline="" if table else None) as opened:
            lines = list(table_lines(opened, file, root) if table else list_lines(opened))
    except OSError as error:
        raise BiwaaError(f"no such list file: {file} ({error.strerror}).") from None
    except ValueError:
        raise BiwaaError(f"{file} is not a text file in UTF-8: save it as one.") from None
    shape = "path,label" if table else "PATH LABEL"
    if not lines:
        raise BiwaaError(f"{file} is empty: it needs a line `{shape}` for each image.")
    unlabelled = [line for line in lines if line.label is None]
    if unlabelled and len(unlabelled) < len(lines) and not table:
        number, text = unlabelled[0].number, unlabelled[0].text[:200]
        raise BiwaaError(f"{file}, line {number}: no label after the path in {text!r}; write `{shape}`.")
    paths = [root / line.path for line in lines]
    if class_of:
        return _listed_classes(spec, paths, class_of)
    for line, path in zip(lines, paths, strict=True):
        if not exists(path):
            _refuse_missing(spec, file, line, path)
    images = FileImages(tuple(paths))
    if len(unlabelled) == len(lines):
        return Domain(spec, images)
    if table:
        classes = tuple(sorted({line.label for line in lines if line.label is not None}, key=alphabetical))
        number_of: dict[str | None, int] = {None: MISSING} | {name: number for number, name in enumerate(classes)}
        return Domain(spec, images, classes, np.array([number_of[line.label] for line in lines], dtype=np.int64))
    numbers: list[int] = []
    for line in lines:
        digits = str(line.label)
        label = int(digits) if len(digits) < 20 else len(lines)
        if not MISSING <= label < len(lines):
            raise BiwaaError(
                f"{file}, line {line.number}: label {digits[:40]} is out of range; labels count from 0, and -1 is a "
                "missing one."
            )
        numbers.append(label)
    labels = np.array(numbers, dtype=np.int64)
    if (labels == MISSING).all():
        return Domain(spec, images)
    classes = _list_classes(file, paths, labels)
    kind: LabelKind = "integer" if classes == tuple(str(label) for label in range(len(classes))) else "text"
    return Domain(spec, images, classes, labels, label_kind=kind)


def _refuse_missing(spec: str, file: Path, line: Line, path: Path) -> NoReturn:
    """Raise an error for a line of a list whose image is not there."""
    words = str(path).rsplit(maxsplit=1)
    if not is_table(file) and len(words) == 2 and exists(Path(words[0])):
        raise BiwaaError(f"{file}, line {line.number}: the label {words[1][:200]!r} is not a whole number from 0 up.")
    if locked := locked_folder(path):
        raise BiwaaError(f"{file}, line {line.number}: the folder {locked} cannot be read: make it readable.")
    hint = "" if "@" in spec else f" Name the folder that paths start from with {spec}@ROOT."
    raise BiwaaError(f"{file}, line {line.number}: no such image: {str(path)[:500]}.{hint}")


def _listed_classes(spec: str, paths: list[Path], class_of: ClassOf) -> Domain:
    """The images that are there, with classes by their folders' names; the others are the domain's `absent`."""
    of_benchmark = [(path, name) for path in paths if (name := class_of(path.parent.name))]
    found = [(path, name) for path, name in of_benchmark if exists(path)]
    absent = {path for path, _ in of_benchmark} - {path for path, _ in found}
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for _, name in found))}
    labels = np.array([numbers[name] for _, name in found], dtype=np.int64)
    if locked := next(filter(None, map(locked_folder, absent)), None):
        raise BiwaaError(f"the folder {locked} cannot be read: make it readable.")
    missing = tuple(sorted(map(str, absent)))
    return Domain(spec, FileImages(tuple(path for path, _ in found)), tuple(numbers), labels, absent=missing)


def _list_classes(file: Path, paths: list[Path], labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Names of a list's classes: the images' folders if each label has its own folder, otherwise the numbers."""
    total = int(labels.max()) + 1
    known = [(label, path.parent.name) for label, path in zip(labels.tolist(), paths, strict=True) if label != MISSING]
    absent = sorted(set(range(total)) - {label for label, _ in known})
    if absent and len(known) == len(labels):
        names = listed([str(label) for label in absent])
        raise BiwaaError(f"{file}: no image has label {names}, though labels go up to {total - 1} (out of range?).")
    pairs = Counter(known)
    if len(pairs) == total and len({name for _, name in pairs}) == total:
        return tuple(name for _, name in sorted(pairs))
    return tuple(str(label) for label in range(total))
