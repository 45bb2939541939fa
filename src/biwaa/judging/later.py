"""A finished model on images that came after the run: the run's readings again, and which classes' shares moved.

N target images of the run, n new ones, D features, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biwaa.functional import with_temperature
from biwaa.judging.estimate import mean_of, pooled
from biwaa.judging.evidence import Evidence
from biwaa.judging.metrics import agreement, agreement_with_neighbours, mean_confidence
from biwaa.judging.second_opinion import classes_by_confusion, expected_accuracy
from biwaa.result import Estimate

COMBINED = ("difference_of_confidences_of_source_only", "agreement_with_class_confusion", "agreement_of_neighbours")
"""Readings that are pooled into the estimate."""
ALPHA = 0.05
"""Chance that any class of an unchanged place is said to have moved."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What one model says of the new images, or of a sample of them; on the CPU."""

    probabilities: Tensor  # (n, K), before the temperature
    features: Tensor  # (n, D) behind the bottleneck


def later_estimates(
    new: Outputs,
    temperature: float,
    selected: Evidence | None = None,
    baseline: Evidence | None = None,
    of_baseline: Outputs | None = None,
) -> dict[str, float]:
    """Estimates of the accuracy on new images by name, as `estimate.estimates` has them of the target.

    The target's images stand beside the new ones, which may be few or of few classes: neighbours are looked for among
    them, and class confusion is made small over both.

    Args:
        new: the model's outputs.
        temperature: of the model.
        selected: the model's evidence of the run.
        baseline: source-only's evidence of the run.
        of_baseline: source-only's outputs of the same new images.
    """
    predicted = new.probabilities.argmax(dim=1)
    found = {"confidence": mean_confidence(with_temperature(new.probabilities.double(), temperature))}
    if selected is not None and selected.features is not None:
        found["agreement_of_neighbours"] = agreement_with_neighbours(
            new.features, predicted, selected.features, selected.predicted
        )
    if baseline is None or of_baseline is None:
        return found
    found["agreement_with_source_only"] = agreement(new.probabilities, of_baseline.probabilities)
    if baseline.held_out:
        held_out, labels = baseline.held_out
        left = expected_accuracy(held_out, labels, of_baseline.probabilities)
        found["difference_of_confidences_of_source_only"] = left
    if (other := classes_by_confusion(baseline, of_baseline.features)) is not None:
        found["agreement_with_class_confusion"] = float((other == predicted).double().mean())
    return found


def combine(found: dict[str, float], images: int, solved: bool) -> Estimate:
    """`COMBINED` pooled with an interval; of a network that was trained whole agreement among neighbours, without."""
    return pooled(found, COMBINED, images) if solved else mean_of(found, COMBINED[-1:])


def moved_classes(before: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(K,) classes whose share of the predictions is another than that of the run, beyond what chance does.

    Fisher's exact test of each class, at `ALPHA` over all of them (Bonferroni).

    Args:
        before: (K,) target images by predicted class.
        now: (K,) new images by predicted class.
    """
    from scipy.stats import fisher_exact  # takes long to import

    every, new = int(before.sum()), int(now.sum())
    tables = ([[a, every - a], [b, new - b]] for a, b in zip(before.tolist(), now.tolist(), strict=True))
    level = ALPHA / len(before)
    return np.array([fisher_exact(table).pvalue < level for table in tables], dtype=np.bool_)
