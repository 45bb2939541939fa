"""Smaller or label-shifted domains for experiments: the images that a rule selects.

- long-tail:R      the share of class k of K is in proportion to R^(-k / (K - 1)): the last class is R times rarer
                   (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, section 5.1)
- reversed:R       the same from the last class to the first
- dirichlet:A[:S]  shares drawn from a symmetric Dirichlet distribution of concentration A with seed S (0 unless given)
- per-class:N[:S]  N images of each class, all of a smaller one
- images:N[:S]     N images of the domain, all of a smaller one; a rare class may lose all of its images
- classes:A-B      images of the A-th to B-th class alone, counted from 1 in the classes' order

The rule and its seed select the images, never the training's seed: all methods and seeds get the same images.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.domain import Domain
from biwaa.errors import BiwaaError

FORMS = (
    "none, long-tail:RATIO, reversed:RATIO, dirichlet:ALPHA[:SEED], per-class:N[:SEED], images:N[:SEED] or classes:A-B"
)


def shifted_rows(domain: Domain, rule: str) -> NDArray[np.int64]:
    """Rows of `domain` that `rule` selects; with "none" all of them.

    Raises:
        BiwaaError: no such rule, or a domain without labels where the rule needs them.
    """
    check_rule(rule)
    size = _size(rule)
    if rule == "none":
        return np.arange(len(domain.images), dtype=np.int64)
    if size and size[0] == "images":
        return np.sort(np.random.default_rng(size[2]).permutation(len(domain.images))[: size[1]])
    if domain.labels is None:
        raise BiwaaError(f"{domain.spec} has no labels, so its classes cannot be subsampled to {rule}.")
    if missing := len(domain.unlabelled()):
        raise BiwaaError(
            f"{domain.spec} has no label for {missing} of its images, so its classes cannot be subsampled to {rule}."
        )
    classes = len(domain.classes or ())
    if part := class_range(rule):
        return np.flatnonzero((domain.labels >= part.start) & (domain.labels < part.stop))
    if size:
        return _selected(domain.labels, [size[1]] * classes, size[2])
    return subsample(domain.labels, *class_shares(rule, classes))


def check_rule(rule: str) -> None:
    """Make sure that there is such a rule.

    Raises:
        BiwaaError: no such rule, or a value out of range.
    """
    if rule != "none" and not _size(rule) and class_range(rule) is None:
        class_shares(rule, 2)


def class_range(rule: str) -> range | None:
    """The classes of a rule that selects some of them; None of another."""
    found = re.fullmatch(r"classes:([1-9]\d{0,5})-([1-9]\d{0,5})", rule)
    return range(int(found[1]) - 1, int(found[2])) if found and int(found[1]) <= int(found[2]) else None


def _size(rule: str) -> tuple[str, int, int] | None:
    """What is counted, how many stay, and the seed, of a rule that sets a size; None of another."""
    found = re.fullmatch(r"(per-class|images):([1-9]\d{0,9})(?::(\d{1,9}))?", rule)
    return (found[1], int(found[2]), int(found[3] or 0)) if found else None


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
    raise BiwaaError(f"no label shift {rule!r}: it is {FORMS}, RATIO and N at least 1 and ALPHA above 0.")


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
    return _selected(labels, np.maximum(np.floor(total * shares + 1e-9), 1).astype(int).tolist(), seed)


def _selected(labels: NDArray[np.int64], wanted: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Rows of at most so many images of each class."""
    rng = np.random.default_rng(seed)
    selected = [rng.permutation(np.flatnonzero(labels == k))[:count] for k, count in enumerate(wanted)]
    return np.sort(np.concatenate(selected))
