"""How far a confidence can be believed, and estimates of the target's accuracy from it; no target label is used.

- temperature scaling, to what is estimated of the target or on held-out source images
- estimates of accuracy are shares in [0, 1] that rest on different assumptions: where they disagree, none is to be
  trusted

S held-out source images, M target images, K classes, D features. Everything is computed in float64.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from biwaa.functional import entropy, log_probabilities, with_temperature
from biwaa.judging.evidence import Evidence, sample
from biwaa.judging.metrics import agreement, mean_confidence
from biwaa.result import Calibration, CalibrationError

TEMPERATURES = (0.1, 100.0)
"""Where temperatures are looked for. Without a wrong image the likelihood alone would sharpen without end."""


def expected_calibration_error(probabilities: Tensor, labels: NDArray[np.int64], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over bins of equal width ((m - 1) / bins, m / bins], weighted by size.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Args:
        probabilities: (N, K), N at least 1.
        labels: (N,) true classes.
        bins: of [0, 1].

    Returns:
        In [0, 1].
    """
    confidence, right = _confidence_and_right(probabilities, labels)
    borders = torch.arange(1, bins, dtype=torch.float64) / bins
    member = F.one_hot(torch.bucketize(confidence, borders), bins).to(torch.float64)  # (N, bins)
    gaps = member.T @ (right.to(torch.float64) - confidence)  # a bin's size times its gap
    return float(gaps.abs().sum()) / len(confidence)


def held_out_temperature(evidence: Evidence) -> float:
    """Fitted on the held-out source; 1 where there is none.

    Where all S images are right, the likelihood would have every confidence at 1. There the chance of an error counts
    as 1 / (S + 2), the rule of succession, as in Platt's targets ("Probabilistic Outputs for Support Vector Machines",
    1999).
    """
    if not evidence.held_out:
        return 1.0
    _, right = _confidence_and_right(*evidence.held_out)
    return fit_temperature(*evidence.held_out, doubt=1 / (len(right) + 2) if right.all() else 0.0)


def matched_temperature(probabilities: Tensor, accuracy: float) -> float:
    """The temperature at which the mean confidence on the target is the accuracy that was estimated there.

    One fitted on the source says how sure a model may be of the source, and a target differs. A model that adapts to
    the target can be sure of all of its mistakes there. However good the estimate is, confidences stay below 1: of M
    images and one more, one may be wrong (the rule of succession).

    Args:
        probabilities: (M, K) of target images; 5,000 of more are enough.
        accuracy: in [0, 1].

    Returns:
        Within `TEMPERATURES`; the nearer end where no temperature gives that mean.
    """
    from scipy.optimize import brentq  # takes long to import

    logs = log_probabilities(sample(probabilities))
    wanted = min(accuracy, 1 - 1 / (len(probabilities) + 2))

    def excess(log_temperature: float) -> float:
        return mean_confidence((logs / math.exp(log_temperature)).softmax(dim=1)) - wanted

    sharpest, softest = map(math.log, TEMPERATURES)
    if excess(sharpest) <= 0:
        return TEMPERATURES[0]
    return TEMPERATURES[1] if excess(softest) >= 0 else math.exp(brentq(excess, sharpest, softest, xtol=1e-4))


def calibration(
    evidence: Evidence, temperature: float, target_labels: NDArray[np.int64] | None, matched: bool = False
) -> Calibration:
    """Calibration errors before and after the temperature, on the held-out source and, with labels, on the target.

    Labels below 0 are missing; images without a label are passed over. `matched` says where the temperature is from.
    """

    def errors(probabilities: Tensor, labels: NDArray[np.int64]) -> CalibrationError:
        probabilities, labels = probabilities[torch.from_numpy(labels >= 0)], labels[labels >= 0]
        tempered = with_temperature(probabilities, temperature)
        return CalibrationError(
            before=round(expected_calibration_error(probabilities, labels), 6),
            after=round(expected_calibration_error(tempered, labels), 6),
        )

    return Calibration(
        temperature=round(temperature, 6),
        matched_to_estimate=matched,
        held_out_source=errors(*evidence.held_out) if evidence.held_out else None,
        target=None if target_labels is None else errors(evidence.probabilities, target_labels),
    )


def fit_temperature(probabilities: Tensor, labels: NDArray[np.int64], doubt: float = 0.0) -> float:
    """The temperature with the least negative log-likelihood of softmax(log p / T).

    Guo et al., ICML 2017, section 4.2, on log-probabilities in place of logits: a prediction averages the softmax of
    several views, so no logits belong to it. The loss is convex in 1 / T, so a search over log T finds its minimum.

    Args:
        probabilities: (S, K) of held-out source images; with those trained on, the temperature comes out too low.
        labels: (S,) true classes.
        doubt: share of each image's likelihood that goes to its likeliest other class.

    Returns:
        Within TEMPERATURES; 1 where there is nothing to fit (no images, or no temperature is better).
    """
    from scipy.optimize import minimize_scalar  # takes long to import

    logs = log_probabilities(probabilities)
    truth = torch.from_numpy(labels)[:, None]
    if not len(logs):
        return 1.0
    other = logs.scatter(1, truth, -math.inf).argmax(dim=1, keepdim=True)

    def loss(log_temperature: float) -> float:
        scaled = (logs / math.exp(log_temperature)).log_softmax(dim=1)
        likely = (1 - doubt) * scaled.gather(1, truth) + doubt * scaled.gather(1, other)
        return -float(likely.sum()) / len(logs)

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return math.exp(found.x) if loss(found.x) < loss(0.0) else 1.0


def difference_of_confidences(source: Tensor, labels: NDArray[np.int64], target: Tensor) -> float:
    """Accuracy on the source less what confidence falls by from source to target, clipped to [0, 1].

    Guillory et al., "Predicting with Confidence on Unseen Distributions", ICCV 2021.

    Args:
        source: (S, K) predictions of held-out source images.
        labels: (S,) their true classes.
        target: (M, K) predictions.
    """
    confidence, right = _confidence_and_right(source, labels)
    estimate = float(right.double().mean()) - (float(confidence.mean()) - mean_confidence(target.double()))
    return min(max(estimate, 0.0), 1.0)


def average_thresholded_confidence(
    source: Tensor, labels: NDArray[np.int64], target: Tensor, score: Literal["confidence", "entropy"] = "confidence"
) -> float:
    """Share of target images whose score reaches the threshold below which as many source images lie as are wrong.

    Garg et al., "Leveraging Unlabeled Data to Predict Out-of-Distribution Performance", ICLR 2022. The highest such
    threshold is taken; where scores are equal, fewer images lie below it than are wrong.

    Args:
        source: (S, K) predictions of held-out source images.
        labels: (S,) their true classes.
        target: (M, K) predictions.
        score: the largest probability, or the negative entropy.
    """

    def scores(probabilities: Tensor) -> Tensor:
        precise = probabilities.detach().cpu().double()
        return precise.amax(dim=1) if score == "confidence" else -entropy(precise)

    _, right = _confidence_and_right(source, labels)
    wrong = int((~right).sum())
    if wrong == len(right):
        return 0.0
    threshold = scores(source).sort().values[wrong]
    return float((scores(target) >= threshold).double().mean())


def mean_agreement(predictions: Sequence[Tensor]) -> float:
    """Share of images on which two models trained apart agree, averaged over all pairs.

    The accuracy, if each model is calibrated on the classes it predicts: Jiang et al., "Assessing Generalization of SGD
    via Disagreement", ICLR 2022. Rounds that saw each other's predictions agree too much.

    Args:
        predictions: (M, K) of each model, of the same images.

    Raises:
        ValueError: fewer than two models.
    """
    if len(predictions) < 2:
        raise ValueError("agreement takes at least two predictions")
    pairs = [agreement(a, b) for a, b in itertools.combinations(predictions, 2)]
    return sum(pairs) / len(pairs)


def _confidence_and_right(probabilities: Tensor, labels: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """(N,) probability of the predicted class, and whether it is the true one."""
    confidence, predicted = probabilities.detach().cpu().double().max(dim=1)
    return confidence, predicted == torch.from_numpy(labels)
