"""Target images of a finished run that are worth a label, or a draw of them to measure by; nothing is trained.

Suggestions come from the sample of the target whose features the selected stage kept, so that memory grows by names
alone.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from biwaa.checks import not_below
from biwaa.errors import BiwaaError, one_line
from biwaa.files import local
from biwaa.judging.suggestion import suggested_rows
from biwaa.paths import places
from biwaa.predictions import read_column, read_rows
from biwaa.result import SOURCE_ONLY, Result, read_result
from biwaa.training.folder import TARGET_LABELS, RunFolder
from biwaa.training.stage import load_sample


class Suggestion(NamedTuple):
    """What to label next."""

    result: Result
    rows: NDArray[np.int64]
    """(M,) of the target, the most wanted first."""
    names: list[str]
    """(M,) as predictions.csv has them."""
    labelled: dict[str, str]
    """The labels that the run was trained on, by name."""


def suggest(run: Path, count: int, measure: bool = False) -> Suggestion:
    """Target images to label next.

    Args:
        run: a run folder.
        count: how many.
        measure: draw them at random, so that they measure the accuracy; otherwise those from which most is learned.

    Raises:
        BiwaaError: no finished round, or the run kept no features.
    """
    not_below(1, count=count)
    run = local(run)
    result, folder = read_result(run), RunFolder(run)
    try:
        names = read_column(run / "predictions.csv", "path")
        file = run / TARGET_LABELS
        known = {row["path"]: row["label"] for row in read_rows(file)} if file.is_file() else {}
    except (OSError, LookupError, ValueError) as error:
        raise BiwaaError(f"{run} is not a whole run folder ({one_line(error)}).") from None
    taken = np.array([row for row in places(list(known), names) if row is not None], dtype=np.int64)
    if measure:
        free = np.setdiff1d(np.arange(len(names)), taken)
        rows = np.random.default_rng(0).permutation(free)[:count]
    else:
        rows = _wanted(folder, result.model.stage, len(names), count, taken)
    return Suggestion(result, rows, [names[row] for row in rows.tolist()], known)


def _wanted(folder: RunFolder, stage: str, images: int, count: int, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    evidence, rows = load_sample(folder, stage)
    if evidence.features is None or int(rows.max()) >= images:
        raise BiwaaError(f"{folder.path} kept no features of its target: train it again to have images suggested.")
    said = [evidence.probabilities]
    if stage != SOURCE_ONLY and folder.stage(SOURCE_ONLY).is_file():
        said.append(load_sample(folder, SOURCE_ONLY)[0].probabilities)
    sample = rows.numpy()
    known = torch.from_numpy(np.flatnonzero(np.isin(sample, taken)))
    wanted = suggested_rows(torch.stack(said).mean(dim=0), evidence.features, count, known)
    found: NDArray[np.int64] = sample[wanted.numpy()]
    return found
