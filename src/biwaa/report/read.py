"""What a report reads of a run folder, and the target's images by the names that predictions.csv has.

Everything but result.json, recipe.yaml and the predictions may be missing: the page says so in its place.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError, one_line
from biwaa.evaluations import Evaluation, read_evaluations
from biwaa.images.images import FileImages
from biwaa.images.unreadable import reason
from biwaa.judging.evidence import Evidence
from biwaa.predictions import Predictions, label_numbers, read_rows
from biwaa.recipe import Recipe, load_recipe
from biwaa.result import REFERENCES, Result, read_result
from biwaa.training.folder import RunFolder
from biwaa.training.stage import load_stage


@dataclass(frozen=True, eq=False)
class Reading:
    """A run as its folder has it. N target images, K classes."""

    folder: RunFolder
    result: Result
    recipe: Recipe
    predictions: Predictions  # Of the target by the selected model; calibrated confidences, to four digits
    truth: NDArray[np.int64] | None  # (N,) true classes, where the run kept any; MISSING where a label is
    log: list[dict[str, Any]]  # Entries of log.jsonl: stage, step, losses by name.
    evaluations: tuple[Evaluation, ...]  # What `biwaa evaluate` measured of the selected model, oldest first
    evidence: dict[str, Evidence]
    """Of source-only, the teacher, the selected stage and the last round, where their files are there."""

    @property
    def classes(self) -> tuple[str, ...]:
        """(K) names."""
        return self.result.classes

    @property
    def measured(self) -> bool:
        """Whether labels say anything about the target."""
        of_target = any(not one.of_source for one in self.evaluations)
        return bool(self.result.accuracy or self.result.held_out or of_target)

    @property
    def selected(self) -> str:
        """The stage whose model was selected."""
        return self.result.model.stage

    @property
    def stages(self) -> list[str]:
        """All stages in order, source-only first where there is one."""
        return [stage.name for stage in self.result.stages]


def read_run(path: Path, predictions: Predictions | None = None) -> Reading:
    """Read a run folder.

    Args:
        path: of the run.
        predictions: those of the run that has just ended; None to read predictions.csv.

    Raises:
        BiwaaError: no round of a run is finished there, or a file is damaged.
    """
    result, folder = read_result(path), RunFolder(path)
    try:
        found = predictions or Predictions.read(path / "predictions.csv", result.classes)
        truth = _labels(path / "labels.csv", found, result.classes)
        recipe = load_recipe(str(path / "recipe.yaml"))
        log = folder.read_log()
        wanted = dict.fromkeys([*REFERENCES, result.model.stage, result.stages[-1].name])
        evidence = {name: load_stage(folder, name).evidence for name in wanted if folder.stage(name).is_file()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BiwaaError(
            f"{path} is not a whole run folder ({one_line(error)}): "
            f"`biwaa train --resume --out {path}` makes what is missing."
        ) from None
    if any(len(one.probabilities) != len(found.names) for one in evidence.values()):
        raise BiwaaError(f"{path} is not a whole run folder: its checkpoints are of other images.")
    # As many digits as the file has: a page is the same, whenever it is written.
    rounded = dataclasses.replace(found, confidence=found.confidence.round(4))
    evaluations = tuple(read_evaluations(path))
    return Reading(folder, result, recipe, rounded, truth, log, evaluations, evidence)


def _labels(path: Path, predictions: Predictions, classes: tuple[str, ...]) -> NDArray[np.int64] | None:
    if not path.is_file():
        return None
    rows = read_rows(path)
    if [row["path"] for row in rows] != list(predictions.names):
        raise ValueError("labels.csv is not of the images of predictions.csv")
    known = [row for row in rows if row["label"]]
    truth = np.full(len(rows), MISSING, dtype=np.int64)
    truth[[bool(row["label"]) for row in rows]] = label_numbers(known, classes)
    return truth


@dataclass(frozen=True)
class TargetImages:
    """Opens the target's images by name: files where they lie, rows of arrays and data sets through their SPEC."""

    result: Result
    data_root: Path | None = None

    def read(self, name: str) -> Image.Image:
        """The image in RGB.

        Raises:
            BiwaaError: it is gone, or another lies in its place.
        """
        try:
            if Path(name).is_file():
                return Image.fromarray(FileImages((Path(name),)).read(0))
            if self._rows is None or name not in self._rows[1]:
                raise BiwaaError("no longer where it was")
            domain, rows = self._rows
            return Image.fromarray(domain.images.read(rows[name]))
        except BiwaaError:
            raise
        except Exception as error:  # decoders raise what they like
            raise BiwaaError(f"cannot be read ({reason(error)[:200]})") from None

    @cached_property
    def _rows(self) -> tuple[Domain, dict[str, int]] | None:
        """The domain and its rows by name; None where it is gone, or is not the one that the run had."""
        try:
            domain = open_domain(self.result.target.spec, self.data_root)
            if domain.images.fingerprint() != self.result.fingerprints.get("target_images"):
                return None
        except (BiwaaError, OSError):
            return None
        return domain, {name: row for row, name in enumerate(domain.images.names)}
