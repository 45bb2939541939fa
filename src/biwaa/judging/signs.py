"""Facts about a run that need no target label: what its warnings are found in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biwaa.judging.label_shift import Shares
from biwaa.solvers.several import Standing

EXPECTED = 5.0
"""Images a class must be expected to have before its absence counts: by chance e^-5 of such classes have none."""


@dataclass(frozen=True)
class Signs:
    """Facts about a run; None where unknown, and shares are (K,) and sum to 1."""

    classes: tuple[str, ...]
    targets: int  # Target images
    selected: str  # The stage whose model was selected; facts are about it unless they say otherwise
    predicted_shares: Shares | None = None  # Of the classes that it predicts on the target
    baseline_shares: Shares | None = None  # The same of source-only
    source_shares: Shares | None = None  # Of the source's labels
    estimated_shares: Shares | None = None  # Estimated label distribution of the target (`label_shift`)
    round_agreement: float | None = None  # Share of target images on which the last two rounds agree
    round_chance: float | None = None
    """What it would be if they had nothing in common (`label_shift.chance_agreement`)."""
    discriminator_first: float | None = None
    """Mean of the discriminator's accuracy over the first tenth of the steps, in which it learns."""
    discriminator_last: float | None = None  # The same over the last tenth
    baseline_losses: tuple[float, float] | None = None
    """Source-only's mean cross-entropy over the last but one fifth of its steps, and over the last."""
    source_accuracy: float | None = None  # Accuracy on held-out source images
    baseline_source_accuracy: float | None = None  # Source-only's on the same
    learned: float | None = None
    """Accuracy on held-out source images of what learned from the source alone: source-only, else the model."""
    held_out_source: int | None = None  # How many held-out source images there are
    solved: bool = False  # Whether the head was solved for, so that its estimate rests on all of the source
    pseudo_labels: NDArray[np.int64] | None = None
    """(K,) target images of each pseudo-label that the stage learned from; None where it had none."""
    absent: NDArray[np.bool_] | None = None
    """(K,) whether the target seems to have no image of a class, so that it was left out; None where none was."""
    unknown_share: float | None = None  # Of the target images, labelled as of no class; None where nobody asked for it
    far_share: float | None = None  # As of the function of this name
    likeness: float | None = None  # To the source's classes, of groups of target images (`likeness`)
    places: tuple[str, ...] = ()  # Several sources
    standing: Standing | None = None  # What each of them is worth
    estimates: Mapping[str, float] | None = None
    """Label-free estimates of target accuracy by name (`estimate`), in [0, 1]."""


def of_known(signs: Signs) -> Signs:
    """Facts of a run whose last class is that of unknown images: of its other classes, and images that are of these."""
    assert signs.predicted_shares is not None  # a run predicts
    unknown = float(signs.predicted_shares[-1])
    images = round(signs.targets * (1 - unknown))

    def known(amounts: Any) -> Any:
        return None if amounts is None else amounts[:-1]

    def shares(every: Shares | None) -> Shares | None:
        return None if every is None or not every[:-1].sum() else every[:-1] / every[:-1].sum()

    return replace(
        signs, classes=signs.classes[:-1], targets=images, unknown_share=unknown,
        source_shares=known(signs.source_shares), pseudo_labels=known(signs.pseudo_labels), absent=known(signs.absent),
        # A handful of images, or none, says nothing of how varied predictions are.
        predicted_shares=shares(signs.predicted_shares) if images >= EXPECTED else None,
        baseline_shares=shares(signs.baseline_shares),
        # Label shift is estimated for images of known classes alone.
        estimated_shares=None if images < signs.targets else shares(signs.estimated_shares),
    )  # fmt: skip


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
