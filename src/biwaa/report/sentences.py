"""Facts of a run in plain sentences: its warnings, and how far its estimate can be trusted.

A warning becomes one or two sentences: what is wrong, the number that shows it, and what to do, which `advice` draws
from the settings at hand.
"""

from typing import assert_never

from biwaa.errors import listed
from biwaa.recipe import GROUP_OF, Recipe, load_recipe
from biwaa.report.advice import (
    Advice,
    adapts,
    gentler,
    higher_head_factor,
    horizon,
    lower_learning_rate,
    more_held_out,
    more_steps,
    other_method,
    reads,
    stronger_backbone,
    without_discriminator,
)
from biwaa.result import (
    LAST,
    SOURCE_ONLY,
    AnyWarning,
    Collapsed,
    DiscriminatorIdle,
    DiscriminatorSeparates,
    EstimateLow,
    EstimatesDisagree,
    FarFromSource,
    FewHeldOut,
    LabelShift,
    Result,
    RoundsAtChance,
    SourceForgotten,
    SourceOnlySelected,
    WithoutPseudoLabel,
)

READINGS = {
    "estimate": "the estimate",
    "agreement_of_rounds": "agreement among the rounds",
    "agreement_with_source_only": "agreement with source-only",
    "agreement_of_neighbours": "agreement among nearest neighbours",
    "agreement_of_neighbours_source_only": "the same for source-only, an estimate of its accuracy",
    "confidence": "mean confidence, calibrated",
    "difference_of_confidences": "held-out source accuracy minus the loss of confidence",
    "thresholded_confidence": "share of confidences above a threshold set on the source",
    "thresholded_entropy": "share of entropies below a threshold set on the source",
}
"""Label-free estimates of the accuracy, in words."""

MEASURED = (
    "Over 54 benchmark runs of the recipe robust (PACS and Office's ten classes, frozen EfficientNet-Lite0) such "
    "estimates were off by 5.5 points on average and by 27 at worst, and rather too high"
)
"""docs/robust.md; true of runs with that recipe's settings alone."""
NOT_TRAINING = ("seed", "backbone", "weights", "freeze_backbone", "image_size")
"""Settings that `MEASURED` names as its conditions, or that do not belong to a recipe; those of the machine too."""


def in_percent(share: float) -> str:
    """A share in [0, 1] as percent, for a sentence."""
    return f"{100 * share:.1f} %"


def either(advice: list[Advice]) -> str:
    """`A, B or C`."""
    texts = [one.text for one in advice]
    return " or ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def warning_text(warning: AnyWarning, result: Result, recipe: Recipe) -> str:
    """A warning in one or two sentences.

    Args:
        warning: of `result`.
        result: of the run that warns.
        recipe: its settings, from which the advice follows.
    """
    return " ".join([_problem(warning, result), _remedy(warning, result, recipe)]).strip()


def warning_texts(result: Result, recipe: Recipe) -> list[str]:
    """All of a run's warnings, gravest first."""
    return [warning_text(warning, result, recipe) for warning in result.warnings]


def _problem(warning: AnyWarning, result: Result) -> str:
    """What is wrong, with the number that shows it."""
    classes = len(result.classes)
    match warning:
        case Collapsed():
            return _collapse(warning, classes)
        case SourceForgotten(accuracy=here, source_only=before):
            return (
                f"Adaptation destroyed what was learned from the source: {in_percent(here)} of the held-out source "
                f"images are right, {in_percent(before)} with source-only."
            )
        case RoundsAtChance(agreement=agreement, chance=chance):
            return (
                f"The last two rounds agree on {in_percent(agreement)} of the target images, little more than the "
                f"{in_percent(chance)} expected by chance, so neither can be trusted."
            )
        case DiscriminatorSeparates(accuracy=accuracy):
            return (
                f"The discriminator tells the domains apart to the end (balanced accuracy {in_percent(accuracy)}), so "
                "the domains were not aligned."
            )
        case DiscriminatorIdle(first=first, last=last):
            return (
                f"The discriminator never told the domains apart (balanced accuracy {in_percent(first)} at first, "
                f"{in_percent(last)} at last), so adaptation learned nothing from it."
            )
        case EstimatesDisagree():
            low, high = (READINGS.get(name, name) for name in (warning.lowest, warning.highest))
            return (
                f"Estimates of the target accuracy contradict each other, so none can be trusted: "
                f"{in_percent(warning.low)} by {low}, {in_percent(warning.high)} by {high}."
            )
        case EstimateLow(estimate=estimate):
            return f"Only about {in_percent(estimate)} of the target images are estimated to be right."
        case FarFromSource(share=share):
            return (
                f"{in_percent(share)} of the target images are farther from every class of the source than 99 % of the "
                "source's own images are."
            )
        case LabelShift(distance=distance):
            return (
                f"The target's class shares are estimated to differ from the source's by {in_percent(distance)} (total "
                "variation): either they do, or classes are mistaken for others."
            )
        case WithoutPseudoLabel(classes=lacking):
            return (
                f"{len(lacking)} of {classes} classes got no pseudo-label ({listed(list(lacking))}), so adaptation "
                "learned nothing about them."
            )
        case SourceOnlySelected():
            return (
                f"No round was judged better than source-only (by {result.model.chosen_by}), so the source-only model "
                "was selected."
            )
        case FewHeldOut(images=images, wanted=wanted):
            return (
                f"Only {images} source images were held out and calibration and estimates of accuracy need {wanted}, "
                "so take both as rough."
            )
        case _:
            assert_never(warning)


def _collapse(warning: Collapsed, classes: int) -> str:
    found = []
    if warning.effective_classes is not None and warning.usual_classes is not None:
        whose = "source-only's predictions" if warning.compared_with == "source_only" else "the source's labels"
        found.append(
            f"they are as varied as {warning.effective_classes:.1f} equally large classes, {whose} are as varied as "
            f"{warning.usual_classes:.1f}"
        )
    if warning.largest_class is not None and warning.largest_share is not None:
        found.append(f"{in_percent(warning.largest_share)} of the target images are predicted as "
                     f"{warning.largest_class}")  # fmt: skip
    if never := list(warning.never_predicted):
        found.append(f"{len(never)} of {classes} classes are never predicted on the target ({listed(never)})")
    return f"The predictions may have collapsed: {'; '.join(found)}."


def _remedy(warning: AnyWarning, result: Result, recipe: Recipe) -> str:
    """What to do, in a sentence; empty where the settings leave nothing to try."""
    link = "or" if isinstance(warning, FewHeldOut) else "and"
    way = either(remedies(warning, result, recipe))
    text = f", {link} ".join(filter(None, [_check(warning, result, recipe), way and f"try {way}"]))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _check(warning: AnyWarning, result: Result, recipe: Recipe) -> str:
    """What to do that is no other setting."""
    measured = result.accuracy is not None or result.held_out is not None
    match warning:
        case Collapsed() | LabelShift() if not _adapted(result, recipe):
            return "check with `biwaa check` that both domains hold these classes"
        case Collapsed():
            return "compare with source-only before use"
        case LabelShift():
            return "compare with source-only"
        case FarFromSource():
            return "check with `biwaa check` that the target shows the source's classes"
        case EstimatesDisagree() | EstimateLow():
            return (
                "go by the measured accuracy" if measured else "label some target images and pass them with --held-out"
            )
        case FewHeldOut():
            return "give more labelled source images"
        case _:
            return ""


def remedies(warning: AnyWarning, result: Result, recipe: Recipe) -> list[Advice]:
    """What to try, the best first: allowed by the settings, and none that the run does already."""
    adapting = adapts(recipe)
    ways: list[Advice | None]
    match warning:
        case Collapsed():
            ways = [*gentler(recipe)] if _adapted(result, recipe) else [stronger_backbone(recipe)]
        case SourceForgotten() | SourceOnlySelected():
            ways = [*gentler(recipe)]
        case RoundsAtChance():
            ways = [lower_learning_rate(recipe), more_steps(recipe)]
        case DiscriminatorSeparates():
            ways = [horizon(recipe, 0.25), without_discriminator()]
        case DiscriminatorIdle():
            ways = [horizon(recipe, 4), higher_head_factor(recipe)]
        case EstimateLow() | FarFromSource():
            ways = [stronger_backbone(recipe)]
        case LabelShift():
            ways = [other_method(recipe)] if adapting else []
        case WithoutPseudoLabel():
            ways = [other_method(recipe), stronger_backbone(recipe)]
        case FewHeldOut(images=images, wanted=wanted):
            ways = [more_held_out(recipe, images, wanted)]
        case EstimatesDisagree():
            ways = []
        case _:
            assert_never(warning)
    return [way for way in ways if way]


def _adapted(result: Result, recipe: Recipe) -> bool:
    """Whether the selected model was adapted at all."""
    return adapts(recipe) and result.model.stage != SOURCE_ONLY


def doubt(result: Result) -> str:
    """Why no estimate of the accuracy is shown; empty where one is."""
    for warning in result.warnings:
        match warning:
            case Collapsed():
                return "the predictions may have collapsed"
            case RoundsAtChance():
                return "the last two rounds agree little more than by chance"
            case EstimatesDisagree():
                return "the estimates contradict each other"
    return "" if "estimate" in result.estimated_accuracy else "this run kept nothing to estimate from"


def shown_estimate(result: Result) -> float | None:
    """The label-free estimate of the target accuracy in [0, 1]; None where `doubt` says why there is none."""
    return None if doubt(result) else result.estimated_accuracy["estimate"]


def estimate_error(result: Result, recipe: Recipe) -> str:
    """How wrong such an estimate is, as far as that was measured: a sentence for below it."""
    if not result.finished:
        return "How wrong the estimate of an unfinished run is was not measured."
    if other := _unlike_robust(recipe):
        return (
            f"How wrong this estimate is was not measured: the recipe robust has other settings ({listed(other, 3)})."
        )
    return f"{MEASURED}."


def _unlike_robust(recipe: Recipe) -> list[str]:
    """Settings that affect training and are not the recipe robust's."""
    robust, here = load_recipe("robust"), recipe.flat()
    if recipe.method != robust.method:
        return ["method"]
    return [
        name
        for name, value in robust.flat().items()
        if GROUP_OF[name] != "machine" and name not in NOT_TRAINING and reads(recipe, name) and here[name] != value
    ]


def selected_text(result: Result) -> str:
    """Which stage was selected, and how."""
    by = result.model.chosen_by
    how = "because it is the last round" if by == LAST else f"by {by}, without labels"
    return f"selected: {result.model.stage} (last step), {how}"
