"""Domain shifts on the tables that come with scikit-learn, as features: nothing has to be fetched.

    python benchmarks/bundled_data.py OUT.npz

- *digits8*: 1,797 digits of 8 x 8 pixels. Source and target are disjoint halves; the target's digits are changed.
- *wine*, *cancer*, *iris*: source and target are drawn apart by one measurement, which is then left out: of the rows
  below its median four fifths are the source's, of those above it one fifth.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate, shift
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

Pixels = NDArray[np.floating[Any]]
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]

CHANGES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "nothing": lambda digit, rng: digit,
    "turned by 15 degrees": lambda digit, rng: rotate(digit, 15, reshape=False),
    "turned by 30 degrees": lambda digit, rng: rotate(digit, 30, reshape=False),
    "turned back by 30 degrees": lambda digit, rng: rotate(digit, -30, reshape=False),
    "turned by 45 degrees": lambda digit, rng: rotate(digit, 45, reshape=False),
    "a pixel lower": lambda digit, rng: shift(digit, (1, 0)),
    "a pixel lower and to the right": lambda digit, rng: shift(digit, (1, 1)),
    "blurred": lambda digit, rng: gaussian_filter(digit, 1),
    "black and white": lambda digit, rng: (digit > 8) * 16.0,
    "inverted": lambda digit, rng: 16 - digit,
    "noise": lambda digit, rng: digit + rng.normal(0, 4, digit.shape),
    "twice the noise": lambda digit, rng: digit + rng.normal(0, 8, digit.shape),
}
BIASED = {"wine": load_wine, "cancer": load_breast_cancer, "iris": load_iris}
MEASUREMENTS = 6


def tasks() -> Iterator[tuple[str, str, Rows, Rows]]:
    """Data set, task, source and target: (N, F) features and (N,) classes."""
    rng, digits = np.random.default_rng(0), load_digits()
    order = rng.permutation(len(digits.target))
    here, there = order[:900], order[900:]
    for name, change in CHANGES.items():
        changed = np.stack([change(digit, rng) for digit in digits.images[there]])
        yield "digits8", name, _rows(digits.data[here], digits.target[here]), _rows(changed, digits.target[there])
    for data_set, load in BIASED.items():
        table = load()
        for number in range(min(MEASUREMENTS, table.data.shape[1])):
            rank = table.data[:, number].argsort().argsort() / len(table.data)
            mine = rng.random(len(rank)) < np.where(rank < 0.5, 0.8, 0.2)
            others = np.delete(table.data, number, axis=1)
            name = f"apart by {table.feature_names[number]}"
            yield data_set, name, _rows(others[mine], table.target[mine]), _rows(others[~mine], table.target[~mine])


def _rows(features: Pixels, labels: NDArray[np.int64]) -> Rows:
    return features.reshape(len(features), -1).astype(np.float32), labels.astype(np.int64)


def main(out: tyro.conf.Positional[Path]) -> None:
    """Write all tasks to one archive, as `biwaa train` reads it.

    Args:
        out: .npz with `TASK_source_x`, `TASK_source_y`, `TASK_target_x` and `TASK_target_y`, TASK a number.
    """
    arrays: dict[str, Pixels | NDArray[np.int64]] = {}
    for number, (_, _, source, target) in enumerate(tasks()):
        for name, (features, labels) in (("source", source), ("target", target)):
            arrays |= {f"{number}_{name}_x": features, f"{number}_{name}_y": labels}
    np.savez(out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    tyro.cli(main)
