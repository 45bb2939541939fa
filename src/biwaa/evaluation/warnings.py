"""What can go wrong without anybody seeing it, read off facts that need no target label, and said in plain words.

A check takes all facts and gives one or two sentences: what is wrong, the number that shows it, what to do. It gives
None where all is well, and where its own facts are missing. Every threshold stands here with its reason.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biwaa.errors import listed
from biwaa.evaluation.label_shift import Shares, effective_classes, sampling_scatter
from biwaa.evaluation.metrics import total_variation

COLLAPSE = 0.5
"""Least ratio of the effective number of predicted classes to what it is compared with: half the classes gone is more
than the label shifts of the usual benchmarks explain."""
MOST, GAIN = 0.6, 0.3
"""A class that takes this share, and this much more than it is expected to, takes the others' images."""
EXPECTED = 5.0
"""Images a class must be expected to have before its absence says anything: e^-5 of such classes lack all by chance."""
KAPPA = 0.2
"""Least agreement beyond chance between rounds; Landis and Koch (Biometrics 1977) call what is below "slight"."""
ALL_ALIKE = 0.95
"""Chance agreement above which two rounds agree because they predict one class; that is said by another check."""
SEPARABLE = 0.99
"""Balanced accuracy from which the discriminator's gradient, which falls with its error, has vanished."""
NEAR_CHANCE = 0.05
"""A discriminator within this of 1/2 tells nothing; some hundred images in a window scatter by as much."""
DROP, DEVIATIONS = 0.05, 2.0
"""Loss of source accuracy that is worth a word, if it is also more than so many standard errors."""
SHIFT = 0.2
"""Total variation, beyond what sampling scatters, from which a fifth of the images would have to change class."""
FAR = 0.5
"""Share of target images outside of all source classes; of the source's own images it is 1 %, by construction."""
LOW = 0.6
"""Estimated accuracy worth a word: estimates are rather too high, and pseudo-labels wrong half of the time do harm."""
APART = 0.2
"""Distance between estimates of accuracy: a hundred images leave each within 0.1, assumptions do the rest."""
FEW, FEW_A_CLASS = 100, 5
"""Held-out source images: with 100, an accuracy of 50 % has a standard error of 5 points; a class's column of the
confusion matrix needs some images too."""


@dataclass(frozen=True)
class Signs:
    """Facts about a run; None where unknown, and shares are (K,) and sum to 1."""

    classes: tuple[str, ...]
    targets: int
    """Target images."""
    chosen: str
    """The leg whose model is handed out; facts are about it unless they say otherwise."""
    method: str = "biwaa"
    """How the run adapts, so that no advice names what it does already."""
    baseline: str | None = None
    """The source-only leg, where there is one."""
    predicted_shares: Shares | None = None
    """Of the classes that it predicts on the target."""
    baseline_shares: Shares | None = None
    """The same of source-only."""
    source_shares: Shares | None = None
    """Of the source's labels."""
    estimated_shares: Shares | None = None
    """Estimated label distribution of the target (`label_shift`)."""
    round_agreement: float | None = None
    """Share of target images that the last two rounds predict alike."""
    round_chance: float | None = None
    """What it would be if they had nothing in common (`label_shift.chance_agreement`)."""
    discriminator_first: float | None = None
    """Mean of the discriminator's accuracy over the first tenth of the steps, in which it learns."""
    discriminator_last: float | None = None
    """The same over the last tenth."""
    source_accuracy: float | None = None
    """Accuracy on held-out source images."""
    baseline_source_accuracy: float | None = None
    """Source-only's on the same."""
    held_out_source: int | None = None
    """How many held-out source images there are."""
    pseudo_labels: NDArray[np.int64] | None = None
    """(K,) target images of each pseudo-label that earlier rounds taught; None in a round that nothing taught."""
    far_share: float | None = None
    """As of the function of this name."""
    estimates: Mapping[str, float] | None = None
    """Label-free estimates of target accuracy by name (`calibration`), in [0, 1]."""


def warnings(signs: Signs) -> list[str]:
    """All that is wrong, gravest first."""
    return [said for check in CHECKS if (said := check(signs))]


def far_share(source: Tensor, labels: NDArray[np.int64], held_out: Tensor, target: Tensor) -> float:
    """Share of target images farther from the nearest class centroid than 99 % of held-out source images are.

    Args:
        source: (N, D) features that the centroids are the means of.
        labels: (N,) their classes.
        held_out: (S, D) features of source images that are not among them.
        target: (M, D) features.

    Returns:
        In [0, 1]; about 0.01 for more images of the source.
    """
    of_class = torch.from_numpy(labels).to(source.device)
    centroids = torch.stack([source[of_class == k].double().mean(dim=0) for k in np.unique(labels).tolist()])

    def nearest(features: Tensor) -> Tensor:
        return torch.cdist(features.double(), centroids).amin(dim=1)

    limit = np.quantile(nearest(held_out).cpu().numpy(), 0.99)
    return float((nearest(target) > limit).double().mean())


def collapsed(signs: Signs) -> str | None:
    """Few classes in effect, one class nearly everywhere, or classes that are never predicted."""
    shares = signs.predicted_shares
    if shares is None:
        return None
    found: list[str] = []
    for whose, usual in (("source-only predicts", signs.baseline_shares), ("the source has", signs.source_shares)):
        if usual is None or found:
            continue
        # Few images are of few classes: N can be expected to show no more than N / 2 in effect.
        here, there = effective_classes(shares), min(effective_classes(usual), signs.targets / 2)
        if here < COLLAPSE * there:
            found.append(f"they amount to {here:.1f} classes of equal size where {whose} {there:.1f}")
        most = int(shares.argmax())
        if shares[most] >= MOST and shares[most] - usual[most] >= GAIN:
            found.append(f"{_percent(shares[most])} of the images are called {signs.classes[most]}")
    if never := [signs.classes[k] for k in _missing(signs, shares)]:
        found.append(
            f"{len(never)} of {len(signs.classes)} classes are never predicted on the target ({listed(never)})"
        )
    if not found:
        return None
    advice = f"Compare with source-only before use, and try {_gentler(signs)} or {_another(signs)}."
    if signs.chosen == signs.baseline:
        advice = "Check with `biwaa check` that both domains hold these classes, and try a stronger --backbone."
    return f"The predictions may have collapsed: {'; '.join(found)}. {advice}"


def source_forgotten(signs: Signs) -> str | None:
    """The adapted model fails on the source, where source-only does not."""
    here, before, count = signs.source_accuracy, signs.baseline_source_accuracy, signs.held_out_source
    if here is None or before is None or signs.chosen == signs.baseline:
        return None
    error = math.sqrt((here * (1 - here) + before * (1 - before)) / count) if count else 0.0
    if before - here <= max(DROP, DEVIATIONS * error):
        return None
    return (
        f"Adapting destroyed what was learned of the source: {_percent(here)} of held-out source images are right, "
        f"{_percent(before)} with source-only. Try {_gentler(signs)} or {_another(signs)}."
    )


def rounds_at_chance(signs: Signs) -> str | None:
    """Successive rounds agree hardly more than strangers would."""
    agree, chance = signs.round_agreement, signs.round_chance
    if agree is None or chance is None or chance > ALL_ALIKE or (agree - chance) / (1 - chance) >= KAPPA:
        return None
    return (
        f"The last two rounds agree on {_percent(agree)} of the target images, which is little more than the "
        f"{_percent(chance)} of chance: neither can be trusted. Lower --learning-rate, or give more --steps."
    )


def discriminator_at_fault(signs: Signs) -> str | None:
    """It tells the domains apart to the end, or guesses from the first steps to the last."""
    first, last = signs.discriminator_first, signs.discriminator_last
    if last is not None and last >= SEPARABLE:
        return (
            f"The discriminator tells the domains apart to the end (balanced accuracy {_percent(last)}), so they were "
            "not aligned. Try a shorter --adversarial-horizon, or --method mcc, which needs no discriminator."
        )
    if first is None or last is None or max(abs(first - 0.5), abs(last - 0.5)) > NEAR_CHANCE:
        return None
    return (
        f"The discriminator never told the domains apart (balanced accuracy {_percent(first)} at first, "
        f"{_percent(last)} at last), so it taught nothing. Try a longer --adversarial-horizon or higher --head-factor."
    )


def estimate_low_or_contradictory(signs: Signs) -> str | None:
    """Few images are thought to be right, or nobody can tell how many."""
    if not signs.estimates:
        return None
    ranked = sorted(signs.estimates, key=signs.estimates.__getitem__)
    values = [signs.estimates[name] for name in ranked]
    middle = float(np.median(values))
    if values[-1] - values[0] > APART:
        return (
            f"Estimates of the target accuracy contradict each other, from {_percent(values[0])} ({ranked[0]}) to "
            f"{_percent(values[-1])} ({ranked[-1]}), so believe none of them. Label some target images and pass them "
            "with --held-out."
        )
    if middle >= LOW:
        return None
    return (
        f"Only about {_percent(middle)} of the target images are estimated to be right. Try a stronger --backbone, and "
        "label some target images and pass them with --held-out to be sure."
    )


def far_from_source(signs: Signs) -> str | None:
    """Much of the target looks like no class of the source."""
    if signs.far_share is None or signs.far_share <= FAR:
        return None
    return (
        f"{_percent(signs.far_share)} of the target images are farther from every class of the source than 99 % of the "
        "source's own images are. Check with `biwaa check` that the target is what it should be, and try a stronger "
        "--backbone."
    )


def shares_moved(signs: Signs) -> str | None:
    """The target's label distribution is another than the source's."""
    there, here = signs.source_shares, signs.estimated_shares
    if there is None or here is None:
        return None
    distance = total_variation(here, there)
    if distance <= SHIFT + sampling_scatter(there, signs.targets):
        return None
    return (
        f"The target's label distribution is estimated {_percent(distance)} from the source's (total variation): it "
        "differs, or classes are taken for others, and accuracy over classes suffers from either. Compare with "
        f"source-only and {_another(signs)}."
    )


def without_pseudo_label(signs: Signs) -> str | None:
    """Classes that adaptation cannot have learned anything of, though they are predicted."""
    if signs.pseudo_labels is None:
        return None
    never = set() if signs.predicted_shares is None else set(_missing(signs, signs.predicted_shares))
    lacking = [signs.classes[k] for k in _missing(signs, signs.pseudo_labels) if k not in never]
    if not lacking:
        return None
    return (
        f"{len(lacking)} of {len(signs.classes)} classes got no pseudo-label ({listed(lacking)}), so adaptation taught "
        f"nothing of them. Try {_another(signs)}, or a stronger --backbone."
    )


def nothing_gained(signs: Signs) -> str | None:
    """Source-only is what is handed out."""
    if signs.baseline is None or signs.chosen != signs.baseline:
        return None
    return (
        "Adaptation was judged no better than source-only, so the source-only model is handed out. To gain by it, try "
        f"{_gentler(signs)}, {_another(signs)} or a stronger --backbone."
    )


def few_held_out(signs: Signs) -> str | None:
    """Too few labelled images to judge by."""
    count = signs.held_out_source
    wanted = max(FEW, FEW_A_CLASS * len(signs.classes))
    if count is None or count >= wanted:
        return None
    return (
        f"Only {count} source images are held out, fewer than the {wanted} that calibration and estimates of accuracy "
        "need: take these as rough. Give more labelled source images."
    )


CHECKS: tuple[Callable[[Signs], str | None], ...] = (
    collapsed,
    source_forgotten,
    rounds_at_chance,
    discriminator_at_fault,
    estimate_low_or_contradictory,
    far_from_source,
    shares_moved,
    without_pseudo_label,
    nothing_gained,
    few_held_out,
)
"""Gravest first."""


def _missing(signs: Signs, amounts: NDArray[np.float64] | NDArray[np.int64]) -> list[int]:
    """Classes of amount zero that should have images: by the source's shares, or all where these are not known."""
    empty = np.flatnonzero(amounts == 0)
    if signs.source_shares is None:
        return [int(k) for k in empty]
    return [int(k) for k in empty if signs.source_shares[k] * signs.targets >= EXPECTED]


def _gentler(signs: Signs) -> str:
    return "--alignment 0 --separation 0" if signs.method == "biwaa" else "a lower --learning-rate"


def _another(signs: Signs) -> str:
    return "--method mcc" if signs.method == "self_training" else "--method self_training"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
