"""What a run knows: the typed content of result.json, and the one place that writes and reads it.

- facts are numbers, names and codes; words are made where they are shown (`report/`)
- shares and accuracies lie in [0, 1]; nothing here needs torch
- a file of another format is refused in one sentence
"""

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from biwaa.errors import BiwaaError
from biwaa.files import write_text

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


class Accuracy(Struct, frozen=True, kw_only=True):
    """Two different means, always named."""

    over_images: float
    over_classes: float


class Selected(Accuracy, frozen=True, kw_only=True):
    """The accuracy of one stage, and how that stage was selected."""

    stage: str
    chosen_by: str
    """last, a label-free score's name, or target_labels."""


class TargetAccuracy(Struct, frozen=True, kw_only=True):
    """On all target images, the same that were trained on without labels; by stage see `Stage.accuracy`."""

    adapted: Selected
    average_of_rounds: Accuracy
    oracle_best_round: Selected
    """Selected by target labels: not available in practice."""


class DomainFacts(Struct, frozen=True, kw_only=True):
    """A domain of the run."""

    spec: str
    images: int
    shift: str = "none"
    """The label shift made on purpose."""
    unlabelled: int = 0
    """Images without a label where others have one; figures of accuracy pass them over."""
    labels_given: int = 0
    """Images whose labels were handed over to be trained on; figures of accuracy pass them over too."""


class RememberedFacts(Struct, frozen=True, kw_only=True):
    """What is known of a source whose images are not there."""

    images: int | None
    """Of how many images the statistics are; null where the model has a head alone."""
    fewest: int | None
    """Images of its smallest class."""


class SourceFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several sources, and what it contributes."""

    spec: str
    images: int
    classes: int
    """How many of the run's classes it has."""
    weight: float | None = None
    """Of its images in the solution, in shares of all sources'; null where the method does not weigh sources."""
    relevance: float | None = None
    """Share of the target on which it says by itself what was found; of target images of its classes."""
    agreement: float | None = None
    """Mean accuracy of it on the other sources and of theirs on it; null where they share fewer than two classes."""
    chance: float | None = None
    """What guessing would reach there."""


class Model(Struct, frozen=True, kw_only=True):
    """The model that was selected."""

    stage: str
    """Of which it is the last step."""
    chosen_by: str
    """last, or a label-free score's name."""
    backbone: str
    weights: str
    """Where the backbone's weights came from."""
    frozen: bool
    batch_norm: Literal["frozen", "shared", "target"]
    """Whose batches made BatchNorm's running averages; frozen: the backbone's own were kept."""


class Stage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One training from scratch: source-only or a round; or the teacher."""

    name: str
    seconds: float
    """Training and prediction, all sittings."""
    predicted_shares: dict[str, float]
    """Class -> share of the target images that are predicted so."""
    distance_to_source: float | None = None
    """Total variation between the predicted shares and the source's; null without a source."""
    distance_to_true: float | None = None
    """The same to the target's own shares, where it has labels."""
    validators: dict[str, float | None] = {}
    """Label-free scores by name, once all stages are trained; higher is better."""
    accuracy: Accuracy | None = None
    """On the target images, where these have labels."""
    held_out: Accuracy | None = None
    """On the held-out target images."""


class LabelFree(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What can be said of the selected model's predictions without labels."""

    mean_confidence: float
    mean_entropy: float
    """In nats."""
    agreement_with_source_only: float | None = None
    agreement_with_teacher: float | None = None
    agreement_with_round_before: float | None = None
    """Of the last two rounds."""


class CalibrationError(Struct, frozen=True, kw_only=True):
    """Expected calibration error in [0, 1], before and after the temperature."""

    before: float
    after: float


class Calibration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far confidences can be believed."""

    temperature: float
    held_out_source: CalibrationError | None = None
    target: CalibrationError | None = None


class Estimate(Struct, frozen=True, kw_only=True):
    """The accuracy on the target, estimated without its labels; in [0, 1], null where nothing can be said."""

    value: float | None = None
    low: float | None = None
    """Lower end of the 90 % interval; null where the method's errors were not measured."""
    high: float | None = None
    """Its upper end."""
    lower_bound: float | None = None
    """What the accuracy exceeds in 95 % of cases."""
    readings: dict[str, float] = {}
    """Single estimates by name, from different assumptions."""


class TeacherFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The teacher: another model's scores of the same images."""

    where: str
    """The file, the argument, or the model."""
    covers_source: bool
    """Its scores of the source were there, so that it could be measured by labels."""
    unknown_classes: tuple[str, ...] = ()
    """Classes that it has no scores of."""
    prompts: dict[str, tuple[str, ...]] = {}
    """Class -> the texts that its images were compared with, of a zero-shot teacher."""


class LabelShares(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Class -> share of a domain's labels."""

    source: dict[str, float] = {}
    """Empty without a source."""
    true_target: dict[str, float] | None = None
    source_to_true: float | None = None
    """Total variation between the two."""


class Cost(Struct, frozen=True, kw_only=True):
    """What all stages took."""

    steps: int
    images: int
    """Through the network in training."""
    seconds: float
    this_sitting: float
    steps_a_stage: int
    images_a_step: int


class RunWarning(Struct, frozen=True, kw_only=True, tag_field="code", omit_defaults=True):
    """Something that looks wrong without a target label; `report/sentences.py` says it in words."""


class Collapsed(RunWarning, frozen=True, tag="collapsed"):
    """Few classes in effect, one class nearly everywhere, or classes that are never predicted."""

    effective_classes: float | None = None
    """exp(entropy) of the predicted shares, where that is too low."""
    usual_classes: float | None = None
    """The same of what it is compared with."""
    compared_with: Literal["source_only", "source"] | None = None
    largest_class: str | None = None
    largest_share: float | None = None
    never_predicted: tuple[str, ...] = ()


class SourceForgotten(RunWarning, frozen=True, tag="source_forgotten"):
    """The adapted model fails on the source, where source-only does not."""

    accuracy: float
    source_only: float


class SourceNotLearned(RunWarning, frozen=True, tag="source_not_learned"):
    """What was trained on the source is wrong on images of the source that it has not seen."""

    accuracy: float
    chance: float
    """The share of the source's largest class."""


class RoundsAtChance(RunWarning, frozen=True, tag="rounds_at_chance"):
    """The last two rounds agree on hardly more images than by chance."""

    agreement: float
    chance: float


class DiscriminatorSeparates(RunWarning, frozen=True, tag="discriminator_separates"):
    """The discriminator tells the domains apart to the end: they were not aligned."""

    accuracy: float


class DiscriminatorIdle(RunWarning, frozen=True, tag="discriminator_idle"):
    """The discriminator never told the domains apart: adaptation learned nothing from it."""

    first: float
    last: float


class EstimatesDisagree(RunWarning, frozen=True, tag="estimates_disagree"):
    """Estimates of the accuracy contradict each other."""

    lowest: str
    low: float
    highest: str
    high: float


class EstimateLow(RunWarning, frozen=True, tag="estimate_low"):
    """Few target images are estimated to be right."""

    estimate: float


class FarFromSource(RunWarning, frozen=True, tag="far_from_source"):
    """Much of the target looks like no class of the source."""

    share: float


class LabelShift(RunWarning, frozen=True, tag="label_shift"):
    """The target's label distribution is estimated to differ from the source's."""

    distance: float


class ClassesAbsent(RunWarning, frozen=True, tag="classes_absent"):
    """Classes of the source that the target seems to have no image of; adaptation left them out."""

    classes: tuple[str, ...]


class UnknownImages(RunWarning, frozen=True, tag="unknown_images"):
    """How many target images were labelled as of no class of the source, where that was asked for."""

    share: float


class WithoutPseudoLabel(RunWarning, frozen=True, tag="without_pseudo_label"):
    """Predicted classes that no pseudo-label was of."""

    classes: tuple[str, ...]


class SourceOnlySelected(RunWarning, frozen=True, tag="source_only_selected"):
    """No round was judged better than source-only."""


class SourcesContradict(RunWarning, frozen=True, tag="sources_contradict"):
    """A source and the others hardly predict each other's labels better than by guessing."""

    specs: tuple[str, ...]
    agreement: float
    """The best of them."""
    chance: float
    all_of_them: bool = False
    """Nobody knows which of them is right, so all are believed."""


class FewHeldOut(RunWarning, frozen=True, tag="few_held_out"):
    """Too few held-out source images to calibrate and to estimate by."""

    images: int
    wanted: int


AnyWarning = (
    Collapsed | SourceNotLearned | SourceForgotten | RoundsAtChance | DiscriminatorSeparates | DiscriminatorIdle
    | EstimatesDisagree | EstimateLow | FarFromSource | UnknownImages | ClassesAbsent | LabelShift
    | WithoutPseudoLabel | SourceOnlySelected | FewHeldOut | SourcesContradict
)  # fmt: skip


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
        return next((one for one in self.warnings if _contradicts(one, self.estimated_accuracy)), None)

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


def _contradicts(warning: AnyWarning, estimate: Estimate) -> bool:
    """Whether an estimate cannot stand beside a warning.

    Low estimates are rather too high, so a low one says little by itself: only an interval that holds it says how far
    the accuracy may lie below.
    """
    if isinstance(warning, EstimateLow):
        low, high = estimate.low, estimate.high
        return low is None or high is None or not low <= warning.estimate <= high
    return isinstance(
        warning,
        Collapsed | SourceNotLearned | SourceForgotten | RoundsAtChance | EstimatesDisagree | FarFromSource,
    ) or (isinstance(warning, SourcesContradict) and warning.all_of_them)


class _Head(Struct):
    format: int = 1


def dump_result(result: Result) -> str:
    """The text of result.json."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n"


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
        raise BiwaaError(f"{run} holds no run that has finished a round.") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BiwaaError(f"{run / 'result.json'} is damaged ({reason}).") from None
    raise BiwaaError(
        f"{run} was written by another version of biwaa (format {found} of result.json, this one reads {FORMAT}): "
        "train again, or read it with that version; its model can still be used."
    )
