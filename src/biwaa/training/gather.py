"""Gathers what is kept of a finished stage so that it can be judged without target labels, now or later.

Features of a sample of the target, predictions of mixed pairs of its images, and the held-out part of the source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from biwaa.device import few_threads
from biwaa.images.batches import Inputs
from biwaa.inference.predict import Predicted, predict
from biwaa.judging.evidence import SAMPLE, SEED, Evidence, sample_rows
from biwaa.judging.mixval import MIX, mixing_pairs
from biwaa.judging.second_opinion import SecondOpinion, expected_accuracy, second_opinion
from biwaa.models.network import Network
from biwaa.training.data import Data

TRAINED = 1000  # Images of the trained source that stand for all of it; of features SAMPLE
PAIRS = 1000  # Mixed pairs: their accuracy has a standard error of at most 1.6 points.


def gather(
    network: Network,
    data: Data,
    target: Predicted,
    batch_size: int,
    fabric: Fabric,
    what: str,
    solved: bool,
    left_out: Tensor | None,
    widths: Sequence[int] = (),
) -> Evidence:
    """Evidence on a trained network.

    Args:
        network: on the device.
        data: what it was trained on, and the source's held-out part.
        target: what it predicts of the target.
        batch_size: images at a time.
        fabric: precision.
        what: for the progress display.
        solved: the network gets features, not images.
        left_out: (Ns, K) what source-only's solved head says of the source's rows, each by cross-validation. With it,
            other solvers are asked for a second opinion of the target.
        widths: features of each of several backbones.
    """
    rows = sample_rows(len(data.target), SAMPLE)
    pairs = mixing_pairs(target.probabilities, PAIRS, SEED)
    mixed = predict(network, _Mixed(data.target, pairs.numpy()), batch_size, fabric, f"{what} mixed pairs")
    source_rows = sample_rows(len(data.source), SAMPLE if solved else TRAINED).numpy()
    trained, held, other, expected = None, None, None, None
    if len(source_rows):
        trained = predict(network, data.source, batch_size, fabric, f"{what} the source", source_rows)
    if data.source_held_out:
        held = predict(network, data.source_held_out, batch_size, fabric, f"{what} the held-out source")
    if left_out is not None:
        other = _second_opinion(data, rows.numpy(), fabric, widths)
        expected = torch.tensor(expected_accuracy(left_out, data.source_labels, target.probabilities))
    return Evidence(
        probabilities=target.probabilities,
        features=target.features[rows],
        rows=rows,
        source_probabilities=held.probabilities if held else None,
        source_features=held.features if held else None,
        source_labels=None if data.source_held_out_labels is None else torch.from_numpy(data.source_held_out_labels),
        trained_features=trained.features if trained else None,
        trained_labels=torch.from_numpy(data.source_labels[source_rows]) if trained else None,
        mixed=mixed.probabilities,
        pairs=pairs,
        second_opinion=other.predicted if other else None,
        expected=expected,
        of_halves=torch.tensor(other.of_halves) if other else None,
        by_backbone=other.by_backbone if other else None,
    )


def _second_opinion(data: Data, rows: NDArray[np.int64], fabric: Fabric, widths: Sequence[int]) -> SecondOpinion | None:
    """On a sample of both domains; None where the source's has one class."""
    of_source = sample_rows(len(data.source), SAMPLE).numpy()
    labels = torch.from_numpy(data.source_labels[of_source]).to(fabric.device)
    if len(labels) < 2 or int(labels.min()) == int(labels.max()):
        return None
    source, target = data.source.batch(of_source).float(), data.target.batch(rows).float()
    with few_threads(len(source) + len(target)):
        return second_opinion(source, labels, target, data.classes, widths)


@dataclass(frozen=True)
class _Mixed:
    """Mixed pairs of images: MIX times the first and the rest of the second, one view each."""

    inputs: Inputs
    pairs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pairs)

    def views(self, rows: NDArray[np.int64]) -> Tensor:
        first, second = self.pairs[rows].T
        return MIX * self.inputs.view(first) + (1 - MIX) * self.inputs.view(second)
