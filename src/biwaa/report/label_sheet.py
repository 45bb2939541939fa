"""label_these.csv: target images drawn at random, with an empty column for their classes.

Drawn at random, because the accuracy on the images that a model is least certain of says little about all of them.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biwaa.files import csv_line, write_text
from biwaa.predictions import read_rows

NAME = "label_these.csv"
IMAGES = 50  # Of so many, the share that is right is within 12 points of that of all, in 90 of 100 cases


@dataclass(frozen=True)
class Sheet:
    """The file as it is now."""

    path: Path
    images: int
    filled: int


def label_sheet(run: Path, names: Sequence[str], seed: int) -> Sheet | None:
    """Write the sheet, unless there is one with labels; somebody's labels are never written over.

    Args:
        run: the run folder.
        names: of the target's images; those that are files are drawn from.
        seed: of the draw.

    Returns:
        None where no image is a file, where the sheet has labels of other images, or where it cannot be written.
    """
    files = [str(Path(name).absolute()) for name in names if Path(name).is_file()]
    file = run / NAME
    try:
        if file.is_file():
            rows = read_rows(file)
            filled = sum(bool((row["label"] or "").strip()) for row in rows)
            if filled:
                return Sheet(file, len(rows), filled) if {row["path"] for row in rows} <= set(files) else None
        drawn = np.random.default_rng(seed).permutation(len(files))[:IMAGES].tolist()
        if not drawn:
            return None
        write_text(file, "".join([csv_line("path", "label"), *(csv_line(files[row], "") for row in drawn)]))
    except (OSError, KeyError, csv.Error):  # nobody's page fails for want of a sheet
        return None
    return Sheet(file, len(drawn), 0)
