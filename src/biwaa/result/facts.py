"""The parts of result.json: facts about domains, model, stages, estimates and cost."""

from typing import Literal

from msgspec import Struct


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
    relevance: float | None = None
    """Share of the target on which it says by itself what was found; of target images of its classes. Null where the
    method does not compare sources."""
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
    agreement_of_backbones: float | None = None
    """Of what each of several backbones finds by itself, averaged over their pairs."""


class CalibrationError(Struct, frozen=True, kw_only=True):
    """Expected calibration error in [0, 1], before and after the temperature."""

    before: float
    after: float


class Calibration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far confidences can be believed."""

    temperature: float
    matched_to_estimate: bool = False
    """Whether the mean confidence on the target is the estimate of the accuracy there, which a warning may withhold.

    Else the temperature is fitted on held-out source images."""
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
    """What the accuracy exceeds in 95 % of cases: the lower end of the interval."""
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
