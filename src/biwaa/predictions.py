"""predictions.csv of a run: path, label, confidence, a row an image; written and read here alone."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biwaa.files import csv_line

UNKNOWN = "unknown"
"""The column of the probability that an image is of no known class."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicts of N images."""

    names: Sequence[str]
    labels: NDArray[np.int64]  # (N,) predicted classes
    confidence: NDArray[np.float64]  # (N,) probability of the predicted class
    given: NDArray[np.int64] | None = None  # (N,) classes that were handed over to be trained on; below 0: none was
    unknown: NDArray[np.float64] | None = None  # (N,) probability of no known class, where that was asked for

    @classmethod
    def of(
        cls, names: Sequence[str], probabilities: Tensor, given: NDArray[np.int64] | None = None, unknown: bool = False
    ) -> Self:
        """The likeliest class of each row of (N, K) probabilities; `unknown`: the last is that of no class."""
        confidence, labels = probabilities.max(dim=1)
        score = probabilities[:, -1].double().numpy() if unknown else None
        return cls(list(names), labels.numpy(), confidence.double().numpy(), given, score)

    def csv(self, classes: Sequence[str]) -> str:
        """The file's text; confidences have four digits."""
        columns = [self.names, [classes[k] for k in self.labels], [f"{share:.4f}" for share in self.confidence]]
        header = ["path", "label", "confidence"]
        if self.unknown is not None:
            header.append(UNKNOWN)
            columns.append([f"{share:.4f}" for share in self.unknown])
        if self.given is not None:
            header.append("given")
            columns.append(["" if k < 0 else classes[k] for k in self.given])
        return csv_line(*header) + "".join(csv_line(*row) for row in zip(*columns, strict=True))

    @classmethod
    def read(cls, path: Path, classes: Sequence[str]) -> Self:
        """What `csv` wrote.

        Raises:
            OSError, KeyError, ValueError: no such file, or it holds something else.
        """
        rows = read_rows(path)
        labels = label_numbers(rows, classes)
        confidence = np.array([float(row["confidence"]) for row in rows])
        given = [row.get("given") for row in rows]
        number = {"": -1} | {name: k for k, name in enumerate(classes)}
        known = np.array([number[name or ""] for name in given]) if rows and given[0] is not None else None
        scored = bool(rows) and UNKNOWN in rows[0]
        unknown = np.array([float(row[UNKNOWN]) for row in rows]) if scored else None
        return cls([row["path"] for row in rows], labels, confidence, known, unknown)


def label_numbers(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the class of each row's label; KeyError for one that is no class."""
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[row["label"]] for row in rows], dtype=np.int64)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of a run folder, by column."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def read_column(path: Path, name: str) -> list[str]:
    """One column of such a file: in a quarter of the memory."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.reader(file)
        place = next(rows, []).index(name)
        return [row[place] for row in rows]
