"""An ordered set of images without labels: files, an array, or features. It is all that training gets of a target."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from biwaa.errors import BiwaaError
from biwaa.images.contents import files_digest
from biwaa.images.decoding import Pixels, decoded


@runtime_checkable
class Images(Protocol):
    """An ordered set of images."""

    @property
    def names(self) -> Sequence[str]:
        """What each image is called in predictions.csv."""

    def __len__(self) -> int:
        """How many images there are."""

    def read(self, index: int, least: int = 0) -> Pixels:
        """The image at `index`; may raise any exception if it cannot be read.

        Args:
            index: of the image.
            least: pixels a side that are enough: a larger image may be decoded at a smaller size, but not below this.
                0: at its own size.
        """

    def select(self, indices: NDArray[np.int64]) -> "Images":
        """The images at `indices`, in that order."""

    @property
    def threads(self) -> bool:
        """Whether `read` may be called on several threads at once, which no object of a user promises."""

    def identity(self) -> frozenset[str]:
        """Which images these are, regardless of their order and of how they were named."""

    def fingerprint(self) -> str:
        """A hash of what the images hold, in their order; where they lie and when they were written do not matter."""


@dataclass(frozen=True)
class FileImages:
    """Images in files."""

    paths: tuple[Path, ...]
    threads: ClassVar[bool] = True

    @property
    def names(self) -> Sequence[str]:
        """The paths."""
        return [str(path) for path in self.paths]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.paths)

    def read(self, index: int, least: int = 0) -> Pixels:
        """Decode one file."""
        return decoded(self.paths[index].read_bytes(), least)

    def select(self, indices: NDArray[np.int64]) -> "FileImages":
        """Keep the files at `indices`."""
        return FileImages(tuple(self.paths[index] for index in indices))

    def identity(self) -> frozenset[str]:
        """Paths, with links in their folders resolved."""
        folders = {folder: folder.resolve() for folder in {path.parent for path in self.paths}}
        return frozenset(str(folders[path.parent] / path.name) for path in self.paths)

    def fingerprint(self) -> str:
        """Hash of every file's bytes (`contents`)."""
        return files_digest(self.paths)


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array in memory, named by their numbers."""

    array: NDArray[Any]
    name: str
    indices: NDArray[np.int64] | None = None
    """(N,) each row's number in the original array; None where all rows are there."""
    kind: ClassVar[str] = ""  # Part of the fingerprint, before the shape
    threads: ClassVar[bool] = True

    @property
    def names(self) -> Sequence[str]:
        """NAME[0], NAME[1], .. with the row's number in the original array."""
        rows = range(len(self.array)) if self.indices is None else self.indices
        return [f"{self.name}[{row}]" for row in rows]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.array)

    def select(self, indices: NDArray[np.int64]) -> Self:
        """Keep the rows at `indices`."""
        rows = indices if self.indices is None else self.indices[indices]
        return replace(self, array=self.array[indices], indices=rows)

    def identity(self) -> frozenset[str]:
        """The fingerprint."""
        return frozenset({self.fingerprint()})

    def fingerprint(self) -> str:
        """Hash of kind, shape and bytes."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.kind}{self.array.shape}".encode())
        digest.update(np.ascontiguousarray(self.array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class ArrayImages(ArrayRows):
    """Images in an array: (N, H, W) grey or (N, H, W, 3) RGB, uint8."""

    def read(self, index: int, least: int = 0) -> Pixels:
        """One row as an image."""
        row = self.array[index]
        return np.array(row) if row.ndim == 3 else np.repeat(row[..., None], 3, axis=2)


@dataclass(frozen=True)
class FeatureRows(ArrayRows):
    """(N, F) finite float32 features, computed elsewhere and given instead of images; they cannot be decoded."""

    kind: ClassVar[str] = "features "

    @classmethod
    def of(cls, array: NDArray[Any], name: str, where: str | None = None) -> Self:
        """(N, F) numbers of any kind as features.

        Args:
            array: the numbers.
            name: of the rows.
            where: names the array in errors; `name` unless given.

        Raises:
            BiwaaError: no row, no feature, or a value that is not finite; its row is named.
        """
        where = where or name
        if 0 in array.shape:
            raise BiwaaError(f"{where} has shape {array.shape}: it holds no features.")
        with np.errstate(over="ignore"):  # beyond float32 is reported with infinity
            features = np.ascontiguousarray(array, dtype=np.float32)
        extremes = np.stack([features.min(axis=1), features.max(axis=1)])  # a flag for each number would be a quarter
        bad = np.flatnonzero(~np.isfinite(extremes).all(axis=0))
        if len(bad):
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise BiwaaError(f"{where} has a feature that is not finite in row {bad[0]}{more}: remove or fix it.")
        return cls(features, name)

    def read(self, index: int, least: int = 0) -> Pixels:
        """Features have no image."""
        raise TypeError("features are not an image")


@dataclass(frozen=True)
class NumberedRows:
    """Images that are rows of a larger data set, named by their numbers."""

    name: str
    rows: NDArray[np.int64]
    threads: ClassVar[bool] = False  # Nobody knows whether a data set can be read on several at once

    @property
    def names(self) -> Sequence[str]:
        """NAME[0], NAME[1], .. with the row's number in the data set."""
        return [f"{self.name}[{row}]" for row in self.rows]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)

    def select(self, indices: NDArray[np.int64]) -> Self:
        """Keep the rows at `indices`."""
        return replace(self, rows=self.rows[indices])


def squeezed(array: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W, 1) as (N, H, W); any other array unchanged."""
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def feature_width(images: Images) -> int | None:
    """Features a row; None for images."""
    return int(images.array.shape[1]) if isinstance(images, FeatureRows) else None


def amount(images: Images) -> str:
    """How many there are, in words."""
    width = feature_width(images)
    return f"{len(images)} images" if width is None else f"{len(images)} rows of {width} features"


def are_pixels(array: NDArray[Any]) -> bool:
    """Whether `ArrayImages` takes the array."""
    return array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3))
