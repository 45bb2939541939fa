"""Many processes as one: each runs the network on its part of the batch, and all see the whole of what comes out.

- features and logits are gathered with their gradients, so every rank computes the same losses of the same global
  batch: centroids, label memory and discriminator agree without being exchanged
- each rank's gradient is then as many times too large as there are ranks, and DDP's mean makes it right
- with one process every function here gives back what it got
"""

import os

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

APART = 2**40
"""Between the seeds of two ranks: more than any seed of a step."""


def leads() -> bool:
    """Whether this process is the first of its run, by what launchers say of it, before any is launched."""
    said = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")
    return not any(int(os.environ.get(name) or 0) for name in said)


def share(rows: NDArray[np.int64], fabric: Fabric) -> NDArray[np.int64]:
    """This rank's part of (B,) rows; the parts in the ranks' order are the whole."""
    size = len(rows) // fabric.world_size
    return rows[fabric.global_rank * size : (fabric.global_rank + 1) * size]


def draw_apart(seed: int, fabric: Fabric) -> None:
    """Seed the generator for what ranks should draw each by itself: augmentation and dropout of their own images."""
    torch.manual_seed(seed + fabric.global_rank * APART)


def draw_together(seed: int, fabric: Fabric) -> None:
    """Seed the generator for what all ranks must draw alike, since they compute it on the whole batch."""
    if fabric.world_size > 1:
        torch.manual_seed(seed + fabric.world_size * APART)


def whole(part: Tensor, fabric: Fabric) -> Tensor:
    """(B / ranks, ..) of each rank -> (B, ..) on all, with gradients."""
    if fabric.world_size == 1:
        return part
    every = fabric.all_gather(part, sync_grads=True)
    assert isinstance(every, Tensor)
    return every.flatten(0, 1)


def dealt(rows: NDArray[np.int64], fabric: Fabric) -> NDArray[np.int64]:
    """Every so many-th of (N,) rows, the last ones repeated where N cannot be divided; `collected` undoes it."""
    if fabric.world_size == 1:
        return rows
    padded = np.resize(rows, -(-len(rows) // fabric.world_size) * fabric.world_size)
    return padded[fabric.global_rank :: fabric.world_size]


def collected(part: Tensor, count: int, fabric: Fabric) -> Tensor:
    """What each rank has of `dealt` rows -> (count, ..) in the rows' order on all, on the CPU."""
    if fabric.world_size == 1:
        return part
    every = fabric.all_gather(part.to(fabric.device))
    assert isinstance(every, Tensor)
    return every.transpose(0, 1).flatten(0, 1)[:count].cpu()


def settle_buffers(network: nn.Module, fabric: Fabric) -> None:
    """Average over ranks what each has averaged of its own batches: BatchNorm's statistics, where not synchronised."""
    if fabric.world_size > 1:
        for buffer in network.buffers():
            if buffer.is_floating_point():
                mean = fabric.all_reduce(buffer, reduce_op="mean")
                assert isinstance(mean, Tensor)
                buffer.copy_(mean)
