"""What a candidate, source-only or a round, can be judged by without target labels, now or later."""

import warnings
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from biwaa.judging.metrics import neighbour_agreement

SAMPLE = 5000  # Images at most that are clustered, compared with each other, or told from the other domain's
SEED = 0  # Of the sample and of k-means: the same for every candidate of a pool


@dataclass(frozen=True, eq=False)
class Evidence:
    """What label-free scores may see of a candidate: its outputs, and the source's labels; no label of the target.

    On the CPU. The candidates of a pool predict the same images in the same order.
    """

    probabilities: Tensor  # (N, K), target images
    features: Tensor | None = None  # (M, D) behind the bottleneck, of the target images `rows`
    rows: Tensor | None = None  # (M,) which target images `features` belong to; None: all, in order
    source_probabilities: Tensor | None = None  # (S, K), held-out source images
    source_features: Tensor | None = None  # (S, D), held-out source images
    source_labels: Tensor | None = None  # (S,) classes of the held-out source images
    trained_features: Tensor | None = None  # (T, D), source images that were trained on
    mixed: Tensor | None = None
    """(P, K) predictions of MIX times the first image of each pair, and 1 - MIX times the second."""
    pairs: Tensor | None = None  # (P, 2) target images of the mixed pairs, the dominant one first
    trained_labels: Tensor | None = None  # (T,) classes of the source images that were trained on
    second_opinion: Tensor | None = None  # (M,) classes of the images `rows` by another kind of classifier
    expected: Tensor | None = None  # () accuracy of source-only that its loss of confidence leaves
    of_halves: Tensor | None = None  # () agreement of two solutions that share no source row
    by_backbone: Tensor | None = None  # (B, M) classes of the images `rows` by each of several backbones alone

    @property
    def predicted(self) -> Tensor:
        """(M,) predicted classes of the images that `features` belong to."""
        predicted = self.probabilities.argmax(dim=1)
        return predicted if self.rows is None else predicted[self.rows]

    @property
    def held_out(self) -> tuple[Tensor, NDArray[np.int64]] | None:
        """(S, K) predictions of the held-out source and its (S,) labels, where there are any."""
        if self.source_probabilities is None or self.source_labels is None:
            return None
        return self.source_probabilities, self.source_labels.numpy()

    @cached_property
    def neighbour_agreement(self) -> float | None:
        """`metrics.neighbour_agreement`, computed once however often a run is described; None without features."""
        if self.features is None or len(self.features) < 2:
            return None
        return neighbour_agreement(self.features, self.predicted)

    @cached_property
    def grouping(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(M,) predicted classes and (M,) k-means clusters, or of a sample of `SAMPLE`; computed once for both readers.

        K clusters, from k-means++ and not from the predictions, with which they would agree too much. A candidate's
        own features are clustered, at unit length: by direction, which is nearly what a linear classifier uses.
        Musgrave et al.'s code offers this and features as they are.
        """
        from sklearn.cluster import KMeans  # takes long to import
        from sklearn.exceptions import ConvergenceWarning

        (features,) = given(self.features)
        classes = sample(self.predicted)
        units = F.normalize(sample(features).double(), dim=1)
        k_means = KMeans(min(self.probabilities.shape[1], len(units)), n_init=3, random_state=SEED)
        with warnings.catch_warnings():
            # Features that fell together have fewer distinct points than clusters; the scores say so well enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return classes.numpy(), k_means.fit_predict(units.numpy())


def evidence_of(tensors: dict[str, Tensor]) -> Evidence:
    """Take the evidence, by the names of its fields, out of tensors that hold other things as well."""
    return Evidence(**{field.name: tensors.pop(field.name, None) for field in fields(Evidence)})  # type: ignore[arg-type]


def sample_rows(count: int, most: int) -> Tensor:
    """(M,) rows of at most `most` of `count` images, in order, the same every time."""
    return torch.from_numpy(np.sort(np.random.default_rng(SEED).permutation(count)[:most]))


def sample(rows: Tensor) -> Tensor:
    """At most `SAMPLE` of the rows, in order: the same of any tensor of that length."""
    return rows[sample_rows(len(rows), SAMPLE)]


def given(*parts: Tensor | None) -> list[Tensor]:
    """The parts, of which none is missing."""
    found = [part for part in parts if part is not None]
    assert len(found) == len(parts)  # `scores` asks only where everything is there
    return found
