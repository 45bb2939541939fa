"""Many processes as one: each runs the network on its part of the batch, and all see the whole of what comes out.

- features and logits are gathered with their gradients, so every rank computes the same losses of the same global
  batch: centroids, label memory and discriminator agree without being exchanged
- each rank's gradient is then as many times too large as there are ranks, and DDP's mean makes it right
- with one process every function here gives back what it got
- where one process ends, the others end with a sentence, also those that would wait for it in vain
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed import DistError

from biwaa.errors import BiwaaError

APART = 2**40
"""Between the seeds of two ranks: more than any seed of a step."""
LEADER = "BIWAA_LEADER"
"""In the environment of processes that a run starts: the number of the one that started them."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the other processes."""
GRACE = 3.0
"""Seconds that a process has to say by itself that another ended, before it is ended."""
GONE = "another process of this run ended, so this one does too; `--resume` goes on from the last checkpoint"
_OVER = threading.Event()


def leads() -> bool:
    """Whether this process is the first of its run, by what launchers say of it, before any is launched."""
    said = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")
    return not any(int(os.environ.get(name) or 0) for name in said)


def shard(rows: NDArray[np.int64], fabric: Fabric) -> NDArray[np.int64]:
    """This rank's part of (B,) rows; the parts in the ranks' order are the whole."""
    size = len(rows) // fabric.world_size
    return rows[fabric.global_rank * size : (fabric.global_rank + 1) * size]


def seed_apart(seed: int, fabric: Fabric) -> None:
    """Seed the generator for what ranks should draw each by itself: augmentation and dropout of their own images."""
    torch.manual_seed(seed + fabric.global_rank * APART)


def seed_alike(seed: int, fabric: Fabric) -> None:
    """Seed the generator for what all ranks must draw alike, since they compute it on the whole batch."""
    if fabric.world_size > 1:
        torch.manual_seed(seed + fabric.world_size * APART)


def all_gather(part: Tensor, fabric: Fabric) -> Tensor:
    """(B / ranks, ..) of each rank -> (B, ..) on all, with gradients."""
    if fabric.world_size == 1:
        return part
    every = fabric.all_gather(part, sync_grads=True)
    assert isinstance(every, Tensor)
    return every.flatten(0, 1)


def strided_shard(rows: NDArray[np.int64], fabric: Fabric) -> NDArray[np.int64]:
    """Every so many-th of (N,) rows, the last ones repeated where N cannot be divided; `gather_rows` undoes it."""
    if fabric.world_size == 1:
        return rows
    padded = np.resize(rows, -(-len(rows) // fabric.world_size) * fabric.world_size)
    return padded[fabric.global_rank :: fabric.world_size]


def gather_rows(part: Tensor, count: int, fabric: Fabric) -> Tensor:
    """What each rank has of `strided_shard` rows -> (count, ..) in the rows' order on all, on the CPU."""
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


def launch(fabric: Fabric) -> None:
    """Start the other processes of a run, or meet those that started this one; from here on each minds the others."""
    _OVER.clear()
    leader = int(os.environ.setdefault(LEADER, str(os.getpid())))
    if leader == os.getpid():
        _watch(_Started(getattr(fabric.strategy.launcher, "procs", [])))
    elif os.name == "posix":  # elsewhere an orphan keeps its parent's number
        _watch(lambda: os.getppid() != leader)
    try:
        with together(fabric):
            fabric.launch()
    finally:
        del os.environ[LEADER]


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """Turn what torch says when another process has gone into a sentence.

    Raises:
        BiwaaError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not (isinstance(error, DistError) or "gloo" in str(error)):
            raise
        raise BiwaaError(f"{GONE}.") from None


def finish() -> None:
    """The run is whole: from here on no process minds whether another ends."""
    _OVER.set()


class _Started:
    """Whether one of the processes that this one started has failed.

    They are taken off Fabric's own list, whose observer would kill this process without a word.
    """

    def __init__(self, launched: list[subprocess.Popen[bytes]]) -> None:
        self.launched, self.mine = launched, list[subprocess.Popen[bytes]]()

    def __call__(self) -> bool:
        while self.launched:
            self.mine.append(self.launched.pop())
        return any(process.poll() for process in self.mine)


def _watch(ended: Callable[[], bool]) -> None:
    """End this process soon after another has ended, whatever it waits for."""

    def look() -> None:
        while not ended():
            if _OVER.wait(LOOK_EVERY):
                return
        if _OVER.wait(GRACE):
            return
        print(f"biwaa: error: {GONE}.", file=sys.stderr, flush=True)
        os._exit(2)

    threading.Thread(target=look, daemon=True, name="biwaa-ranks").start()
