"""Several processes train as one: each runs the network on its shard of the batch, and all get all outputs.

- features and logits are gathered with their gradients, so every rank computes the same losses of the same global
  batch: centroids, label memory and discriminator agree without being exchanged
- each rank's gradient is then too large by the number of ranks, which DDP's mean over ranks corrects
- with one process, the functions of tensors and rows return their argument
- if one process ends, the others end too with an error message, even while they wait for it
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

SEED_STRIDE = 2**40  # Between the seeds of two ranks; larger than any seed of a step
LEADER = "BIWAA_LEADER"
"""Environment variable for the processes that a run starts: the id of the process that started them."""
CHECK_EVERY = 0.5  # Seconds between two checks of the other processes
GRACE = 3.0  # Seconds for a process to report by itself that another one ended, before it is ended
GONE = "another process of this run ended, so this one does too; `--resume` goes on from the last checkpoint, if any"
_OVER = threading.Event()


def leads() -> bool:
    """Whether this process is the first of its run, by the launchers' environment variables; works before a launch."""
    numbers = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")
    return not any(int(os.environ.get(name) or 0) for name in numbers)


def shard(rows: NDArray[np.int64], fabric: Fabric) -> NDArray[np.int64]:
    """This rank's shard of (B,) rows; the shards in the order of the ranks are all rows."""
    size = len(rows) // fabric.world_size
    return rows[fabric.global_rank * size : (fabric.global_rank + 1) * size]


def seed_per_rank(seed: int, fabric: Fabric) -> None:
    """Seed the generator for random numbers that differ between ranks: augmentation and dropout of their own images."""
    torch.manual_seed(seed + fabric.global_rank * SEED_STRIDE)


def seed_shared(seed: int, fabric: Fabric) -> None:
    """Seed the generator for random numbers that all ranks share, since they are used on the whole batch."""
    if fabric.world_size > 1:
        torch.manual_seed(seed + fabric.world_size * SEED_STRIDE)


def all_gather(part: Tensor, fabric: Fabric) -> Tensor:
    """(B / ranks, ..) of each rank -> (B, ..) on all, with gradients."""
    if fabric.world_size == 1:
        return part
    every = fabric.all_gather(part, sync_grads=True)
    assert isinstance(every, Tensor)
    return every.flatten(0, 1)


def strided_shard(rows: NDArray[np.int64], fabric: Fabric) -> NDArray[np.int64]:
    """This rank's every n-th of (N,) rows, for n ranks; some rows repeat if n does not divide N. See `gather_rows`."""
    if fabric.world_size == 1:
        return rows
    padded = np.resize(rows, -(-len(rows) // fabric.world_size) * fabric.world_size)
    return padded[fabric.global_rank :: fabric.world_size]


def gather_rows(part: Tensor, count: int, fabric: Fabric) -> Tensor:
    """Each rank's results for its `strided_shard` -> (count, ..) in the order of all rows, on every rank's CPU."""
    if fabric.world_size == 1:
        return part
    every = fabric.all_gather(part.to(fabric.device))
    assert isinstance(every, Tensor)
    return every.transpose(0, 1).flatten(0, 1)[:count].cpu()


def average_buffers(network: nn.Module, fabric: Fabric) -> None:
    """Average buffers over the ranks: BatchNorm's running statistics, where BatchNorm is not synchronised."""
    if fabric.world_size > 1:
        for buffer in network.buffers():
            if buffer.is_floating_point():
                mean = fabric.all_reduce(buffer, reduce_op="mean")
                assert isinstance(mean, Tensor)
                buffer.copy_(mean)


def launch(fabric: Fabric) -> None:
    """Start the other processes of a run, or join the run that started this one; then each watches the others."""
    _OVER.clear()
    leader = int(os.environ.setdefault(LEADER, str(os.getpid())))
    if leader == os.getpid():
        _watch(_Started(getattr(fabric.strategy.launcher, "procs", [])))
    elif os.name == "posix":  # elsewhere an orphan's parent id does not change
        _watch(lambda: os.getppid() != leader)
    try:
        with together(fabric):
            fabric.launch()
    finally:
        del os.environ[LEADER]


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """Turn torch's errors after another process has ended into an error for users.

    Raises:
        BiwaaError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not (isinstance(error, DistError) or "gloo" in str(error)):
            raise
        raise BiwaaError(f"{GONE}.") from None


def finish() -> None:
    """Stop watching the other processes: the run is complete."""
    _OVER.set()


class _Started:
    """Whether a process that this one started has failed.

    The processes are taken off Fabric's own list, whose observer would kill this process without a message.
    """

    def __init__(self, launched: list[subprocess.Popen[bytes]]) -> None:
        self.launched, self.mine = launched, list[subprocess.Popen[bytes]]()

    def __call__(self) -> bool:
        while self.launched:
            self.mine.append(self.launched.pop())
        return any(process.poll() for process in self.mine)


def _watch(ended: Callable[[], bool]) -> None:
    """End this process soon after another has ended, even if it is waiting for that one."""

    def check() -> None:
        while not ended():
            if _OVER.wait(CHECK_EVERY):
                return
        if _OVER.wait(GRACE):
            return
        print(f"biwaa: error: {GONE}.", file=sys.stderr, flush=True)
        os._exit(2)

    threading.Thread(target=check, daemon=True, name="biwaa-ranks").start()
