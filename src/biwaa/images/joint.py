"""The images of several domains as one ordered set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from biwaa.images.decoding import Pixels
from biwaa.images.images import Images


@dataclass(frozen=True)
class JointImages:
    """The images of several domains, one domain after the other."""

    parts: tuple[Images, ...]
    rows: NDArray[np.int64] | None = None
    """(N,) numbers among all images of all parts; None where all are there."""

    @property
    def names(self) -> Sequence[str]:
        """Each image's name in its own domain."""
        every = [name for part in self.parts for name in part.names]
        return every if self.rows is None else [every[row] for row in self.rows]

    @property
    def threads(self) -> bool:
        """Whether every part may be read on several threads."""
        return all(part.threads for part in self.parts)

    @cached_property
    def _begins(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        """How many there are."""
        return int(self._begins[-1]) if self.rows is None else len(self.rows)

    def read(self, index: int, least: int = 0) -> Pixels:
        """One image, read by its own domain."""
        row = index if self.rows is None else int(self.rows[index])
        part = int(np.searchsorted(self._begins, row, side="right")) - 1
        return self.parts[part].read(row - int(self._begins[part]), least)

    def select(self, indices: NDArray[np.int64]) -> "JointImages":
        """Keep the images at `indices`."""
        return replace(self, rows=indices if self.rows is None else self.rows[indices])

    def identity(self) -> frozenset[str]:
        """Of all images of all parts."""
        return frozenset().union(*(part.identity() for part in self.parts))

    def fingerprint(self) -> str:
        """Hash of the parts' fingerprints and of what was selected."""
        digest = hashlib.sha256("\n".join(part.fingerprint() for part in self.parts).encode())
        if self.rows is not None:
            digest.update(np.ascontiguousarray(self.rows).data)
        return digest.hexdigest()


def parts_of(images: Images) -> tuple[Images, ...]:
    """The images of each domain, where these are all images of several; else these alone."""
    return images.parts if isinstance(images, JointImages) and images.rows is None else (images,)
