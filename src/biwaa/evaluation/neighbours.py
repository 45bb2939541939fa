"""Which images are most alike: nearest neighbours by cosine, in bounded memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2**24
"""Similarities held at a time: 64 MB."""


def nearest_neighbours(features: Tensor, count: int) -> Tensor:
    """(N, D) features to (N, M) rows of the images most alike, itself left out; M is `count`, or N - 1 if that is less.

    In O(BLOCK + N (D + M)) memory.
    """
    size = len(features)
    directions = F.normalize(features.detach().float(), dim=1)
    rows = max(BLOCK // size, 1)
    found = []
    for start in range(0, size, rows):
        similarity = directions[start : start + rows] @ directions.T
        here = torch.arange(len(similarity), device=similarity.device)
        similarity[here, start + here] = -torch.inf
        found.append(similarity.topk(min(count, size - 1), dim=1).indices)
    return torch.cat(found)


def neighbours_of_a_class(features: Tensor, count: int, classes: int) -> Tensor:
    """`nearest_neighbours`, at most half of what a class of even size has, so that they can be of one class.

    Args:
        features: (N, D).
        count: neighbours an image; three where a class is too small for half of it to be as many.
        classes: K.

    Returns:
        (N, M).
    """
    return nearest_neighbours(features, max(3, min(count, len(features) // (2 * classes))))
