"""How much a source image counts for the target: the two steps of Deep Embedded Validation, apart from each other.

You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation", ICML 2019.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SEED = 0  # Of the choice of held-out rows
FOLD = 5  # One row in five is held out to choose the strength of regularisation, as the paper's authors do
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of regularisation, from strong to weak, on standardised features."""


def density_ratio(source: NDArray[Any], target: NDArray[Any], images: NDArray[Any]) -> Floats:
    """w(x) = n_s / n_t * P(target | x) / P(source | x), from a logistic regression that tells the domains apart.

    The paper's authors fit a small network with their choice among decays; here it is linear in the standardised
    features, and the regularisation is chosen by the log loss on held-out rows, because it is probabilities that are
    divided. A domain of fewer than five rows cannot be told from another: every weight is 1 then.

    Args:
        source: (T, D) features of source images that were trained on.
        target: (M, D) features of target images.
        images: (S, D) features of the source images to weigh.

    Returns:
        (S,) weights above 0.
    """
    from sklearn.linear_model import LogisticRegression  # takes long to import
    from sklearn.metrics import log_loss
    from sklearn.preprocessing import StandardScaler

    if min(len(source), len(target)) < FOLD:
        return np.ones(len(images))
    rng = np.random.default_rng(SEED)
    # In each domain by itself, so that the shares of the domains are the same in both parts.
    held_out = np.concatenate([rng.permutation(len(part)) % FOLD == 0 for part in (source, target)])
    domain = np.repeat([0, 1], [len(source), len(target)])
    every = np.concatenate([source, target]).astype(np.float64)
    scaler = StandardScaler().fit(every[~held_out])
    features = scaler.transform(every)
    best, log_odds = np.inf, np.zeros(len(images))
    classifier = LogisticRegression(warm_start=True, max_iter=1000)
    for strength in STRENGTHS:
        classifier.set_params(C=strength).fit(features[~held_out], domain[~held_out])
        loss = log_loss(domain[held_out], classifier.predict_proba(features[held_out]))
        if loss < best:
            best, log_odds = loss, classifier.decision_function(scaler.transform(images.astype(np.float64)))
    counts = np.bincount(domain[~held_out])
    # Far outside both domains the odds have no bound, but exp has one.
    weights: Floats = counts[0] / counts[1] * np.exp(np.clip(log_odds, -50, 50))
    return weights


def controlled_risk(losses: Floats, weights: Floats) -> float:
    """Weighted risk with the weights as control variate: mean(w l) + eta mean(w) - eta, eta = -Cov(w l, w) / Var(w).

    True weights have the mean 1; by how much these miss it is taken out in proportion to how the weighted losses go
    with the weights. The result can leave the range of the losses. Equal weights leave nothing to go with: eta is 0.

    Args:
        losses: (S,) of source images.
        weights: (S,) of the same images.
    """
    weighted = weights * losses
    variance = weights.var(ddof=1) if len(weights) > 1 else 0.0
    if variance == 0:
        return float(weighted.mean())
    eta = -np.cov(weighted, weights)[0, 1] / variance
    return float(weighted.mean() + eta * weights.mean() - eta)
