"""The device and the arithmetic that everything runs in: Lightning Fabric, opened in one place."""

import platform
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from biwaa.errors import BiwaaError


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


def open_fabric(device: str, precision: Any = "32-true") -> Fabric:
    """One device in one precision.

    Args:
        device: auto, cpu, cuda or mps.
        precision: 32-true, bf16-mixed or 16-mixed.

    Raises:
        BiwaaError: this machine has no such device.
    """
    try:
        return Fabric(accelerator=device, devices=1, precision=precision)
    except (RuntimeError, ValueError) as error:
        raise BiwaaError(f"cannot run on {device} here: {str(error).splitlines()[0]} Try --device auto.") from None
