"""The device and the arithmetic that everything runs in: Lightning Fabric, opened in one place."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from biwaa import progress
from biwaa.errors import BiwaaError

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "Cannot allocate memory")
"""How an allocation that failed on the CPU or within a library reads."""


def hardware(device: str) -> dict[str, Any]:
    """What figures were measured on: device, its name, processor and threads."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {
        "device": device, "threads": torch.get_num_threads(), "machine": platform.machine(),
        "processor": names[0] if names else platform.processor(), **gpu,
    }  # fmt: skip


@contextmanager
def within_memory(batch_size: int) -> Iterator[None]:
    """Turn an allocation that fails within the block into a sentence.

    Raises:
        BiwaaError: memory ran out; the message names half of `batch_size`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        said = " ".join(str(error).split())
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(sign in said for sign in NO_MEMORY):
            raise
        smaller = f"set --batch-size to {batch_size // 2} or lower" if batch_size > 3 else "close other programs"
        raise BiwaaError(
            f"memory ran out with batches of {batch_size} images ({said[:200] or type(error).__name__}): {smaller}, "
            "or lower --image-size or take a smaller --backbone. What was finished is kept."
        ) from None


def open_fabric(device: str, precision: Any = "32-true", devices: int = 1, nodes: int = 1) -> Fabric:
    """Devices in one precision; of several, each is a process, started here or by torchrun, SLURM or MPI.

    Args:
        device: auto, cpu, cuda or mps.
        precision: 32-true, bf16-mixed or 16-mixed.
        devices: on each machine.
        nodes: machines.

    Raises:
        BiwaaError: this machine has no such devices.
    """
    if devices * nodes == 1:
        return _fabric(device, precision, 1, 1, "auto")
    # Buffers are settled by `ranks` when a leg ends: a broadcast between two forwards would change what backward needs.
    fabric = _fabric(device, precision, devices, nodes, DDPStrategy(broadcast_buffers=False))
    fabric.launch()
    if not fabric.is_global_zero:
        progress.be_quiet()
    return fabric


def _fabric(device: str, precision: Any, devices: int, nodes: int, strategy: str | DDPStrategy) -> Fabric:
    try:
        return Fabric(accelerator=device, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy)
    except (RuntimeError, ValueError) as error:
        raise BiwaaError(f"cannot run on {device} here: {str(error).splitlines()[0]} Try --device auto.") from None
