"""A CSV table of images and their classes: columns path and label, such as label_these.csv of a run folder."""

import csv
from pathlib import Path

import numpy as np

from biwaa.domains.domain import Domain
from biwaa.domains.listing import exists
from biwaa.errors import BiwaaError
from biwaa.images.images import FileImages
from biwaa.progress import say


def open_csv(spec: str, file: Path) -> Domain:
    """A table of paths, which start from its own folder, and names of classes.

    Rows whose label is empty are left out where others have one, and said to be; where none has, there are no labels.

    Raises:
        BiwaaError: other columns, no row, or an image that is not there.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
            rows = list(csv.DictReader(opened))
    except csv.Error as error:
        raise BiwaaError(f"{file} is not a CSV table ({error}).") from None
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise BiwaaError(f"{file} needs the columns path and label, and a row for each image.")
    named = [(number, row["path"] or "", (row["label"] or "").strip()) for number, row in enumerate(rows, 2)]
    labelled = [row for row in named if row[2]]
    if labelled and len(labelled) < len(named):
        say(f"{file}: {len(named) - len(labelled)} rows without a label are left out")
    kept = labelled or named
    paths = [file.parent / path for _, path, _ in kept]
    for (number, _, _), path in zip(kept, paths, strict=True):
        if not exists(path):
            raise BiwaaError(f"{file}, row {number}: no such image: {str(path)[:500]}.")
    images = FileImages(tuple(paths))
    if not labelled:
        return Domain(spec, images)
    classes = tuple(sorted({label for *_, label in labelled}, key=lambda name: (name.casefold(), name)))
    labels = np.array([classes.index(label) for *_, label in labelled], dtype=np.int64)
    return Domain(spec, images, classes, labels)
