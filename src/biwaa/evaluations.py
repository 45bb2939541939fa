"""What `biwaa evaluate` measured of a run's model: evaluations.json in its folder, written and read here alone.

An evaluation names the model that it is of, so that a model which has changed since is not given another's figures.
"""

import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct

from biwaa.files import json_text, write_text
from biwaa.result import Accuracy

FILE = "evaluations.json"


class Evaluation(Struct, frozen=True, kw_only=True):
    """The accuracy on labelled images; shares in [0, 1]."""

    spec: str
    images: int
    left_out: int
    """Unreadable images, which are not among `images`."""
    unlabelled: int = 0
    """Images without a label, which are not among `images` either."""
    trained_on: int = 0
    """Images whose labels the run was trained on; likewise."""
    looks_like_the_target: bool | None = None
    """Whether the images look like those that the model was adapted to; None where that is not known."""
    accuracy: Accuracy
    by_class: dict[str, float | None]
    """None for a class that has no image here."""
    images_by_class: dict[str, int] = {}
    of_source: bool
    """Whether the images are the run's own source: then they say nothing about the target."""
    model: str
    """SHA-256 of model.safetensors."""


def model_digest(run: Path) -> str:
    """SHA-256 of a run's model.

    Raises:
        OSError: there is none.
    """
    with (run / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_evaluations(run: Path) -> list[Evaluation]:
    """Those of the model that the folder has now, oldest first; none where nothing, or nothing whole, was kept."""
    try:
        found = msgspec.json.decode((run / FILE).read_bytes(), type=list[Evaluation])
        model = model_digest(run) if found else ""
    except (OSError, msgspec.DecodeError, ValueError, RecursionError):
        return []
    return [one for one in found if one.model == model]


def keep_evaluation(run: Path, evaluation: Evaluation) -> None:
    """Add one to the run's; it takes the place of an earlier one on the same SPEC.

    Raises:
        OSError: the folder cannot be written to.
    """
    others = [one for one in read_evaluations(run) if one.spec != evaluation.spec]
    write_text(run / FILE, json_text([*others, evaluation]))
