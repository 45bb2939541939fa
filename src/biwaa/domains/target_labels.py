"""A few labels of the target that are handed over to be trained on: a CSV file, a table, or one label a row.

Everything else of a target's labels stays out of training's reach; what is handed over here is named by the caller.
"""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.classes import classes_by_form, lookalikes, match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING, UNKNOWN, Labels, read_labels
from biwaa.domains.lines import table_lines
from biwaa.errors import BiwaaError, listed
from biwaa.files import local
from biwaa.paths import places

NAME = "target_labels"
MOST = 10_000
"""Rows of a file at most: of more, an image's label is no longer a few labels of a target, but a source."""
MOST_BYTES = 2**24
ACCEPTED = "a CSV file with the columns path and label, a mapping from paths to labels, or one label a target image"


class _Given(NamedTuple):
    """Labels as they were handed over."""

    where: str
    values: Sequence[Any]
    paths: Sequence[str] | None = None  # None: one value a target image, in their order
    lines: Sequence[int] | None = None  # Of a file

    def at(self, place: int) -> str:
        """Where a label stands."""
        return f"{self.where}, line {self.lines[place]}" if self.lines else f"{self.where}, label {place + 1}"


def target_labels(given: Any, target: Domain, classes: tuple[str, ...], source: str) -> NDArray[np.int64]:
    """(N,) the classes of the target images whose labels are handed over, and MISSING for all others.

    Args:
        given: a CSV file; a mapping from paths to labels, or a table with the columns path and label; or (N,) labels,
            of which None, NaN, -1 and empty text are missing.
        target: N images.
        classes: of the source.
        source: its SPEC, for messages.

    Raises:
        BiwaaError: not readable as any of these, an image that the target does not have, or twice, a label that is no
            class, no label at all, or one for every image.
    """
    handed = _read(given)
    found = np.full(len(target.images), MISSING, dtype=np.int64)
    rows = np.arange(len(found)) if handed.paths is None else _rows(handed, target)
    labels = read_labels(handed.values, len(rows), handed.where)
    if labels is None:
        raise BiwaaError(f"{handed.where} has no label filled in: write a class beside some images, or leave it out.")
    known = labels.numbers != MISSING
    _check_classes(handed, labels, classes, source)
    as_domain = Domain(handed.where, target.images, labels.classes, labels.numbers)
    numbers = match_classes(as_domain, classes, other=source).labels
    assert numbers is not None  # there are labels
    found[rows[known]] = numbers[known]
    if (found != MISSING).all():
        raise BiwaaError(
            f"{handed.where} has a label for each of the {len(found)} target images: nothing is left to adapt to; "
            "train on them as a --source."
        )
    return found


def _read(given: Any) -> _Given:
    if isinstance(given, str | os.PathLike):
        return _read_file(local(Path(given)))
    if hasattr(given, "columns") and hasattr(given, "to_dict"):  # a data frame
        given = {str(name): list(given[name]) for name in given.columns}
    if isinstance(given, Mapping):
        table = {"path", "label"} <= {*given} and not isinstance(given["path"], str)
        paths, values = (given["path"], given["label"]) if table else (given.keys(), given.values())
        named = [str(Path(path)) if isinstance(path, os.PathLike) else str(path) for path in paths]
        if len(named) != len(list(values)):
            raise BiwaaError(f"{NAME} has {len(named)} paths and {len(list(values))} labels: give each path one label.")
        return _Given(NAME, list(values), named)
    if not isinstance(given, Iterable) or isinstance(given, bytes | set):
        raise BiwaaError(f"{NAME} is of type {type(given).__name__}: give {ACCEPTED}.")
    return _Given(NAME, given)  # type: ignore[arg-type]  # `read_labels` takes what it can


def _read_file(file: Path) -> _Given:
    if not file.is_file():
        raise BiwaaError(f"no such file: {file}; the labels of some target images are {ACCEPTED}.")
    too_many = (
        f"{file} has more than {MOST} lines or {MOST_BYTES >> 20} MB: target labels are some hundreds; train on that "
        "many as a --source."
    )
    if file.stat().st_size > MOST_BYTES:
        raise BiwaaError(too_many)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = list(islice(table_lines(opened, file, file.parent), MOST + 1))
    except ValueError:
        raise BiwaaError(f"{file} is not a text file in UTF-8: save it as one.") from None
    if len(lines) > MOST:
        raise BiwaaError(too_many)
    return _Given(
        str(file), [line.label for line in lines], [line.path for line in lines], [line.number for line in lines]
    )


def _check_classes(given: _Given, labels: Labels, classes: tuple[str, ...], source: str) -> None:
    """Make sure that every label is a class of the source; NFC as everywhere.

    Raises:
        BiwaaError: one is none.
    """
    allowed = classes_by_form(source, classes)
    for number, name in enumerate(labels.classes):
        if unicodedata.normalize("NFC", name) not in allowed:
            place = int(np.flatnonzero(labels.numbers == number)[0])
            alike = "".join(f" ({one})" for one in lookalikes([name], list(allowed.values())))
            way_out = "add --unknown auto" if name == UNKNOWN else "correct the label"
            raise BiwaaError(
                f"{given.at(place)}: {name[:200]} is no class of {source}{alike}, which has {listed(list(classes))}: "
                f"{way_out}, or leave it out."
            )


def _rows(given: _Given, target: Domain) -> NDArray[np.int64]:
    """(M,) the target's row of each path."""
    paths = given.paths or ()
    found = places(paths, target.images.names)
    for place, row in enumerate(found):
        if row is None:
            count = sum(row is None for row in found)
            more = f" and {count - 1} more" if count > 1 else ""
            like = listed(list(target.images.names[:1]))
            raise BiwaaError(
                f"{given.at(place)}: {target.spec} has no image {paths[place][:500]}{more}, or several that end so: "
                f"its images are called like {like}."
            )
    first: dict[int | None, int] = {}
    for place, row in enumerate(found):
        if row in first:
            also = f"line {given.lines[first[row]]}" if given.lines else paths[first[row]]
            raise BiwaaError(f"{given.at(place)}: {paths[place][:500]} is there twice ({also}): keep one of the two.")
        first[row] = place
    return np.array(found, dtype=np.int64)
