"""What a run knows: the typed content of result.json, and the one place that writes and reads it.

- facts are numbers, names and codes; words are made where they are shown (`report/`)
- shares and accuracies lie in [0, 1]; nothing here needs torch
- `facts` and `warnings` hold the parts that a `Result` is made of
- a file of another format is refused in one sentence
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from biwaa.errors import BiwaaError, one_line
from biwaa.files import json_text, write_text
from biwaa.result import warnings
from biwaa.result.facts import (
    Accuracy,
    Calibration,
    CalibrationError,
    Cost,
    DomainFacts,
    Estimate,
    LabelFree,
    LabelShares,
    Model,
    RememberedFacts,
    Selected,
    SourceFacts,
    Stage,
    TargetAccuracy,
    TeacherFacts,
)
from biwaa.result.warnings import AnyWarning

__all__ = [
    "FORMAT", "LAST", "REFERENCES", "SOURCE_ONLY", "TARGET_LABELS", "TEACHER", "Accuracy", "AnyWarning", "Calibration",
    "CalibrationError", "Cost", "DomainFacts", "Estimate", "LabelFree", "LabelShares", "Model", "RememberedFacts",
    "Result", "Selected", "SourceFacts", "Stage", "TargetAccuracy", "TeacherFacts", "contradiction", "dump_result",
    "read_result", "write_result",
]  # fmt: skip

FORMAT = 2
"""Of result.json; 1 held sentences."""
SOURCE_ONLY = "source-only"
"""The stage that is trained on the source alone."""
LAST = "last"
"""The choice that takes the last round."""
TEACHER = "teacher"
"""The stage in which a teacher speaks for itself."""
REFERENCES = (SOURCE_ONLY, TEACHER)
"""Stages that stand beside the rounds."""
TARGET_LABELS = "target_labels"
"""What an oracle chooses by."""


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that result.json holds."""

    format: int
    finished: bool
    """False: after an earlier round than the last."""
    method: str
    seed: int
    classes: tuple[str, ...]
    source: DomainFacts
    """Without images where there is no source."""
    target: DomainFacts
    model: Model
    stages: tuple[Stage, ...]
    """In the order of training, source-only first where it was trained, then the teacher where there is one."""
    label_free: LabelFree
    estimated_accuracy: Estimate
    calibration: Calibration
    label_shares: LabelShares
    warnings: tuple[AnyWarning, ...]
    """Gravest first."""
    cost: Cost
    fingerprints: dict[str, str]
    """SHA-256 of recipe, classes and images."""
    versions: dict[str, str]
    hardware: dict[str, str | int]
    accuracy: TargetAccuracy | None = None
    """Where the target has labels."""
    teacher: TeacherFacts | None = None
    remembered: RememberedFacts | None = None
    """Where a model stands in the place of the source's images."""
    sources: tuple[SourceFacts, ...] = ()
    """Each of several sources; `source` is all of them."""
    held_out: DomainFacts | None = None
    """Labelled target images that were not used in training; accuracies stand in `stages`."""

    @property
    def contradiction(self) -> AnyWarning | None:
        """The gravest warning that speaks against the estimate of the accuracy; None where none does."""
        return contradiction(self.warnings, self.estimated_accuracy)

    def stage(self, name: str) -> Stage | None:
        """A stage by its name; None where there is none."""
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def source_specs(self) -> tuple[str, ...]:
        """As they are named on a command line; none where there is no source."""
        if not self.source.images and not self.remembered:
            return ()
        return tuple(one.spec for one in self.sources) or (self.source.spec,)

    @property
    def selected(self) -> Stage:
        """The stage whose model was selected."""
        return next(stage for stage in self.stages if stage.name == self.model.stage)

    @property
    def baseline(self) -> Stage | None:
        """Source-only, where it was trained."""
        return self.stage(SOURCE_ONLY)

    @property
    def rounds(self) -> tuple[Stage, ...]:
        """All stages but source-only and the teacher."""
        return tuple(stage for stage in self.stages if stage.name not in REFERENCES)


def contradiction(found: Iterable[AnyWarning], estimate: Estimate) -> AnyWarning | None:
    """The first warning that an estimate of the accuracy cannot stand beside; None where there is none."""
    return next((one for one in found if _contradicts(one, estimate)), None)


def _contradicts(warning: AnyWarning, estimate: Estimate) -> bool:
    """Whether an estimate cannot stand beside a warning.

    Low estimates are rather too high, so a low one says little by itself: only an interval that holds it says how far
    the accuracy may lie below.
    """
    match warning:
        case warnings.EstimateLow(estimate=share):
            return estimate.low is None or estimate.high is None or not estimate.low <= share <= estimate.high
        case warnings.SourcesContradict(all_of_them=all_of_them):
            return all_of_them
        case _:
            return isinstance(warning, warnings.AGAINST_ESTIMATES)


class _Head(Struct):
    format: int = 1


def dump_result(result: Result) -> str:
    """The text of result.json."""
    return json_text(result)


def write_result(run: Path, result: Result) -> None:
    """Write result.json whole or not at all."""
    write_text(run / "result.json", dump_result(result))


def read_result(run: Path) -> Result:
    """What result.json in a run folder holds.

    Raises:
        BiwaaError: there is none, it is damaged, or another version of biwaa wrote it.
    """
    try:
        text = (run / "result.json").read_bytes()
        found = msgspec.json.decode(text, type=_Head).format
        if found == FORMAT:
            return msgspec.json.decode(text, type=Result)
    except OSError:
        raise BiwaaError(f"{run} holds no run that has finished a round: name the folder of one that has.") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        then = f"`biwaa train --resume --out {run}` writes it anew"
        raise BiwaaError(f"{run / 'result.json'} is damaged ({one_line(error)}): {then}.") from None
    raise BiwaaError(
        f"{run} was written by another version of biwaa (format {found} of result.json, this one reads {FORMAT}): "
        "train again, or read it with that version; its model can still be used."
    )
