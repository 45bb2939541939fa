"""The label-free estimate of the accuracy as it is shown: whether it is shown at all, and how wrong such estimates are.

No other place says how wrong estimates were: the sentence must be true of the run that it stands under.
"""

from biwaa.errors import listed
from biwaa.judging.estimate import WHOLE
from biwaa.methods import METHODS
from biwaa.models.backbone import FEATURES
from biwaa.models.side_by_side import several
from biwaa.recipe import GROUP_OF, Recipe, load_recipe, with_method
from biwaa.report.advice import reads
from biwaa.result import Estimate, Result, warnings

READINGS = {
    "agreement_of_rounds": "agreement among the rounds",
    "agreement_with_source_only": "agreement with source-only",
    "agreement_with_teacher": "agreement with the teacher",
    "agreement_of_neighbours": "agreement among nearest neighbours",
    "agreement_of_first_neighbours": "agreement among nearest neighbours in source-only's features",
    "agreement_of_neighbours_source_only": "agreement of source-only's neighbours, an estimate of its accuracy",
    "confidence": "mean confidence, calibrated on the source",
    "agreement_with_class_confusion": "agreement with minimum class confusion on source-only's features",
    "agreement_of_halves": "agreement of two solutions that share no source image",
    "source_only_by_confidence": "source-only's cross-validated accuracy minus its loss of confidence",
    "difference_of_confidences": "held-out source accuracy minus the loss of confidence",
    "thresholded_confidence": "share of confidences above a threshold set on the source",
    "thresholded_entropy": "share of entropies below a threshold set on the source",
}  # Label-free estimates of the accuracy, in words

MEASURED = (
    "Over 54 benchmark runs of the recipe robust (PACS and Office's ten classes, frozen EfficientNet-Lite0) such "
    "estimates were off by 5.5 points on average and by 27 at worst, and rather too high"
)  # docs/robust.md; true of runs with that recipe's settings alone.
MEASURED_SOLVED = (
    "Over 34 benchmark tasks such estimates were off by 3.5 points on average and by 17 at worst, and the interval "
    "held the accuracy in 33. Images of no class of the source mostly go unnoticed and are not counted"
)  # docs/robust.md; of the method prototypes.
MEASURED_GIVEN = (
    "Where features are no network's they can be far too high: over 21 tasks of small digits and tables they were off "
    "by 10.8 points on average and by 74 at worst, and the interval held the accuracy in 13"
)  # docs/results.md; said beside `MEASURED_SOLVED` where features were given.
MEASURED_SEVERAL = (
    "Over 32 benchmark tasks (PACS, Office, satellite images, emoji), each with two backbones and with three, such "
    "estimates were off by 5.4 points on average and by 19 at worst, and the interval held the accuracy in 62 of 64"
)  # docs/backbones.md; of the method prototypes.
MEASURED_WHOLE = (
    "Over 84 short trainings of whole networks (PACS and satellite images, 100 steps at 128 pixels) such estimates "
    "were off by 5.6 points on average and by 20 at worst; where source-only fails they are too low"
)  # docs/results.md; of networks that were trained whole, with source-only beside them.
MEASURED_REMEMBERED = (
    "Over 32 benchmark tasks (PACS, Office, satellite images, Office-Home) with a model in the place of the source's "
    "images such estimates were off by 5.0 points on average and by 20 at worst"
)  # docs/sources.md
MEASURED_TAUGHT = (
    "Over the twelve tasks of Office-Home with a zero-shot teacher such estimates were off by 2.2 points on average "
    "and by 5.7 at worst"
)
MEASURED_ALONE = (
    "Over the four domains of Office-Home with a zero-shot teacher and no source such estimates were off by 5.2 points "
    "on average and by 10.7 at worst"
)  # docs/results.md; both with the teacher's scores as features.
OF_WHOLE = ("biwaa", "dann", "mcc", "mcc_teacher")
"""Methods of `MEASURED_WHOLE`; the last is MCC in rounds."""
NOT_TRAINING = ("seed", "backbone", "weights", "freeze_backbone", "image_size")
"""Settings that `MEASURED` names as its conditions, or that do not belong to a recipe; those of the machine too."""


def doubt(result: Result) -> str:
    """Why no estimate of the accuracy is shown; empty where one is."""
    match result.contradiction:
        case warnings.Collapsed():
            return "the predictions may have collapsed"
        case warnings.SourceNotLearned():
            return "not even the source's own labels can be predicted from its images"
        case warnings.SourceForgotten():
            return "adaptation destroyed what was learned from the source"
        case warnings.RoundsAtChance():
            return "the last two rounds agree little more than by chance"
        case warnings.EstimatesDisagree():
            return "the estimates contradict each other"
        case warnings.EstimateLow():
            return "the estimates are low, and low ones are rather too high"
        case warnings.FarFromSource() | warnings.LikeNoClass():
            return "most target images look like no class of the source"
        case warnings.SourcesContradict():
            return "the sources contradict each other"
    if result.estimated_accuracy.value is not None:
        return ""
    if result.remembered:
        return "the source is known by its head alone, from which estimates were far too high"
    return "this run kept nothing to estimate from"


def shown_estimate(result: Result) -> float | None:
    """The label-free estimate of the target accuracy in [0, 1]; None where `doubt` says why there is none."""
    return None if doubt(result) else result.estimated_accuracy.value


def interval_text(found: Estimate) -> str:
    """`, 90 % interval 61 to 83 %`, whose lower end is the bound; empty where there is no interval."""
    if found.low is None or found.high is None:
        return ""
    return f", 90 % interval {100 * found.low:.0f} to {100 * found.high:.0f} %"


def estimate_text(result: Result) -> str:
    """The estimate with its interval, or why there is none."""
    share = shown_estimate(result)
    if share is None:
        return f"unknown, since {doubt(result)}"
    return f"{100 * share:.0f} %{interval_text(result.estimated_accuracy)}"


def estimate_error(result: Result, recipe: Recipe) -> str:
    """How wrong such an estimate is, as far as that was measured: a sentence for below it."""
    if not result.finished:
        return "The error of such estimates was not measured for unfinished runs."
    if WHOLE[0] in result.estimated_accuracy.readings and not recipe.network.frozen and recipe.method in OF_WHOLE:
        return f"{MEASURED_WHOLE}."
    # Without images of a source there is nothing to hold out: the run itself sets these.
    implied = () if result.source.images else ("baseline", "source_held_out", "resize")
    if other := [name for name in _unlike_robust(recipe) if name not in implied]:
        differing = f"{listed(other, 3)} differ{'s' * (len(other) == 1)} from the recipe robust"
        return f"The error of such estimates was not measured for these settings ({differing})."
    if result.remembered:
        if result.teacher:
            return "The error of such estimates was not measured for a model as the source beside a teacher."
        return f"{MEASURED_REMEMBERED}."
    if result.teacher:
        return f"{MEASURED_TAUGHT if result.source.images else MEASURED_ALONE}."
    if not METHODS[recipe.method].solves:
        return f"{MEASURED}."
    if several(recipe.network.backbone):
        return f"{MEASURED_SEVERAL}."
    return f"{MEASURED_SOLVED}. {MEASURED_GIVEN}." if recipe.network.backbone == FEATURES else f"{MEASURED_SOLVED}."


def _unlike_robust(recipe: Recipe) -> list[str]:
    """Settings that affect training and are not the recipe robust's."""
    if recipe.method not in ("prototypes", "mcc_teacher"):
        return ["method"]
    # Both were measured on frozen features: the one as the recipe has it now, the other as it had it before.
    robust = with_method(load_recipe("robust").replace(freeze_backbone=recipe.method == "prototypes"))
    here = recipe.flat()
    return [
        name
        for name, value in robust.flat().items()
        if GROUP_OF[name] != "machine" and name not in NOT_TRAINING and reads(recipe, name) and here[name] != value
    ]
