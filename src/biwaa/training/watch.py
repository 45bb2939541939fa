"""A watch on the losses of a stage: read now and then, logged as means, stopped at the first that is not finite."""

import math
import time

import torch
from torch import Tensor

from biwaa.errors import BiwaaError
from biwaa.methods.method import Loss
from biwaa.tensors import load_tensors
from biwaa.training.folder import RunFolder


class LossWatch:
    """Collects losses on the device until they are read."""

    def __init__(self, stage: str, steps: int, log_every: int, folder: RunFolder, every_step: bool) -> None:
        """Watch `stage`; losses are read every step, or once in `log_every`."""
        self.stage, self.steps, self.log_every, self.folder = stage, steps, log_every, folder
        self.read_every = 1 if every_step else log_every
        self.pending: list[Tensor] = []
        self.window: list[list[float]] = []
        self.names: list[str] = []
        self.since = time.perf_counter()

    def __call__(self, step: int, losses: dict[str, Loss]) -> dict[str, float] | None:
        """Take the losses of `step`; figures to show, when there are new ones."""
        self.names = list(losses)
        self.pending.append(torch.stack([loss.value.detach() for loss in losses.values()]))
        last = step + 1 == self.steps
        if (step + 1) % self.read_every == 0 or last:
            self.read(step)
        if (step + 1) % self.log_every and not last:
            return None
        means = [sum(column) / len(column) for column in zip(*self.window, strict=True)]
        figures = dict(zip(self.names, means, strict=True))
        seconds = time.perf_counter() - self.since
        rate = len(self.window) / max(seconds, 1e-9)
        self.folder.log(stage=self.stage, step=step + 1, **figures, steps_per_second=round(rate, 3))
        self.window, self.since = [], time.perf_counter()
        return figures

    def read(self, step: int) -> None:
        """Bring pending losses to the host.

        Raises:
            BiwaaError: one is not finite.
        """
        if not self.pending:
            return
        values = torch.stack(self.pending).tolist()
        first = step + 1 - len(values)
        self.pending = []
        for offset, row in enumerate(values):
            for name, value in zip(self.names, row, strict=True):
                if not math.isfinite(value):
                    raise BiwaaError(self._broken(name, value, first + offset))
        self.window += values

    def _broken(self, name: str, value: float, step: int) -> str:
        kept = "finished stages are kept"
        if self.folder.unfinished.exists():
            _, facts = load_tensors(self.folder.unfinished)
            kept = f"the last good state is {self.folder.unfinished} ({facts['stage']}, step {facts['step']})"
        return (
            f"the {name} loss became {value} at step {step} of {self.stage}; training stopped and {kept}. "
            "Try a lower --learning-rate, or --precision 32-true if it is another."
        )
