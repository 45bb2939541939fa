"""What is known of a target before anything is adapted to it: a second opinion, and what confidence leaves.

Both stand on the features of a frozen backbone, and know nothing of the candidates that they help to judge.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import with_temperature
from biwaa.judging import calibration
from biwaa.solvers.logistic import cross_validate, fit_confusion, fit_logistic
from biwaa.solvers.metric import balanced_weights, one_hot, principal_axes


class SecondOpinion(NamedTuple):
    """Of M target images."""

    predicted: Tensor
    """(M,) classes by minimum class confusion, which follows neither neighbours nor prototypes."""
    expected: float
    """Accuracy of source-only: that of cross-validation on the source less what its confidence falls by."""


def second_opinion(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> SecondOpinion:
    """Fit both.

    Args:
        source: (Ns, F) standardised.
        labels: (Ns,), of two classes or more.
        target: (M, F) standardised, two rows or more.
        classes: K.
    """
    axes = principal_axes(source, target) * source.shape[1] ** -0.5
    here, there = source @ axes, target @ axes
    weights = balanced_weights(labels, classes)
    found = cross_validate(here, labels, classes)
    head = fit_logistic(here, one_hot(labels, classes), weights, found.strength)
    truth = labels.cpu().numpy()
    temperature = calibration.fit_temperature(found.left_out, truth)
    of_source, of_target = (
        with_temperature(part, temperature) for part in (found.left_out, F.linear(there, *head).softmax(dim=1))
    )
    confusion = fit_confusion(here, labels, weights, there, classes)
    return SecondOpinion(
        F.linear(there, *confusion).argmax(dim=1).cpu(),
        calibration.difference_of_confidences(of_source, truth, of_target),
    )
