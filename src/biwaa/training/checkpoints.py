"""States in the middle of a stage: when one is due, what it holds, and how training goes on from it."""

import math
import time
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.errors import BiwaaError, one_line
from biwaa.methods.method import Method
from biwaa.models.network import Network
from biwaa.settings import MachineSettings
from biwaa.tensors import load_tensors, taken
from biwaa.training.folder import RunFolder


class Due:
    """When a checkpoint is due: every so many steps, or minutes by the clock of the first of several processes.

    Processes ask for that clock halfway to the next checkpoint, and again halfway: asking keeps a GPU waiting.
    """

    def __init__(self, settings: MachineSettings, start: int, fabric: Fabric) -> None:
        """Training goes on after `start` steps."""
        self.every, self.seconds = settings.checkpoint_interval()
        self.fabric = fabric
        self.kept(start)

    def kept(self, done: int) -> None:
        """A checkpoint is written after `done` steps."""
        self.since, self.first, self.ask = time.perf_counter(), done, done + 1

    def __call__(self, done: int) -> bool:
        """Whether one is due after `done` steps."""
        if self.seconds == math.inf:
            return done % self.every == 0
        if done < self.ask:
            return False
        late, steps = self.fabric.broadcast(self._late(done))
        self.ask = done + steps
        return bool(late)

    def _late(self, done: int) -> tuple[bool, int]:
        """Whether it is time, and after how many steps to ask again."""
        passed = time.perf_counter() - self.since
        halfway = (self.seconds - passed) / 2 * (done - self.first) / max(passed, 1e-9)
        return passed >= self.seconds, max(1, int(min(halfway, 1e6)))


def state_of(network: Network, method: Method, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters, memories and momentum."""
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    state |= {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        if parameter in optimizer.state and optimizer.state[parameter].get("momentum_buffer") is not None:
            state[f"momentum.{number}"] = optimizer.state[parameter]["momentum_buffer"]
    return state


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """In the order by which their momentum is numbered in checkpoints."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def restore(
    name: str, network: Network, method: Method, optimizer: torch.optim.Optimizer, folder: RunFolder
) -> tuple[int, float]:
    """Load the unfinished state of this stage, if there is one.

    Returns:
        The step to go on with, and seconds spent so far.

    Raises:
        BiwaaError: the file is not of this run.
    """
    folder.drop(folder.candidate)
    if not folder.unfinished.exists():
        return 0, 0.0
    state, facts = load_tensors(folder.unfinished)
    if facts.get("stage") != name:
        return 0, 0.0
    try:
        return _load(network, method, optimizer, state, facts)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BiwaaError(
            f"{folder.unfinished} does not fit this run ({one_line(error)}): remove it and resume."
        ) from None


def _load(
    network: Network, method: Method, optimizer: torch.optim.Optimizer, state: dict[str, Tensor], facts: dict[str, Any]
) -> tuple[int, float]:
    network.load_state_dict(taken(state, "network."))
    method.load_state_dict(taken(state, "method."))
    for number, parameter in enumerate(_parameters(optimizer)):
        if f"momentum.{number}" in state:
            # In the parameter's own memory layout: the fused optimiser walks both as they lie.
            buffer = torch.empty_like(parameter).copy_(state[f"momentum.{number}"])
            optimizer.state[parameter]["momentum_buffer"] = buffer.detach()
    return int(facts["step"]), float(facts.get("seconds", 0.0))
