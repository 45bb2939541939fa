"""`hf:DATASET[?column=value&..]`: a data set of the Hugging Face hub, or a folder in that library's own format.

- needs the extra [hub]; no code of a data set is ever run
- the image column and the class column are found by their types; if there are several, `image` and `label` name
  them, as `split` and `config` do for splits and configurations
- any other column=value selects the rows with that value
"""

import hashlib
import urllib.parse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING, Labels, read_labels
from biwaa.errors import BiwaaError, listed, one_line
from biwaa.files import expanded
from biwaa.images.decoding import Pixels, decoded
from biwaa.images.images import NumberedRows
from biwaa.images.unreadable import UnreadableError

RESERVED = ("split", "config", "image", "label")


@dataclass(frozen=True)
class HubImages(NumberedRows):
    """Images in the rows of a data set."""

    table: Any  # A `datasets.Dataset` that does not decode the image column itself.
    column: str
    threads: ClassVar[bool] = True  # As Arrow's tables allow; a transform that a user has set is not run

    def read(self, index: int, least: int = 0) -> Pixels:
        """Decode one row."""
        cell = self.table[int(self.rows[index])][self.column]
        if cell is None:
            raise UnreadableError("the row has no image")
        return decoded(cell["bytes"] or Path(cell["path"]).read_bytes(), least)

    def identity(self) -> frozenset[str]:
        """Each row's number, with the library's fingerprint of the data set."""
        return frozenset(f"{self.table._fingerprint}[{row}]" for row in self.rows)

    def fingerprint(self) -> str:
        """Hash of what the rows hold: the library's own fingerprint does not see files that were changed later."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for row in self.rows:
            cell = self.table[int(row)][self.column]
            try:
                data = cell["bytes"] or Path(cell["path"]).read_bytes()
            except (OSError, TypeError) as error:  # reported as unreadable when it is decoded for training
                data = type(error).__name__.encode()
            digest.update(hashlib.sha256(data).digest())
        return digest.hexdigest()


def open_hub(spec: str) -> Domain:
    """Open an hf: SPEC.

    Raises:
        BiwaaError: the extra is missing, no such data set, split, column or value, or no images in it.
    """
    dataset, _, query = spec.removeprefix("hf:").partition("?")
    asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    return table_domain(spec, dataset, _load(spec, dataset, asked), asked)


def table_domain(spec: str, dataset: str, table: Any, asked: dict[str, str]) -> Domain:
    """A `datasets.Dataset` as a domain.

    Args:
        spec: for messages.
        dataset: the name of its images: DATASET[0], DATASET[1], ..
        table: the data set.
        asked: the SPEC's query: names of columns, and values to select rows by.

    Raises:
        BiwaaError: no such column or value, or no images in it.
    """
    import datasets

    table = table.with_format(None)  # values as they are stored; a transform of the caller's may renumber labels
    image = _column(spec, table, asked.get("image"), datasets.Image, "image")
    label = _column(spec, table, asked.get("label"), datasets.ClassLabel, "label")
    assert image is not None  # _column raises otherwise
    table = table.cast_column(image, datasets.Image(decode=False))
    rows = np.arange(len(table), dtype=np.int64)
    for column, value in asked.items():
        if column not in RESERVED:
            rows = rows[_equal(spec, table, column, value)[rows]]
    if not len(rows):
        raise BiwaaError(f"{spec}: none of {len(table)} rows has all of these values.")
    images = HubImages(dataset, rows, table, image)
    return Domain.of(spec, images, None if label is None else _labels(spec, table, label, rows))


def _load(spec: str, dataset: str, asked: dict[str, str]) -> Any:
    try:
        import datasets
    except ImportError:
        raise BiwaaError(f"{spec} needs the library datasets: pip install 'biwaa[hub]'.") from None
    local = expanded(dataset)
    if local.is_dir() and "config" in asked:
        raise BiwaaError(f"{spec}: a folder has no configurations; leave config={asked['config']} out.")
    try:
        if local.is_dir():
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(dataset, asked.get("config"))
    except Exception as error:  # the library's back ends raise any kind
        raise BiwaaError(
            f"{spec} cannot be opened ({type(error).__name__}: {one_line(error)}). Check its name and the network."
        ) from None
    splits = dict(found) if isinstance(found, datasets.DatasetDict) else {str(found.split or "train"): found}
    split = asked.get("split", next(iter(splits)) if len(splits) == 1 else None)
    if split not in splits:
        raise BiwaaError(f"{spec}: name one of its splits, {listed(list(splits))}, as ?split={next(iter(splits))}.")
    return splits[split]


def _column(spec: str, table: Any, asked: str | None, kind: type, what: str) -> str | None:
    """The column of `kind`: the one asked for, the only one, or of several the one called `what`; None: no labels."""
    features = table.features
    if asked:
        if asked not in features:
            raise BiwaaError(f"{spec} has no column {asked!r}: there are {listed(list(features))}.")
        plain = what == "label" and getattr(features[asked], "dtype", "") in ("string", "int64", "int32", "bool")
        if not isinstance(features[asked], kind) and not plain:
            raise BiwaaError(f"{spec}: {asked!r} is not a column of {what}s.")
        return asked
    fitting: list[str] = [name for name, feature in features.items() if isinstance(feature, kind)]
    if not fitting and what == "label":
        return "label" if "label" in features else None
    if len(fitting) > 1 and what in fitting:
        return what
    if len(fitting) != 1:
        have = f"several ({listed(fitting)})" if fitting else f"none (it has {listed(list(features))})"
        way = f"name it with ?{what}=COLUMN" if spec.startswith("hf:") else "keep one of them with select_columns"
        raise BiwaaError(f"{spec}: which column has the {what}s? There are {have}; {way}.")
    return fitting[0]


def _equal(spec: str, table: Any, column: str, value: str) -> NDArray[np.bool_]:
    """(N,) whether `column` has `value`, as a class's name or as text."""
    if column not in table.features:
        raise BiwaaError(f"{spec} has no column {column!r}: there are {listed(list(table.features))}.")
    feature, values = table.features[column], list(table[column])
    names = getattr(feature, "names", None)
    texts = [names[entry] if names and isinstance(entry, int) and entry >= 0 else str(entry) for entry in values]
    same = np.array([text == value for text in texts], dtype=bool)
    if not same.any():
        raise BiwaaError(f"{spec}: no row has {column} = {value!r}; it is one of {listed(sorted(set(texts)))}.")
    return same


def _labels(spec: str, table: Any, label: str, rows: NDArray[np.int64]) -> Labels | None:
    """Labels of `rows`, by their names where the column has names; None where all are missing."""
    names = getattr(table.features[label], "names", None)
    every = list(table[label])
    values = [every[row] for row in rows]
    if not names:
        return read_labels(values, len(values), spec)
    numbers = np.array([MISSING if value is None else value for value in values], dtype=np.int64)
    return Labels(tuple(names), numbers, "text") if (numbers != MISSING).any() else None
