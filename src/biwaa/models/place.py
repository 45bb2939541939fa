"""Whether images look like those of the place that a model was adapted to.

The target's statistics are part of a model, so images of another place are misclassified in silence. Compared is the
mean of features around their predicted class's mean, which another mixture of classes does not move.

N target images, n new ones, D features, K classes.
"""

from dataclasses import dataclass, field
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 0.1
"""Shift of the mean, in shares of the spread within classes, that is let pass. Measured on pairs of real domains
(docs/predict.md): other places move more where the accuracy suffers, new images of the same place 0.06 at most."""
QUANTILE = 0.99
"""Of single images' distances, which bounds what chance does to a mean."""
FARTHEST = 0.5
"""Shift in shares of the limit, above which nothing was measured: real places moved by 0.47 of it at most."""
FEWEST = 50
"""Target images below which nothing is judged."""


@dataclass(frozen=True, eq=False)
class Place:
    """A target's features by predicted class."""

    means: Tensor  # (K, D)
    counts: Tensor  # (K,) images of each
    spread: Tensor  # () mean squared distance of an image from its class's mean
    limit: Tensor  # () squared distance that one image in a hundred exceeds, in shares of the spread

    @classmethod
    def of(cls, features: Tensor, predicted: Tensor, classes: int) -> Self | None:
        """The statistics of a target; None where it has too few images.

        Distances are measured from the other half's means, as those of new images will be.

        Args:
            features: (N, D) behind the bottleneck.
            predicted: (N,) classes.
            classes: K.
        """
        count, width = features.shape
        if count < FEWEST:
            return None
        half = torch.arange(count) % 2 == 0
        distances = []
        for near, far in ((half, ~half), (~half, half)):
            means, counts = _class_means(features[near], predicted[near], classes)
            known = counts[predicted[far]] > 0
            rows, labels = features[far][known], predicted[far][known]
            distances.append((rows - means[labels]).square().sum(dim=1) / (1 + 1 / counts[labels]))
        every = torch.cat(distances)
        if not len(every) or not every.mean() > 0 or not every.isfinite().all():
            return None
        # The bottleneck is fitted to the target, so new images lie farther off: the more so, the fewer there are.
        limit = torch.quantile(every, QUANTILE) / every.mean() * (1 + width / count)
        means, counts = _class_means(features, predicted, classes)
        return cls(means, counts, every.mean(), limit)

    def check(self, classes: int) -> None:
        """Make sure that the parts fit together and to a model of so many classes.

        Raises:
            ValueError: they do not.
        """
        numbers = (self.spread, self.limit)
        shapes = self.means.ndim == 2 and len(self.means) == classes and self.counts.shape == (classes,)
        if not shapes or any(part.shape != () or not part > 0 for part in numbers):
            raise ValueError("its statistics of the target do not fit its classes")


def _class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(K, D) means and (K,) counts; a class without a row has a mean of zeros."""
    members = F.one_hot(labels, classes).to(features)
    counts = members.sum(dim=0)
    return members.T @ features / counts.clamp(min=1)[:, None], counts


@dataclass(eq=False)
class Look:
    """Sums over new images, batch after batch."""

    place: Place | None
    total: Tensor | None = field(default=None, init=False)  # (D,) sum of distances from the classes' means
    seen: Tensor | None = field(default=None, init=False)  # (K,) images by predicted class

    def add(self, features: Tensor, predicted: Tensor) -> None:
        """Take a batch.

        Args:
            features: (B, D) behind the bottleneck.
            predicted: (B,) classes.
        """
        if self.place is None or features.shape[1] != self.place.means.shape[1]:
            return
        known = self.place.counts[predicted] > 0
        away = features[known].float() - self.place.means[predicted[known]]
        # No single image moves the mean by more than the farthest hundredth of the target's own.
        farthest = self.place.limit * self.place.spread
        away = away * (farthest / away.square().sum(dim=1).clamp(min=1e-12)).sqrt().clamp(max=1)[:, None]
        counted = torch.bincount(predicted[known], minlength=len(self.place.counts)).float()
        self.total = away.sum(dim=0) + (0 if self.total is None else self.total)
        self.seen = counted + (0 if self.seen is None else self.seen)

    @property
    def shift(self) -> tuple[float, float] | None:
        """How far the images' mean around the classes lies from the target's, and what is let pass.

        In shares of the spread; None where there is nothing to compare.
        """
        if self.place is None or self.total is None or self.seen is None or not self.seen.sum():
            return None
        count = self.seen.sum()
        shift = (self.total / count).square().sum() / self.place.spread
        # By chance: of these images' mean, and of the class means that they are compared with.
        chance = 1 / count + ((self.seen / count).square() / self.place.counts.clamp(min=1)).sum()
        return float(shift), float(FLOOR + self.place.limit * chance)

    @property
    def unlike(self) -> bool | None:
        """Whether the images look like another place's; None where there is nothing to compare."""
        return None if self.shift is None else self.shift[0] > self.shift[1]

    @property
    def far(self) -> bool:
        """Whether the images moved farther than any place on which estimates of the accuracy were measured."""
        return self.place is not None and self.shift is not None and self.shift[0] > FARTHEST * float(self.place.limit)
