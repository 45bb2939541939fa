"""Lines of list files and tables, one at a time, and which SPEC names such a file."""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from biwaa.domains.listing import exists
from biwaa.errors import BiwaaError, listed
from biwaa.files import local

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "category")


class Line(NamedTuple):
    """A line of a list that is not blank, or a row of a table."""

    number: int  # Counted from 1
    text: str  # The whole line, without the space around it
    path: str  # All before the label, spaces included; the whole line where there is no label
    label: str | None  # Of a list the last word, where it is a whole number; of a table the cell


def list_lines(lines: Iterable[str]) -> Iterator[Line]:
    """The lines of a list: `PATH LABEL`, or a path alone."""
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            words = text.rsplit(maxsplit=1)
            labelled = len(words) == 2 and re.fullmatch(r"[+-]?[0-9]+", words[1])
            yield Line(number, text, *words) if labelled else Line(number, text, text, None)


def table_lines(file: TextIO, name: Path, root: Path) -> Iterator[Line]:
    """The rows of a CSV file: columns `path` and `label`, or two columns without a header.

    Commas, semicolons or tabs divide the cells. An empty label is None.

    Args:
        file: opened.
        name: of it, for messages.
        root: the folder that paths start from, to tell a header from a first row.

    Raises:
        BiwaaError: no column of paths, a row that is too short, or no CSV.
    """
    first = file.readline()
    delimiter = max(",;\t", key=first.count)
    file.seek(0)
    rows = csv.reader(file, delimiter=delimiter)
    try:
        header = next(rows, [])
        names = [cell.strip().casefold() for cell in header]
        path = next((names.index(column) for column in PATH_COLUMNS if column in names), None)
        label = next((names.index(column) for column in LABEL_COLUMNS if column in names), None)
        if path is None and header and exists(root / header[0]):
            path, label = 0, 1 if len(header) == 2 else None
            yield Line(1, first.strip(), header[0], None if label is None else header[1].strip() or None)
        if path is None:
            has = f"has the columns {listed([repr(cell) for cell in header])}" if header else "is empty"
            raise BiwaaError(f"{name} {has}: one column must be called path, and one label if the images have labels.")
        for row in filter(any, rows):
            if len(row) <= max(path, label or 0) or not row[path].strip():
                raise BiwaaError(f"{name}, line {rows.line_num}: no path and label in {delimiter.join(row)[:200]!r}.")
            yield Line(
                rows.line_num,
                delimiter.join(row),
                row[path].strip(),
                (row[label].strip() or None) if label is not None else None,
            )
    except csv.Error as error:
        raise BiwaaError(f"{name}, line {rows.line_num}: not CSV ({error}).") from None


def is_table(file: Path) -> bool:
    """Whether a list is a table of paths and labels."""
    return file.suffix.lower() in (".csv", ".tsv")


def list_and_root(spec: str) -> tuple[Path, Path] | None:
    """LIST.txt[@ROOT] or TABLE.csv[@ROOT] as the file and the folder its paths start from; None for another SPEC."""
    found = re.fullmatch(r"(.+\.(?:txt|csv|tsv))(?:@(.+))?", spec, re.IGNORECASE)
    if not found:
        return None
    file = local(found[1])
    return file, local(found[2]) if found[2] else file.parent
