"""Somebody's class scores of images: read from a file or a Python object, and matched with a run's images and classes.

- .csv: a line an image, its path and then a column a class; .npz: `scores`, `classes` and, if rows have names, `paths`
- FILE.npz:NAME takes the array NAME_x, as a SPEC does
- what does not fit is named: columns that are no class, images without a row
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biwaa.errors import BiwaaError, listed, nearest, one_line
from biwaa.files import expanded
from biwaa.paths import places
from biwaa.progress import say

LEAST = 1e-6
"""Probabilities below it count as it: files round them to zero."""
ACCEPTED = "an array (images, classes), a table with a column a class, or the name of a .csv or .npz file"
WHERE_ROWS = "path"
"""Of a mapping, the entry that names the rows."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Class scores or probabilities as they were given."""

    where: str
    """The file or argument, for messages and for the report."""
    values: NDArray[np.float64]
    """(M, C)."""
    classes: tuple[str, ...] | None = None
    """(C,) names of the columns; None: in the order of the run's classes."""
    rows: tuple[str, ...] | None = None
    """(M,) names of the rows; None: in the order of the images."""
    spec: str = ""
    """The file as it was named; empty for an object."""

    def __post_init__(self) -> None:
        """Refuse what no image and no class can be read from.

        Raises:
            BiwaaError: no table, a value that is not finite, or a name twice.
        """
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise BiwaaError(f"{self.where} has shape {self.values.shape}: a teacher is a table (images, classes).")
        bad = np.flatnonzero(~np.isfinite(self.values).all(axis=1))
        if len(bad):
            row = self.rows[bad[0]] if self.rows else f"row {bad[0]}"
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise BiwaaError(f"{self.where} has a value that is not finite for {row}{more}: remove or fix it.")
        for names, what, axis in ((self.classes, "class", 1), (self.rows, "row", 0)):
            if names is None:
                continue
            if len(names) != self.values.shape[axis]:
                count = self.values.shape[axis]
                raise BiwaaError(f"{self.where} names {len(names)} of its {count} {'columns' if axis else 'rows'}.")
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise BiwaaError(f"{self.where} has the {what} {listed(twice)} twice.")


def as_scores(given: Any, name: str) -> Scores:
    """A teacher in any accepted form.

    Args:
        given: the name of a .csv or .npz file; an array or tensor (N, C); a data frame, or a mapping from classes to
            (N,) columns, in which `path` may name the rows.
        name: of the argument, for messages.

    Raises:
        BiwaaError: not an accepted form, or it cannot be read.
    """
    if isinstance(given, Scores):
        return given
    if isinstance(given, str | os.PathLike):
        return read_scores(os.fspath(given))
    if isinstance(given, Mapping):
        columns = {str(key): value for key, value in given.items() if key != WHERE_ROWS}
        rows = tuple(map(str, given[WHERE_ROWS])) if WHERE_ROWS in given else None
        return Scores(name, _numbers(list(columns.values()), name).T, tuple(columns), rows)
    if hasattr(given, "columns") and hasattr(given, "to_numpy"):  # a data frame; its index names rows unless it counts
        if WHERE_ROWS in given.columns:
            given = given.set_index(WHERE_ROWS)
        counts = str(given.index.dtype).startswith(("int", "uint"))
        rows = None if counts else tuple(map(str, given.index))
        return Scores(name, _numbers(given.to_numpy(), name), tuple(map(str, given.columns)), rows)
    if hasattr(given, "detach"):
        given = given.detach().cpu().float().numpy()
    return Scores(name, _numbers(given, name))


def _numbers(given: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise BiwaaError(f"{name} is of type {type(given).__name__}: a teacher is {ACCEPTED}.") from None


def read_scores(spec: str) -> Scores:
    """A teacher's file.

    Args:
        spec: FILE.csv, FILE.npz or FILE.npz:NAME.

    Raises:
        BiwaaError: no such file, or it holds no scores; the message names file, line and value.
    """
    named = re.fullmatch(r"(.+\.npz):([^:/\\]+)", spec)
    path = expanded(named[1] if named else spec)
    if path.suffix.lower() not in (".csv", ".npz"):
        raise BiwaaError(f"{spec} is no teacher: it is a .csv or .npz file of class scores.")
    if not path.is_file():
        raise BiwaaError(f"no such file: {path}. Check the path.")
    arrays = path.suffix.lower() == ".npz"
    found = _read_arrays(path, f"{named[2]}_x" if named else "scores", spec) if arrays else _read_csv(path)
    return replace(found, spec=spec)


def _read_arrays(path: Path, key: str, where: str) -> Scores:
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = sorted(archive)
            found = {name: archive[name] for name in (key, "classes", "paths") if name in archive}
    except Exception as error:  # a damaged archive makes its readers raise any kind
        raise BiwaaError(f"{path} is not readable as arrays: {one_line(error)}.") from None
    if key not in found:
        hint = "name one as FILE.npz:NAME for NAME_x" if any(name.endswith("_x") for name in held) else "call it so"
        raise BiwaaError(f"{path} has no array {key}, it has {listed(held) or 'none'}: {hint}.")
    names = {name: tuple(map(str, found[name].ravel().tolist())) for name in ("classes", "paths") if name in found}
    # `paths` are of the array `scores`; a file of several domains names no rows.
    return Scores(
        where, _numbers(found[key], where), names.get("classes"), names.get("paths") if key == "scores" else None
    )


def _read_csv(path: Path) -> Scores:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows: list[str] = []
            values: list[list[float]] = []
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise BiwaaError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells, but the first line has {len(header)}."
                    )
                rows.append(cells[0])
                values.append(
                    [
                        _number(cell, path, reader.line_num, name)
                        for cell, name in zip(cells[1:], header[1:], strict=True)
                    ]
                )
    except csv.Error as error:
        raise BiwaaError(f"{path} is not readable as CSV ({error}).") from None
    if len(header) < 2 or not rows:
        raise BiwaaError(f"{path} holds no scores: its first line is `path,CLASS,CLASS,..`, then a line an image.")
    return Scores(str(path), np.array(values), tuple(header[1:]), tuple(rows))


def _number(cell: str, path: Path, line: int, column: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise BiwaaError(f"{path}, line {line}: {cell[:60]!r} of class {column} is no number.") from None


def matched(scores: Scores, names: Sequence[str], classes: Sequence[str], spec: str) -> NDArray[np.float32]:
    """(N, K) logarithms of the teacher's probabilities up to a temperature; a class that it does not know is NaN.

    Rows that are never negative and sum to 1 are probabilities, all others are taken for logits.

    Args:
        scores: as given.
        names: (N,) of the images.
        classes: (K,) of the run.
        spec: of the images, for messages.

    Raises:
        BiwaaError: columns that are no class of the run, images without a row, or none of either.
    """
    rows, columns = _rows(scores, names, spec), _columns(scores, classes)
    values = scores.values[rows]
    if (values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 0.01).all():
        values = np.log(np.maximum(values, LEAST))
    found = np.full((len(names), len(classes)), np.nan)
    found[:, columns] = values
    found -= np.nanmean(found, axis=1, keepdims=True)
    return found.astype(np.float32)


def _columns(scores: Scores, classes: Sequence[str]) -> list[int]:
    """Each column's class."""
    if scores.classes is None:
        if scores.values.shape[1] != len(classes):
            raise BiwaaError(
                f"{scores.where} has {scores.values.shape[1]} columns without names, and there are {len(classes)} "
                f"classes ({listed(list(classes))}): give a column for each, in that order, or name the columns."
            )
        return list(range(len(classes)))
    number = {name: index for index, name in enumerate(classes)}
    if extra := [name for name in scores.classes if name not in number]:
        near = nearest(extra[0], classes)
        hint = f"did you mean {near[0]}?" if near else f"the classes are {listed(list(classes))}."
        raise BiwaaError(f"{scores.where} has a column that is no class: {listed(extra)}; {hint}")
    if missing := [name for name in classes if name not in scores.classes]:
        say(f"{scores.where} has no column for {listed(missing)}: there the teacher says nothing")
    return [number[name] for name in scores.classes]


def _rows(scores: Scores, names: Sequence[str], spec: str) -> list[int]:
    """Each image's row."""
    if scores.rows is None:
        if len(scores.values) != len(names):
            raise BiwaaError(
                f"{scores.where} has {len(scores.values)} rows without paths, and {spec} has {len(names)} images: "
                "give a row for each, in the order of predictions.csv, or name the rows."
            )
        return list(range(len(names)))
    found = places(names, scores.rows)
    if missing := [name for name, row in zip(names, found, strict=True) if row is None]:
        raise BiwaaError(
            f"{scores.where} has no row for {len(missing)} of the {len(names)} images of {spec}: {listed(missing, 3)}. "
            f"Its paths are like {scores.rows[0]}; they must be, or end like, the images' own."
        )
    used = [row for row in found if row is not None]
    if twice := [scores.rows[row] for row, count in Counter(used).items() if count > 1]:
        raise BiwaaError(f"{scores.where}: several images of {spec} fit the row {listed(twice, 3)}: give longer paths.")
    if extra := sorted(set(range(len(scores.rows))) - set(used)):
        say(
            f"{scores.where}: rows of no image of {spec} are left out: {listed([scores.rows[row] for row in extra], 3)}"
        )
    return used
