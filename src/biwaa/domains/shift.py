"""Label shift for experiments: a domain subsampled to a chosen distribution over its classes.

- long-tail:R      the share of class k of K is in proportion to R^(-k / (K - 1)): the last class is R times rarer
                   (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, section 5.1)
- reversed:R       the same from the last class to the first
- dirichlet:A[:S]  shares drawn from a symmetric Dirichlet distribution of concentration A with seed S (0 unless given)

The rule and its seed select the images, never the training's seed: all methods and seeds get the same images.
"""

import re

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.domain import Domain
from biwaa.errors import BiwaaError

FORMS = "none, long-tail:RATIO, reversed:RATIO or dirichlet:ALPHA[:SEED]"


def shifted_rows(domain: Domain, rule: str) -> NDArray[np.int64]:
    """Rows of `domain` that `rule` selects; with "none" all of them.

    Raises:
        BiwaaError: no such rule, or a domain without labels.
    """
    if rule == "none":
        return np.arange(len(domain.images), dtype=np.int64)
    classes = len(domain.classes or ())
    shares, seed = class_shares(rule, classes)
    if domain.labels is None:
        raise BiwaaError(f"{domain.spec} has no labels, so its classes cannot be subsampled to {rule}.")
    return subsample(domain.labels, shares, seed)


def class_shares(rule: str, classes: int) -> tuple[NDArray[np.float64], int]:
    """The (K,) shares of `rule`, which sum to 1, and the seed for selecting images.

    Raises:
        BiwaaError: no such rule, or a value out of range.
    """
    number = r"(\d+(?:\.\d+)?)"
    tail = re.fullmatch(rf"(long-tail|reversed):{number}", rule)
    if tail and float(tail[2]) >= 1:
        shares = float(tail[2]) ** (-np.arange(classes) / max(classes - 1, 1))
        shares = shares[::-1] if tail[1] == "reversed" else shares
        return shares / shares.sum(), 0
    drawn = re.fullmatch(rf"dirichlet:{number}(?::(\d+))?", rule)
    if drawn and float(drawn[1]) > 0:
        seed = int(drawn[2] or 0)
        return np.random.default_rng(seed).dirichlet(np.full(classes, float(drawn[1]))), seed
    raise BiwaaError(f"no label shift {rule!r}: it is {FORMS}, RATIO at least 1 and ALPHA above 0.")


def subsample(labels: NDArray[np.int64], shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Rows of the largest subset whose classes have these shares; every class keeps at least one image.

    Args:
        labels: (N,) indices of classes.
        shares: (K,) that sum to 1.
        seed: for selecting images within a class.
    """
    counts = np.bincount(labels, minlength=len(shares))
    # A class without an image sets no bound.
    total = min(count / share for count, share in zip(counts, shares, strict=True) if share > 0 and count > 0)
    wanted = np.maximum(np.floor(total * shares + 1e-9), 1).astype(int)
    rng = np.random.default_rng(seed)
    selected = [rng.permutation(np.flatnonzero(labels == k))[:count] for k, count in enumerate(wanted)]
    return np.sort(np.concatenate(selected))
