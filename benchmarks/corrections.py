"""Corrections that biwaa does not make, since they gained nothing (docs/robust.md); `trust.py` tries them.

- predictions corrected for another label distribution, estimated by expectation maximisation or known
- a temperature fitted on held-out source images that weigh by how much they are like the target
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from biwaa.functional import log_probabilities
from biwaa.judging.calibration import TEMPERATURES
from biwaa.judging.label_shift import Shares

MOST_STEPS, STILL = 1000, 1e-8
"""Steps of expectation maximisation, and the total variation between two steps below which it ends."""


def em_prior(probabilities: Tensor, source_prior: Shares) -> Shares:
    """The label distribution under which the target's probabilities are likeliest, by expectation maximisation.

    Saerens et al., "Adjusting the Outputs of a Classifier to New a Priori Probabilities", Neural Computation 2002:
    posteriors are corrected by the current shares, their mean gives the next.

    Args:
        probabilities: (M, K) of the target, M at least 1, calibrated.
        source_prior: (K,) the shares that the classifier was trained with: even ones if it saw balanced batches.

    Returns:
        (K,).
    """
    precise = probabilities.detach().cpu().double()
    shares = np.asarray(source_prior, dtype=np.float64)
    for _ in range(MOST_STEPS):
        new = prior_corrected(precise, source_prior, shares).mean(dim=0).numpy()
        moved = np.abs(new - shares).sum() / 2
        shares = new / new.sum()
        if moved < STILL:
            break
    return shares


def prior_corrected(probabilities: Tensor, source_prior: Shares, target_prior: Shares) -> Tensor:
    """Posteriors under another label distribution: p times target_prior / source_prior, made to sum to 1.

    Args:
        probabilities: (N, K).
        source_prior: (K,) that the classifier was trained with.
        target_prior: (K,) to predict under.

    Returns:
        (N, K) in the dtype of `probabilities`, on the CPU. A class of no share in either prior gets none; an image
        with probability for such classes alone stays as it is.
    """
    known = source_prior > 0
    ratio = np.where(known, target_prior / np.where(known, source_prior, 1.0), 0.0)
    precise = probabilities.detach().cpu().double()
    weighted = precise * torch.from_numpy(ratio)
    total = weighted.sum(dim=1, keepdim=True)
    corrected = torch.where(total > 0, weighted / torch.where(total > 0, total, 1.0), precise)
    return corrected.to(probabilities.dtype)


def weighted_temperature(probabilities: Tensor, labels: NDArray[np.int64], weights: Tensor) -> float:
    """As `calibration.fit_temperature`, with the least weighted negative log-likelihood.

    Args:
        probabilities: (S, K) of held-out source images.
        labels: (S,) true classes.
        weights: (S,) none negative, for instance `importance.density_ratio`.

    Returns:
        Within TEMPERATURES; 1 where there is nothing to fit (no weight, or no temperature is better).
    """
    logs, truth, weighted = log_probabilities(probabilities), torch.from_numpy(labels)[:, None], weights.double()
    total = float(weighted.sum())
    if not total > 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = (logs / math.exp(log_temperature)).log_softmax(dim=1)
        return float(-(weighted * scaled.gather(1, truth)[:, 0]).sum()) / total

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return math.exp(found.x) if loss(found.x) < loss(0.0) else 1.0
