"""MixVal: whether a candidate gives mixed pairs of target images the class of the image that dominates.

Hu et al., "Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation", NeurIPS 2023.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from biwaa.judging.evidence import Evidence, given

MIX = 0.55  # Share of the dominant image in MixVal's mixed pairs, the paper's value


def mixval(pool: Sequence[Evidence]) -> list[float]:
    """Mean of a candidate's ranks by intra- and inter-cluster consistency: 1 is the worst, the pool's size the best.

    MixVal: Hu et al., "Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation", NeurIPS 2023.
    Reads probabilities, mixed and pairs. Ties share their mean rank. A candidate without pairs of a kind, such as one
    that predicts a single class, ranks last in that kind, where the authors' code divides by zero.
    """
    from scipy.stats import rankdata  # takes long to import

    consistency = np.array([interpolation_consistency(evidence) for evidence in pool])  # (C, 2)
    ranks = rankdata(np.nan_to_num(consistency, nan=-1.0), axis=0)
    values: list[float] = ranks.mean(axis=1).tolist()
    return values


def interpolation_consistency(evidence: Evidence) -> tuple[float, float]:
    """MixVal's ICE: the share of mixed pairs that are given the class of their dominant image, for each kind of pairs.

    Intra-cluster pairs are those of which the candidate itself gives both images the same class.

    Returns:
        Over intra- and over inter-cluster pairs, each in [0, 1]; NaN without such pairs.
    """
    mixed, pairs = given(evidence.mixed, evidence.pairs)
    first, second = evidence.probabilities.argmax(dim=1)[pairs].unbind(dim=1)
    right = (mixed.argmax(dim=1) == first).double()
    return float(right[first == second].mean()), float(right[first != second].mean())


def mixing_pairs(probabilities: Tensor, count: int, seed: int) -> Tensor:
    """Draw pairs of target images for MixVal: half within a predicted class, half across two.

    Every image comes first as often as any other, to within one, among those that have a partner. Where one kind does
    not exist, all pairs are of the other.

    Args:
        probabilities: (N, K) of the candidate that is to be probed.
        count: of pairs.
        seed: of the draw.

    Returns:
        (P, 2) rows, the dominant image first; P is `count`, or 0 for a target of one image.
    """
    generator = torch.Generator().manual_seed(seed)
    predicted = probabilities.argmax(dim=1)
    order = predicted.argsort(stable=True)  # class after class: a step along it stays in a class or leaves it
    size = predicted.bincount(minlength=probabilities.shape[1])
    begin = (size.cumsum(0) - size)[predicted[order]]  # (N,) where the class of each place begins
    size = size[predicted[order]]  # (N,) and how many it has
    places = torch.arange(len(predicted))
    within, across = places[size > 1], places[size < len(predicted)]
    inside = count // 2 if len(within) and len(across) else count * bool(len(within))
    first, shift = _draw(within, size - 1, inside, generator)
    intra = torch.stack([first, begin[first] + (first - begin[first] + 1 + shift) % size[first]], dim=1)
    first, shift = _draw(across, len(predicted) - size, (count - inside) * bool(len(across)), generator)
    inter = torch.stack([first, (begin[first] + size[first] + shift) % len(predicted)], dim=1)
    return order[torch.cat([intra, inter])]


def _draw(places: Tensor, choices: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` of `places`, evenly, and for each a number below its `choices`."""
    times = -(-count // max(len(places), 1))
    shuffled = [places[torch.randperm(len(places), generator=generator)] for _ in range(times)]
    drawn = torch.cat([places[:0], *shuffled])[:count]
    part = torch.rand(count, generator=generator, dtype=torch.float64)
    return drawn, (part * choices[drawn]).long()
