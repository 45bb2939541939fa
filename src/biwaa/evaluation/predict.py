"""Class probabilities: the softmax of each view, averaged over the views."""

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.domains.inputs import Inputs
from biwaa.errors import BiwaaError
from biwaa.models.network import Network
from biwaa.progress import track


@torch.inference_mode()
def predict(network: Network, inputs: Inputs, batch_size: int, fabric: Fabric, what: str) -> Tensor:
    """Predict every image of `inputs`.

    Args:
        network: on the device; left in evaluation mode.
        inputs: N images.
        batch_size: images at a time.
        fabric: precision.
        what: for the progress display.

    Returns:
        (N, K) float32 on the CPU.

    Raises:
        BiwaaError: a probability is not finite.
    """
    network.eval()
    parts: list[Tensor] = []
    with track(what, len(inputs), "images") as advance:
        for start in range(0, len(inputs), batch_size):
            rows = np.arange(start, min(start + batch_size, len(inputs)))
            with fabric.autocast():
                parts.append(average_views(network, inputs.views(rows)).cpu())
            advance(int(rows[-1]) + 1)
    probabilities = torch.cat(parts)
    if not probabilities.isfinite().all():
        raise BiwaaError("the network predicts values that are not finite: try a lower --learning-rate.")
    return probabilities


def average_views(network: Network, views: Tensor) -> Tensor:
    """(V, B, ..) -> (B, K): the mean over views of the softmax."""
    logits = network(views.flatten(0, 1)).logits.float()
    averaged: Tensor = logits.softmax(dim=1).unflatten(0, views.shape[:2]).mean(dim=0)
    return averaged
