"""Which images make up each batch.

- endless streams of index arrays, drawn from one seed: skipping n batches is replaying n cheap draws
- class-balanced: classes are visited in shuffled order, one image each, again and again, until the batch is
  full; batches run across the visits' borders; an epoch is min over classes floor(n_k K / B) batches
- nothing here knows where labels come from: of the target it is given predictions
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def uniform_batches(count: int, batch_size: int, seed: int) -> Iterator[Indices]:
    """Uniformly random without replacement; what is left of an epoch after its last whole batch is not used.

    Args:
        count: images to draw from, at least `batch_size`.
        batch_size: indices a batch.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def balanced_batches(labels: Indices, batch_size: int, seed: int, drop_small: bool) -> Iterator[Indices]:
    """Every class equally often, whatever its size.

    Args:
        labels: (N,) the class of each image; classes without images are not visited.
        batch_size: indices a batch.
        seed: of the draws.
        drop_small: leave out classes with floor(n_k K / B) < 1 (predicted classes of the target). Otherwise
            such a class, too small for one epoch, repeats images (the source, none of whose classes may go).
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if drop_small:
        large = [images for images in members if len(images) * len(members) // batch_size >= 1]
        members = large or members
    epoch = max(1, min(len(images) * len(members) // batch_size for images in members))
    while True:
        yield from _balanced_epoch(members, batch_size, epoch, rng)


def _balanced_epoch(
    members: list[Indices], batch_size: int, batches: int, rng: np.random.Generator
) -> Iterator[Indices]:
    total = batches * batch_size
    visits = -(-total // len(members))
    shuffled = [rng.permutation(images) for images in members]
    picks = np.stack([np.resize(images, visits) for images in shuffled])  # (classes, visits)
    order = np.concatenate([visit[rng.permutation(len(members))] for visit in picks.T])
    yield from order[:total].reshape(batches, batch_size)
