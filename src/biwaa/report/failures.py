"""Where a model fails: classes, confusions, and the images to look at."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def confusion(said: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(K, K) images by true class (rows) and predicted class."""
    return np.bincount(truth * classes + said, minlength=classes**2).reshape(classes, classes)


def confused(counts: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """True class, predicted class and how many images, of the most frequent confusions."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [(true, said, int(wrong[true, said])) for true, said in pairs if wrong[true, said]]


def surest_mistakes(
    said: NDArray[np.int64], truth: NDArray[np.int64], confidence: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """(M,) rows of wrong images, the most confident first."""
    wrong = np.flatnonzero(said != truth)
    found: NDArray[np.int64] = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    return found


def least_certain(said: NDArray[np.int64], certainty: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """(M,) rows of the least certain images, the predicted classes in turn, the least certain class first."""

    def turns() -> Iterator[int]:
        order = np.argsort(certainty, kind="stable")
        queues: dict[int, list[int]] = {}
        for row in order.tolist():
            queues.setdefault(int(said[row]), []).append(row)
        for turn in range(len(said)):
            yield from (rows[turn] for rows in queues.values() if turn < len(rows))

    return np.fromiter((row for row, _ in zip(turns(), range(most), strict=False)), dtype=np.int64)
