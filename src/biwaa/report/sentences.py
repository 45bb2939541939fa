"""Facts of a run in plain sentences: its warnings, and how its model was selected.

A warning becomes one or two sentences: what is wrong, the number that shows it, and what to do (`remedies`).
"""

from typing import assert_never

from biwaa.errors import listed
from biwaa.judging.warnings import LIKENESS
from biwaa.models.side_by_side import parts_of
from biwaa.recipe import Recipe
from biwaa.report.estimate import READINGS
from biwaa.report.remedies import HARDLY_ANY, remedy
from biwaa.result import LAST, TEACHER, AnyWarning, Result, warnings

ABSENT_RIGHT = "on our benchmarks 97 % of the classes named so were absent"
ABSENT_BESIDE_UNKNOWN = "on our benchmarks 94 % of the classes named so beside unknown images were absent"
OPEN_FOUND = (
    "On our benchmarks they were noticed on 10 of 35 tasks in which some images are of no known class, and on none "
    "of 35 in which all are"
)
"""docs/other_classes.md."""


def in_percent(share: float) -> str:
    """A share in [0, 1] as percent, for a sentence."""
    return f"{100 * share:.1f} %"


def unseen_images(result: Result) -> str:
    """How many target images figures are measured on: those whose labels were not handed over to be trained on."""
    images, given = result.target.images, result.target.labels_given
    return f"{images - given} of {images}" if given else f"all {images}"


def backbones_text(result: Result) -> str:
    """How often several backbones agree; empty with one."""
    share, count = result.label_free.agreement_of_backbones, len(parts_of(result.model.backbone))
    if share is None:
        return ""
    averaged = ", averaged over pairs" if count > 2 else ""
    return f"model's {count} backbones, each by itself, agree on {in_percent(share)} of the target images{averaged}"


def warning_text(warning: AnyWarning, result: Result, recipe: Recipe) -> str:
    """A warning in one or two sentences.

    Args:
        warning: of `result`.
        result: of the run that warns.
        recipe: its settings, from which the advice follows.
    """
    return " ".join([_problem(warning, result), remedy(warning, result, recipe)]).strip()


def warning_texts(result: Result, recipe: Recipe) -> list[str]:
    """All of a run's warnings, gravest first."""
    return [warning_text(warning, result, recipe) for warning in result.warnings]


def _problem(warning: AnyWarning, result: Result) -> str:
    """What is wrong, with the number that shows it."""
    # Where unknown images were asked for, one class is theirs.
    asked = [one for one in result.warnings if isinstance(one, warnings.UnknownImages)]
    classes, unknown = len(result.classes) - len(asked), any(one.share for one in asked)
    match warning:
        case warnings.Collapsed():
            return _collapse(warning, classes)
        case warnings.SourceForgotten(accuracy=here, source_only=before):
            return (
                f"Adaptation destroyed what was learned from the source: {in_percent(here)} of the held-out source "
                f"images are right, {in_percent(before)} with source-only."
            )
        case warnings.SourceNotLearned(accuracy=accuracy, chance=chance):
            return (
                f"The source's own labels cannot be predicted from its images: {in_percent(accuracy)} of the held-out "
                f"source images are right, {in_percent(chance)} would be by always guessing the largest class."
            )
        case warnings.RoundsAtChance(agreement=agreement, chance=chance):
            return (
                f"The last two rounds agree on {in_percent(agreement)} of the target images, little more than the "
                f"{in_percent(chance)} expected by chance, so neither can be trusted."
            )
        case warnings.DiscriminatorSeparates(accuracy=accuracy):
            return (
                f"The discriminator tells the domains apart to the end (balanced accuracy {in_percent(accuracy)}), so "
                "the domains were not aligned."
            )
        case warnings.DiscriminatorIdle(first=first, last=last):
            return (
                f"The discriminator never told the domains apart (balanced accuracy {in_percent(first)} at first, "
                f"{in_percent(last)} at last), so adaptation learned nothing from it."
            )
        case warnings.EstimatesDisagree():
            low, high = (READINGS.get(name, name) for name in (warning.lowest, warning.highest))
            return (
                "Estimates of the target accuracy contradict each other, so none can be trusted: "
                f"{in_percent(warning.low)} ({low}) and {in_percent(warning.high)} ({high})."
            )
        case warnings.EstimateLow(estimate=estimate):
            return f"Only about {in_percent(estimate)} of the target images are estimated to be right."
        case warnings.FarFromSource(share=share):
            return (
                f"{in_percent(share)} of the target images are farther from every class of the source than 99 % of the "
                "held-out source images are."
            )
        case warnings.LikeNoClass(likeness=likeness):
            return (
                "Most target images look like no class of the source: groups of like images do not differ from each "
                f"other as the source's classes do (likeness {likeness:.2f}; {LIKENESS:g} or more is usual); they "
                "may be of other classes, all of one or two classes, or few images of a very different style."
            )
        case warnings.UnknownImages(share=0):
            return (
                "No target image was labelled unknown: nothing showed clearly that there are images of no known class. "
                f"{OPEN_FOUND}."
            )
        case warnings.UnknownImages(share=share) if share >= HARDLY_ANY:
            return (
                f"Hardly any target image looks like a class of the source: {in_percent(share)} were labelled unknown, "
                "so nearly nothing was adapted to."
            )
        case warnings.UnknownImages(share=share):
            return (
                f"{in_percent(share)} of the target images were labelled unknown: those that look least like a class "
                "of the source."
            )
        case warnings.ClassesAbsent(classes=absent):
            return (
                f"The target seems to have no image of {len(absent)} of the source's {classes} classes "
                f"({listed(list(absent))}), so they were left out of the adaptation "
                f"({ABSENT_BESIDE_UNKNOWN if unknown else ABSENT_RIGHT})."
            )
        case warnings.LabelShift(distance=distance):
            return (
                f"The target's class shares are estimated to differ from the source's by {in_percent(distance)} (total "
                "variation): either they do, or classes are mistaken for others."
            )
        case warnings.WithoutPseudoLabel(classes=lacking):
            return (
                f"{len(lacking)} of {classes} classes got no pseudo-label ({listed(list(lacking))}), so adaptation "
                "learned nothing about them."
            )
        case warnings.SourceOnlySelected():
            return (
                f"No round was judged better than source-only (by {result.model.chosen_by}), so the source-only model "
                "was selected."
            )
        case warnings.SourcesContradict(specs=specs, agreement=agreement, chance=chance):
            believed = (
                "all are believed, since nothing says which is right" if warning.all_of_them
                else "it is not heard on classes that the others have"
            )  # fmt: skip
            return (
                f"The sources contradict each other: {listed(list(specs))} and the others predict each other's labels "
                f"at {in_percent(agreement)} at best, guessing would reach {in_percent(chance)}, and {believed}."
            )
        case warnings.SourceOnlyUnfinished(before=before, last=last):
            return (
                f"Source-only had not converged: over its last steps its loss still fell from {before:.2f} to "
                f"{last:.2f}, so part of a gain over it can be training that it did not get."
            )
        case warnings.FewHeldOut(images=images, wanted=wanted):
            return f"Only {images} source images were held out, not {wanted}: what is judged by them is rough."
        case _:
            assert_never(warning)


def _collapse(warning: warnings.Collapsed, classes: int) -> str:
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


def stage_name(result: Result, stage: str) -> str:
    """A stage's name, marked where its model was selected."""
    return f"{stage}, selected" if stage == result.model.stage else stage


def selected_text(result: Result) -> str:
    """Which stage was selected, and how."""
    by = result.model.chosen_by
    last = "because it is the last round" if len(result.rounds) > 1 else "the only round"
    how = last if by == LAST else f"by {by}, without labels"
    stage = result.model.stage
    what = f"{stage} (last step)" if result.cost.steps and stage != TEACHER else stage
    return f"selected: {what}, {how}"
