"""Class probabilities: each view's softmax, averaged over the views."""

from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from biwaa.errors import BiwaaError
from biwaa.images.batches import Viewed
from biwaa.models.network import Network
from biwaa.progress import track
from biwaa.ranks import gather_rows, strided_shard


class Predicted(NamedTuple):
    """A network's predictions of N images, each the mean over the image's views; float32 on the CPU."""

    probabilities: Tensor  # (N, K)
    features: Tensor  # (N, D) after the bottleneck
    pooled: Tensor  # (N, F) before the bottleneck; empty (N, 0) unless requested


@torch.inference_mode()
def predict(
    network: Network, inputs: Viewed, batch_size: int, fabric: Fabric, what: str,
    rows: NDArray[np.int64] | None = None, pooled: bool = False,
) -> Predicted:  # fmt: skip
    """Predict images of `inputs`.

    Args:
        network: on the device; left in evaluation mode.
        inputs: images.
        batch_size: images at a time.
        fabric: precision and processes; each process predicts its shard, and all get the whole.
        what: for the progress display.
        rows: (N,) which images; all unless given.
        pooled: return the backbone's features too.

    Raises:
        BiwaaError: a probability is not finite.
    """
    network.eval()
    rows = np.arange(len(inputs)) if rows is None else rows
    parts: list[Predicted] = []
    with track(what, len(rows), "images") as advance:
        shard = strided_shard(rows, fabric)
        for start in range(0, len(shard), batch_size):
            chosen = shard[start : start + batch_size]
            with fabric.autocast():
                parts.append(average_views(network, inputs.views(chosen), pooled))
            advance(min((start + len(chosen)) * fabric.world_size, len(rows)))
    every = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    found = Predicted(*(gather_rows(part, len(rows), fabric) for part in every))
    if not found.probabilities.isfinite().all():
        raise BiwaaError("the network predicts values that are not finite: try a lower --learning-rate.")
    return found


def average_views(network: Network, views: Tensor, keep_pooled: bool = False) -> Predicted:
    """(V, B, ..) views -> predictions of B images, means over the views."""
    pooled = network.pooled(views.flatten(0, 1))
    output = network.head(pooled)
    returned = pooled if keep_pooled else pooled[:, :0]
    every = (output.logits.float().softmax(dim=1), output.features.float(), returned.float())
    return Predicted(*(part.reshape(*views.shape[:2], part.shape[1]).mean(dim=0).cpu() for part in every))
