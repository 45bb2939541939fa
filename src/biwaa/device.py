"""The device and the arithmetic that everything runs in: Lightning Fabric, opened in one place."""

from typing import Any

from lightning_fabric import Fabric

from biwaa.errors import BiwaaError


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
