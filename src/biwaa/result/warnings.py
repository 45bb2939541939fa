"""The warnings of result.json: each a code with its values, which `report/sentences.py` says in words."""

from typing import Literal

from msgspec import Struct


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


class LikeNoClass(RunWarning, frozen=True, tag="like_no_class"):
    """Most of the target seems to be of no class of the source."""

    likeness: float
    """To the classes (`judging.likeness`)."""


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


class SourceOnlyUnfinished(RunWarning, frozen=True, tag="source_only_unfinished"):
    """Source-only's loss still fell when its training ended: part of a gain over it can be training it did not get."""

    before: float
    """Its mean cross-entropy, in nats, over the last but one fifth of the steps."""
    last: float
    """The same over the last fifth."""


class FewHeldOut(RunWarning, frozen=True, tag="few_held_out"):
    """Too few held-out source images to judge by."""

    images: int
    wanted: int


AnyWarning = (
    Collapsed | SourceNotLearned | SourceForgotten | RoundsAtChance | DiscriminatorSeparates | DiscriminatorIdle
    | EstimatesDisagree | EstimateLow | FarFromSource | LikeNoClass | UnknownImages | ClassesAbsent
    | LabelShift | WithoutPseudoLabel | SourceOnlySelected | SourceOnlyUnfinished | FewHeldOut
    | SourcesContradict
)  # fmt: skip
AGAINST_ESTIMATES = (
    Collapsed, SourceNotLearned, SourceForgotten, RoundsAtChance, EstimatesDisagree, FarFromSource, LikeNoClass,
)  # fmt: skip
"""Beside these no estimate of the accuracy is believed."""
