"""What to do about each warning: a check, and settings to try, which `advice` draws from the settings at hand."""

from typing import assert_never

from biwaa.recipe import Recipe
from biwaa.report.advice import (
    Advice,
    adapt_to_all,
    adapts,
    better_method,
    freeze,
    gentler,
    higher_head_factor,
    horizon,
    lower_learning_rate,
    more_held_out,
    more_steps,
    stronger_backbone,
)
from biwaa.result import REFERENCES, AnyWarning, Result, warnings

HARDLY_ANY = 0.9
"""Share of unknown images from which there is little left to adapt to."""


def either(advice: list[Advice]) -> str:
    """`A, B or C`."""
    texts = [one.text for one in advice]
    return " or ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def remedy(warning: AnyWarning, result: Result, recipe: Recipe) -> str:
    """What to do, in a sentence; empty where the settings leave nothing to try."""
    link = "or" if isinstance(warning, warnings.FewHeldOut) else "and"
    way = either(remedies(warning, result, recipe))
    text = f", {link} ".join(filter(None, [_check(warning, result, recipe), way and f"try {way}"]))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _check(warning: AnyWarning, result: Result, recipe: Recipe) -> str:
    """What to do that is no other setting."""
    match warning:
        case warnings.Collapsed() | warnings.LabelShift() if not _adapted(result, recipe):
            return "check with `biwaa check` that both domains hold these classes"
        case warnings.Collapsed():
            return "compare with source-only before use"
        case warnings.LabelShift() | warnings.ClassesAbsent():
            return "compare with source-only"
        case warnings.UnknownImages(share=0):
            return "look at some images, and name the share of unknown ones, as in --unknown 0.3, if there are any"
        case warnings.UnknownImages(share=share) if share < HARDLY_ANY:
            return ""
        case warnings.FarFromSource() | warnings.LikeNoClass() | warnings.UnknownImages():
            return "check with `biwaa check` that the target shows the source's classes"
        case warnings.EstimatesDisagree() | warnings.EstimateLow() if result.accuracy or result.held_out:
            return "go by the measured accuracy"
        case warnings.EstimatesDisagree() | warnings.EstimateLow():
            return "label some target images and pass them with --held-out"
        case warnings.SourceNotLearned():
            return "check that the source's images lie in the folders of their classes"
        case warnings.SourcesContradict():
            return "check that its images lie in the folders of their classes"
        case warnings.FewHeldOut():
            return "give more labelled source images"
        case _:
            return ""


def remedies(warning: AnyWarning, result: Result, recipe: Recipe) -> list[Advice]:
    """What to try, at most two things, the one that was measured to help most first.

    All is allowed by the settings and by the machine, and the run does none of it already.
    """
    device = str(result.hardware.get("device", ""))
    ways: list[Advice | None]
    match warning:
        case warnings.Collapsed():
            ways = gentler(recipe, device) if _adapted(result, recipe) else [stronger_backbone(recipe)]
        case warnings.SourceForgotten() | warnings.SourceOnlySelected():
            ways = gentler(recipe, device)
        case warnings.RoundsAtChance():
            ways = [freeze(recipe, device), better_method(recipe), lower_learning_rate(recipe), more_steps(recipe)]
        case warnings.DiscriminatorSeparates():
            ways = [better_method(recipe), horizon(recipe, 0.25)]
        case warnings.DiscriminatorIdle():
            ways = [better_method(recipe), horizon(recipe, 4), higher_head_factor(recipe)]
        case warnings.EstimateLow() | warnings.WithoutPseudoLabel():
            ways = [freeze(recipe, device), better_method(recipe), stronger_backbone(recipe)]
        case warnings.FarFromSource():
            ways = [stronger_backbone(recipe)]
        case warnings.LabelShift():
            ways = [better_method(recipe)] if adapts(recipe) else []
        case warnings.SourceOnlyUnfinished():
            ways = [more_steps(recipe)]
        case warnings.FewHeldOut(images=images, wanted=wanted):
            ways = [more_held_out(recipe, images, wanted)]
        case warnings.ClassesAbsent():
            ways = [adapt_to_all(recipe)]
        case (
            warnings.EstimatesDisagree()
            | warnings.SourceNotLearned()
            | warnings.SourcesContradict()
            | warnings.UnknownImages()
            | warnings.LikeNoClass()
        ):
            ways = []
        case _:
            assert_never(warning)
    return [way for way in ways if way][:2]


def _adapted(result: Result, recipe: Recipe) -> bool:
    """Whether the selected model was adapted at all."""
    return adapts(recipe) and result.model.stage not in REFERENCES
