"""What can go wrong without anybody seeing it, found in facts that need no target label.

A check takes all facts and gives a warning, a code with its values, or None where all is well or its facts are missing.
`report/sentences.py` puts warnings into words. Every threshold is here with its reason; the facts are in `signs`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biwaa.judging.label_shift import effective_classes, sampling_scatter, total_variation
from biwaa.judging.signs import EXPECTED, Signs
from biwaa.result import SOURCE_ONLY, AnyWarning, warnings

COLLAPSE = 0.5
"""Least ratio of the effective number of predicted classes to what it is compared with: half the classes gone is more
than the label shifts of the usual benchmarks explain."""
MOST, GAIN = 0.6, 0.3
"""A class that takes this share, and this much more than it is expected to, takes the others' images."""
KAPPA = 0.2
"""Least agreement beyond chance, between rounds and of source-only with the source's labels;
Landis and Koch (Biometrics 1977) call what is below "slight"."""
ALL_ALIKE = 0.95
"""Chance agreement above which two rounds agree because they predict one class; another check warns of that."""
SEPARABLE = 0.99  # Balanced accuracy from which the discriminator's gradient, which falls with its error, has vanished
NEAR_CHANCE = 0.05  # A discriminator within this of 1/2 is guessing; some hundred images in a window scatter by as much
DROP, DEVIATIONS = 0.05, 2.0
"""Loss of source accuracy that deserves a warning, if it is also more than so many standard errors."""
SHIFT = 0.2
"""Total variation, beyond what sampling scatters, from which a fifth of the images would have to change class."""
FAR = 0.5  # Share of target images outside of all source classes; of the source's own images it is 1 %, by construction
LIKENESS, EVENLY = 0.3, 0.7
"""Least likeness to the source's classes. Of tasks of our panel with the source's classes, or some of them, the lowest
has 0.53; of those with none of them 22 of 35 have less than 0.3 (docs/other_classes.md). A target of one or two classes
can have less too. Where these are found, predictions are of fewer classes in effect than the second, a share of the
source's; those of strangers are of more."""
LOW = 0.6
"""Estimated accuracy that deserves a warning: estimates are rather too high, and pseudo-labels that are wrong half of
the time do harm."""
FALLING = 0.05
"""Fall of source-only's loss over the last fifth of its steps, in nats, from which it has not converged. At 1,000 steps
on digits it falls by 0.01, after 100 steps on photographs by 0.4 (docs/results.md)."""
APART = 0.2  # Distance between estimates of accuracy: a hundred images leave each within 0.1, assumptions do the rest.
FEW, FEW_A_CLASS = 100, 5
"""Held-out source images: with 100, an accuracy of 50 % has a standard error of 5 points; a class's column of the
confusion matrix needs some images too."""


def find_warnings(signs: Signs) -> list[AnyWarning]:
    """All that is wrong, gravest first."""
    return [found for check in CHECKS if (found := check(signs))]


def collapsed(signs: Signs) -> warnings.Collapsed | None:
    """Few classes in effect, one class nearly everywhere, or classes that are never predicted."""
    shares = signs.predicted_shares
    if shares is None:
        return None
    found: dict[str, Any] = {}
    for whose, usual in (("source_only", signs.baseline_shares), ("source", signs.source_shares)):
        if usual is None or found:
            continue
        if signs.absent is not None:
            usual = np.where(signs.absent, 0.0, usual)
            usual = usual / max(usual.sum(), 1e-12)
        # Few images are of few classes: N can be expected to show no more than N / 2 in effect.
        here, there = effective_classes(shares), min(effective_classes(usual), signs.targets / 2)
        if here < COLLAPSE * there:
            found |= {"effective_classes": here, "usual_classes": there, "compared_with": whose}
        largest = int(shares.argmax())
        if shares[largest] >= MOST and shares[largest] - usual[largest] >= GAIN:
            found |= {"largest_class": signs.classes[largest], "largest_share": float(shares[largest])}
    if never := _missing(signs, shares):
        found["never_predicted"] = tuple(signs.classes[k] for k in never)
    return warnings.Collapsed(**found) if found else None


def source_forgotten(signs: Signs) -> warnings.SourceForgotten | None:
    """The adapted model fails on the source, where source-only does not."""
    here, before, count = signs.source_accuracy, signs.baseline_source_accuracy, signs.held_out_source
    if here is None or before is None or signs.selected == SOURCE_ONLY:
        return None
    error = math.sqrt((here * (1 - here) + before * (1 - before)) / count) if count else 0.0
    if before - here <= max(DROP, DEVIATIONS * error):
        return None
    return warnings.SourceForgotten(accuracy=here, source_only=before)


def source_not_learned(signs: Signs) -> warnings.SourceNotLearned | None:
    """The source's own labels cannot be predicted from its images, so nothing can be carried over."""
    if signs.learned is None or signs.source_shares is None:
        return None
    chance = float(signs.source_shares.max())
    at_chance = signs.learned - chance < KAPPA * (1 - chance)
    return warnings.SourceNotLearned(accuracy=signs.learned, chance=chance) if at_chance else None


def rounds_at_chance(signs: Signs) -> warnings.RoundsAtChance | None:
    """Successive rounds agree on hardly more images than by chance."""
    agree, chance = signs.round_agreement, signs.round_chance
    if agree is None or chance is None or chance > ALL_ALIKE or (agree - chance) / (1 - chance) >= KAPPA:
        return None
    return warnings.RoundsAtChance(agreement=agree, chance=chance)


def discriminator_at_fault(signs: Signs) -> warnings.DiscriminatorSeparates | warnings.DiscriminatorIdle | None:
    """It separates the domains to the end, or guesses from the first steps to the last."""
    first, last = signs.discriminator_first, signs.discriminator_last
    if last is not None and last >= SEPARABLE:
        return warnings.DiscriminatorSeparates(accuracy=last)
    if first is None or last is None or max(abs(first - 0.5), abs(last - 0.5)) > NEAR_CHANCE:
        return None
    return warnings.DiscriminatorIdle(first=first, last=last)


def estimate_low_or_contradictory(signs: Signs) -> warnings.EstimatesDisagree | warnings.EstimateLow | None:
    """Few images are estimated to be right, or the estimates are too far apart to say."""
    if not signs.estimates:
        return None
    ranked = sorted(signs.estimates, key=signs.estimates.__getitem__)
    values = [signs.estimates[name] for name in ranked]
    if values[-1] - values[0] > APART:
        return warnings.EstimatesDisagree(lowest=ranked[0], low=values[0], highest=ranked[-1], high=values[-1])
    middle = float(np.median(values))
    return warnings.EstimateLow(estimate=middle) if middle < LOW else None


def far_from_source(signs: Signs) -> warnings.FarFromSource | None:
    """Much of the target looks like no class of the source. Fewer than `FEW` images do not show how far 99 % reach."""
    far, count = signs.far_share, signs.held_out_source
    return None if far is None or far <= FAR or (count or 0) < FEW else warnings.FarFromSource(share=far)


def like_no_class(signs: Signs) -> warnings.LikeNoClass | None:
    """Most of the target seems to be of no class of the source, and is not labelled so."""
    if signs.likeness is None or signs.likeness >= LIKENESS or signs.unknown_share:
        return None
    shares = signs.predicted_shares
    if shares is not None and effective_classes(shares) < EVENLY * len(signs.classes):
        return None
    return warnings.LikeNoClass(likeness=signs.likeness)


def unknown_images(signs: Signs) -> warnings.UnknownImages | None:
    """What was found where unknown images were looked for."""
    return None if signs.unknown_share is None else warnings.UnknownImages(share=signs.unknown_share)


def classes_absent(signs: Signs) -> warnings.ClassesAbsent | None:
    """The target seems to have images of some of the classes alone."""
    if signs.absent is None:
        return None
    return warnings.ClassesAbsent(classes=tuple(signs.classes[k] for k in np.flatnonzero(signs.absent)))


def shares_moved(signs: Signs) -> warnings.LabelShift | None:
    """The target's label distribution is another than the source's."""
    there, here = signs.source_shares, signs.estimated_shares
    if there is None or here is None or signs.absent is not None:  # that was said of the absent classes
        return None
    distance = total_variation(here, there)
    return warnings.LabelShift(distance=distance) if distance > SHIFT + sampling_scatter(there, signs.targets) else None


def without_pseudo_label(signs: Signs) -> warnings.WithoutPseudoLabel | None:
    """Classes that adaptation cannot have learned anything of, though they are predicted."""
    if signs.pseudo_labels is None:
        return None
    never = set() if signs.predicted_shares is None else set(_missing(signs, signs.predicted_shares))
    lacking = tuple(signs.classes[k] for k in _missing(signs, signs.pseudo_labels) if k not in never)
    return warnings.WithoutPseudoLabel(classes=lacking) if lacking else None


def nothing_gained(signs: Signs) -> warnings.SourceOnlySelected | None:
    """Source-only is what was selected, though rounds were trained."""
    return warnings.SourceOnlySelected() if signs.selected == SOURCE_ONLY else None


def source_only_unfinished(signs: Signs) -> warnings.SourceOnlyUnfinished | None:
    """Source-only was still learning when its steps were over."""
    if signs.baseline_losses is None or signs.baseline_losses[0] - signs.baseline_losses[1] <= FALLING:
        return None
    return warnings.SourceOnlyUnfinished(before=signs.baseline_losses[0], last=signs.baseline_losses[1])


def sources_contradict(signs: Signs) -> warnings.SourcesContradict | None:
    """Sources whose labels are not those of the others."""
    if signs.standing is None:
        return None
    bad = signs.standing.contradicts
    if not bad.any():
        return None
    return warnings.SourcesContradict(
        specs=tuple(spec for spec, found in zip(signs.places, bad.tolist(), strict=True) if found),
        agreement=float(signs.standing.agreement[bad].max()),
        chance=float(signs.standing.chance[bad].max()),
        all_of_them=bool(bad.all()),
    )


def few_held_out(signs: Signs) -> warnings.FewHeldOut | None:
    """Too few labelled images to judge by. Of a solved head they judge nothing but what these other warnings say."""
    if signs.solved and not (far_from_source(signs) or shares_moved(signs) or estimate_low_or_contradictory(signs)):
        return None
    count = signs.held_out_source
    wanted = max(FEW, FEW_A_CLASS * len(signs.classes))
    return warnings.FewHeldOut(images=count, wanted=wanted) if count is not None and count < wanted else None


CHECKS: tuple[Callable[[Signs], AnyWarning | None], ...] = (
    collapsed,
    source_not_learned,
    sources_contradict,
    source_forgotten,
    rounds_at_chance,
    discriminator_at_fault,
    estimate_low_or_contradictory,
    far_from_source,
    like_no_class,
    unknown_images,
    classes_absent,
    shares_moved,
    without_pseudo_label,
    nothing_gained,
    source_only_unfinished,
    few_held_out,
)  # Gravest first


def _missing(signs: Signs, amounts: NDArray[np.float64] | NDArray[np.int64]) -> list[int]:
    """Classes of amount zero that should have images: by the source's shares, or all where these are not known."""
    empty = np.flatnonzero(amounts == 0 if signs.absent is None else (amounts == 0) & ~signs.absent)
    if signs.source_shares is None:
        return [int(k) for k in empty]
    return [int(k) for k in empty if signs.source_shares[k] * signs.targets >= EXPECTED]
