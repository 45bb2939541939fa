"""The device and its precision: Lightning Fabric is opened here alone."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from biwaa import progress
from biwaa.errors import BiwaaError, one_line
from biwaa.ranks import launch

NO_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "Cannot allocate memory",
    "could not create a primitive",
)  # fmt: skip
"""Texts of errors from an allocation that failed on the CPU or within a library; the last is oneDNN's."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # Settings of glibc's mallopt, by their numbers in malloc.h.


def hardware(device: str) -> dict[str, Any]:
    """The machine that figures were measured on: device and its name, processor, threads."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {
        "device": device, "threads": torch.get_num_threads(), "machine": platform.machine(),
        "processor": names[0] if names else platform.processor(), **gpu,
    }  # fmt: skip


def allocation_failure(error: BaseException) -> str:
    """The text of an error from an allocation that failed; empty for any other error."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in NO_MEMORY)
    return one_line(error) if known else ""


@contextmanager
def within_memory(doing: str, advice: str) -> Iterator[None]:
    """Turn an allocation that fails within the block into an error for users.

    Args:
        doing: completes "memory ran out ..": when, or with what.
        advice: what to do.

    Raises:
        BiwaaError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        reason = allocation_failure(error)
        if not reason:
            raise
        raise BiwaaError(f"memory ran out {doing} ({reason}): {advice}.") from None


def keep_freed_memory() -> bool:
    """Make glibc keep the memory that a step frees for the next step, instead of returning it to the system.

    The system clears each page that it gives out again, which can cost a network on the CPU more time than its
    arithmetic (docs/speed.md). This is a setting of the whole process. Other systems and allocators are not changed,
    nor is glibc if the environment configures it (`MALLOC_..`, or `GLIBC_TUNABLES` with malloc in it).

    Returns:
        Whether glibc does so now.
    """
    configured = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if configured or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


@contextmanager
def with_threads(number: int) -> Iterator[None]:
    """Compute with so many processor threads within the block: how a sum is split over them decides its rounding.

    With one, torch has no helper threads, which wait for work by spinning: after a few small operations they still
    occupy the cores that a larger one needs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


FEW = 50_000
"""Rows of features below which a solver's products are small."""


def few_threads(rows: int) -> AbstractContextManager[None]:
    """One thread for the small products of few rows: beside other work, threads wait for each other far longer.

    On two cores that other work kept busy, the default took 20 seconds so, and 90 with two threads (docs/speed.md).
    """
    return with_threads(1 if rows < FEW else torch.get_num_threads())


def has_gpu(device: str) -> bool:
    """Whether `auto`, cpu, cuda or mps means a GPU on this machine."""
    found = torch.cuda.is_available() or torch.backends.mps.is_available()
    return device in ("cuda", "mps") or (device == "auto" and found)


def open_fabric(device: str, precision: Any = "32-true", devices: int = 1, nodes: int = 1) -> Fabric:
    """Devices in one precision; each of several is a process, started here or by torchrun, SLURM or MPI.

    Args:
        device: auto, cpu, cuda or mps.
        precision: 32-true, bf16-mixed or 16-mixed.
        devices: on each machine.
        nodes: machines.

    Raises:
        BiwaaError: this machine has no such devices.
    """
    keep_freed_memory()
    if devices * nodes == 1:
        return _fabric(device, precision, 1, 1, "auto")
    # `ranks` averages buffers at the end of a stage: a broadcast between two forwards would break the backward pass.
    fabric = _fabric(device, precision, devices, nodes, DDPStrategy(broadcast_buffers=False))
    launch(fabric)
    if not fabric.is_global_zero:
        progress.be_quiet()
    return fabric


def _fabric(device: str, precision: Any, devices: int, nodes: int, strategy: str | DDPStrategy) -> Fabric:
    unseen = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if unseen.get(device):
        raise BiwaaError(f"cannot run on {device}: PyTorch sees no such device here, so use --device auto.")
    try:
        return Fabric(accelerator=device, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy)
    except (RuntimeError, ValueError) as error:
        raise BiwaaError(f"cannot run on {device} here ({str(error).splitlines()[0]}): use --device auto.") from None
