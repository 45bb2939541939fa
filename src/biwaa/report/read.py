"""What a report reads of a run folder, and the target's images by the names that predictions.csv has.

Everything but result.json, predictions.csv, run.json and recipe.yaml may be missing: the page says so in its place.
"""

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.images.images import FileImages
from biwaa.judging.evidence import Evidence
from biwaa.recipe import Recipe, load_recipe
from biwaa.training.folder import RunFolder
from biwaa.training.rounds import BASELINE, load_evidence


@dataclass(frozen=True, eq=False)
class Reading:
    """A run as its folder has it. N target images, K classes."""

    folder: RunFolder
    result: dict[str, Any]
    recipe: Recipe
    task: dict[str, Any]
    """run.json: SPECs, classes, fingerprints."""
    names: list[str]
    """(N) of the target images."""
    said: NDArray[np.int64]
    """(N,) predicted classes."""
    confidence: NDArray[np.float64]
    """(N,) calibrated probability of the predicted class."""
    truth: NDArray[np.int64] | None
    """(N,) true classes, where the run kept any."""
    log: list[dict[str, Any]]
    legs: dict[str, Evidence] = field(default_factory=dict)
    """Evidence of source-only, of the leg that is handed out and of the last round, where their files are there."""

    @property
    def classes(self) -> list[str]:
        """(K) names."""
        return list(self.result["classes"])

    @property
    def chosen(self) -> str:
        """The leg whose model is handed out."""
        return str(self.result["model"]["checkpoint"]).removeprefix("last step of ")

    @property
    def rounds(self) -> list[str]:
        """All legs in order, source-only first where there is one."""
        return list(self.result["label_distribution"]["estimated_target"])


def read_run(path: Path) -> Reading:
    """Read a run folder.

    Raises:
        BiwaaError: no round of a run is finished there, or a file is damaged.
    """
    if not (path / "result.json").is_file():
        raise BiwaaError(f"no result in {path}: name the folder of a run that has finished at least one round.")
    folder = RunFolder(path)
    try:
        result, task = (json.loads((path / name).read_text(encoding="utf-8")) for name in ("result.json", "run.json"))
        number = {name: index for index, name in enumerate(result["classes"])}
        rows = _csv(path / "predictions.csv")
        names = [row["path"] for row in rows]
        said = np.array([number[row["label"]] for row in rows], dtype=np.int64)
        confidence = np.array([float(row["confidence"]) for row in rows])
        truth = None
        if (path / "labels.csv").is_file():
            labels = _csv(path / "labels.csv")
            if [row["path"] for row in labels] != names:
                raise ValueError("labels.csv is not of the images of predictions.csv")
            truth = np.array([number[row["label"]] for row in labels], dtype=np.int64)
        recipe = load_recipe(str(path / "recipe.yaml"))
        reading = Reading(folder, result, recipe, task, names, said, confidence, truth, folder.read_log())
        wanted = [name for name in (BASELINE, reading.chosen, reading.rounds[-1]) if folder.leg(name).is_file()]
        reading.legs.update((name, load_evidence(folder, name)) for name in wanted)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BiwaaError(f"{path} is not a whole run folder ({' '.join(str(error).split())[:200]}).") from None
    if any(len(evidence.probabilities) != len(names) for evidence in reading.legs.values()):
        raise BiwaaError(f"{path} is not a whole run folder: its checkpoints are of other images.")
    return reading


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class TargetImages:
    """Opens the target's images by name: files where they lie, rows of arrays and data sets through their SPEC."""

    spec: str
    fingerprint: str
    """Of all images, as the run had them."""
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
            raise BiwaaError(f"cannot be read ({type(error).__name__})") from None

    @cached_property
    def _rows(self) -> tuple[Domain, dict[str, int]] | None:
        """The domain and its rows by name; None where it is gone, or is not the one that the run had."""
        try:
            domain = open_domain(self.spec, self.data_root)
            if domain.images.fingerprint() != self.fingerprint:
                return None
        except (BiwaaError, OSError):
            return None
        return domain, {name: row for row, name in enumerate(domain.images.names)}
