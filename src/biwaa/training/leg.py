"""One leg: training from afresh for a number of steps, with checkpoints, a log and a watch on the losses.

- all that is random in step i is drawn from a generator seeded by (seed, i), and the batches of a seed can be
  replayed: a checkpoint needs no generator's state, and a resumed leg goes on to the bit
- losses are read off the device once in `log_every` steps (on the CPU, where reading is free, every step)
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.domains.inputs import Data
from biwaa.domains.sampling import Indices, balanced_batches, uniform_batches
from biwaa.errors import BiwaaError
from biwaa.methods.method import Loss, Method
from biwaa.models.network import Network, Output
from biwaa.progress import track
from biwaa.ranks import draw_apart, draw_together, settle_buffers, share, whole
from biwaa.recipe import MOST_STEPS, Recipe
from biwaa.tensors import load_tensors
from biwaa.training.compiled import Compiled, compile_network, release
from biwaa.training.folder import RunFolder
from biwaa.training.step import build_optimizer, forward_batch, training_step


class Training(NamedTuple):
    """What a leg's training took."""

    seconds: float
    """Those before an interruption up to its last checkpoint included."""
    compiled: Compiled | None
    """None where nobody asked for it."""


def train_leg(
    name: str, seed: int, network: Network, method: Method, data: Data, previous: Tensor | None,
    recipe: Recipe, fabric: Fabric, folder: RunFolder,
) -> Training:  # fmt: skip
    """Train `network` and `method` in place.

    Args:
        name: of the leg, for the log and the checkpoints.
        seed: of this leg's draws.
        network: fresh.
        method: fresh.
        data: what to train on.
        previous: (N, K) averaged predictions of earlier rounds, which balance the target; None in the first.
        recipe: all settings.
        fabric: device and precision.
        folder: takes log and checkpoints; an unfinished state of this leg in it is taken up.

    Raises:
        BiwaaError: a loss is no longer finite; the message names it, the step and what is kept.
    """
    network.to(fabric.device).to(memory_format=torch.channels_last)
    method.to(fabric.device)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # in place: names and parameters stay
    optimizer = build_optimizer(network, method, recipe)
    start, before = _take_up(name, network, method, optimizer, folder)
    begin = time.perf_counter()
    folder.rewind_log(name, start)
    wrapped, stepper = fabric.setup(network, optimizer)

    forward = partial(_forward, wrapped, fabric)  # no closure, which would outlive the step that failed in it
    drawn = itertools.islice(_batches(data, previous, recipe, seed), start, recipe.steps)
    batches = _announced(drawn, data, method.sees_target, fabric)
    labels = torch.from_numpy(data.source_labels).to(fabric.device)
    watch = _Watch(name, recipe, folder, every_step=fabric.device.type == "cpu")
    unproven = False  # whether a candidate waits for the loss of the step after it
    every, after = recipe.checkpoint_interval()
    network.train()
    method.train()
    compiled = _compile(name, network, method, data, recipe, fabric) if recipe.compile else None
    kept = time.perf_counter()
    with track(name, recipe.steps, "steps", start) as advance:
        for step, (source_rows, target_rows) in enumerate(batches, start):
            draw_apart(seed * MOST_STEPS + step, fabric)
            on_device = torch.from_numpy(np.stack([source_rows, target_rows])).to(fabric.device)
            mine, others = share(source_rows, fabric), share(target_rows, fabric)
            losses = training_step(
                network, method, stepper,
                (data.source.batch(mine), labels[on_device[0]]),
                (data.target.batch(others) if method.sees_target else labels[:0], on_device[1]),
                step, fabric.backward, forward, data.target.strong(others) if method.strong_view else None,
                partial(draw_together, seed * MOST_STEPS + step, fabric),
            )  # fmt: skip
            figures = watch(step, losses)
            advance(step + 1, figures)
            if unproven:
                watch.read(step)  # raises where the step from that state was not finite
                folder.prove()
                unproven = False
            late = after < math.inf and fabric.broadcast(time.perf_counter() - kept >= after)  # one clock decides
            due = (step + 1) % every == 0 or late
            if due and step + 1 < recipe.steps:
                watch.read(step)
                seconds = before + time.perf_counter() - begin
                facts = {"leg": name, "step": step + 1, "seconds": round(seconds, 2)}
                settle_buffers(network, fabric)
                folder.keep(folder.candidate, _state(network, method, optimizer), **facts)
                unproven, kept = True, time.perf_counter()
    settle_buffers(network, fabric)
    release(network)
    return Training(before + time.perf_counter() - begin, compiled)


def _compile(name: str, network: Network, method: Method, data: Data, recipe: Recipe, fabric: Fabric) -> Compiled:
    """Compile what the steps run, by their forward passes on the first images."""
    rows = np.arange(recipe.batch_size // fabric.world_size)
    labels = torch.empty(0, dtype=torch.long)  # forward passes read none

    def rehearse() -> list[Output]:
        source = data.source.batch(rows % len(data.source))
        target = data.target.batch(rows % len(data.target)) if method.sees_target else labels
        strong = data.target.strong(rows % len(data.target)) if method.strong_view else None
        batch = forward_batch(network, method, (source, labels), (target, labels), network, strong)
        return [output for output in (batch.source, batch.target, batch.strong) if output]

    return compile_network(name, network, rehearse, fabric)


def _forward(network: Callable[[Tensor], Output], fabric: Fabric, inputs: Tensor) -> Output:
    """Of every rank's part of a batch, the whole."""
    return Output(*(whole(part, fabric) for part in network(inputs)))


def _batches(data: Data, previous: Tensor | None, recipe: Recipe, seed: int) -> Iterator[tuple[Indices, Indices]]:
    size = recipe.batch_size
    if recipe.class_balanced:
        source = balanced_batches(data.source_labels, size, seed, drop_small=False)
    else:
        source = uniform_batches(len(data.source), size, seed)
    if recipe.class_balanced and previous is not None:
        target = balanced_batches(previous.argmax(dim=1).cpu().numpy(), size, seed + 1, drop_small=True)
    else:
        target = uniform_batches(len(data.target), size, seed + 1)
    return zip(source, target, strict=False)


def _announced(
    batches: Iterator[tuple[Indices, Indices]], data: Data, sees_target: bool, fabric: Fabric
) -> Iterator[tuple[Indices, Indices]]:
    """The same batches; each is announced to the inputs one step before it is handed out."""
    waiting: tuple[Indices, Indices] | None = None
    for source_rows, target_rows in batches:
        data.source.expect(share(source_rows, fabric))
        if sees_target:
            data.target.expect(share(target_rows, fabric))
        if waiting:
            yield waiting
        waiting = source_rows, target_rows
    if waiting:
        yield waiting


def _state(network: Network, method: Method, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    state |= {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        if parameter in optimizer.state and optimizer.state[parameter].get("momentum_buffer") is not None:
            state[f"momentum.{number}"] = optimizer.state[parameter]["momentum_buffer"]
    return state


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """In the order by which their momentum is numbered in checkpoints."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _take_up(
    name: str, network: Network, method: Method, optimizer: torch.optim.Optimizer, folder: RunFolder
) -> tuple[int, float]:
    """Load the unfinished state of this leg, if there is one; the step to go on with, and seconds spent so far."""
    folder.drop(folder.candidate)
    if not folder.unfinished.exists():
        return 0, 0.0
    state, facts = load_tensors(folder.unfinished)
    if facts.get("leg") != name:
        return 0, 0.0
    try:
        return _load(network, method, optimizer, state, facts)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BiwaaError(f"{folder.unfinished} does not fit this run ({reason}): remove it and resume.") from None


def _load(
    network: Network, method: Method, optimizer: torch.optim.Optimizer, state: dict[str, Tensor], facts: dict[str, Any]
) -> tuple[int, float]:
    network.load_state_dict({key[8:]: value for key, value in state.items() if key.startswith("network.")})
    method.load_state_dict({key[7:]: value for key, value in state.items() if key.startswith("method.")})
    for number, parameter in enumerate(_parameters(optimizer)):
        if f"momentum.{number}" in state:
            # In the parameter's own memory layout: the fused optimiser walks both as they lie.
            buffer = torch.empty_like(parameter).copy_(state[f"momentum.{number}"])
            optimizer.state[parameter]["momentum_buffer"] = buffer.detach()
    return int(facts["step"]), float(facts.get("seconds", 0.0))


class _Watch:
    """Collects losses on the device, reads them now and then, logs means, stops at the first that is not finite."""

    def __init__(self, leg: str, recipe: Recipe, folder: RunFolder, every_step: bool) -> None:
        self.leg, self.recipe, self.folder = leg, recipe, folder
        self.read_every = 1 if every_step else recipe.log_every
        self.pending: list[Tensor] = []
        self.window: list[list[float]] = []
        self.names: list[str] = []
        self.since = time.perf_counter()

    def __call__(self, step: int, losses: dict[str, Loss]) -> dict[str, float] | None:
        """Take the losses of `step`; figures to show, when there are new ones."""
        self.names = list(losses)
        self.pending.append(torch.stack([loss.value.detach() for loss in losses.values()]))
        last = step + 1 == self.recipe.steps
        if (step + 1) % self.read_every == 0 or last:
            self.read(step)
        if (step + 1) % self.recipe.log_every and not last:
            return None
        means = [sum(column) / len(column) for column in zip(*self.window, strict=True)]
        figures = dict(zip(self.names, means, strict=True))
        seconds = time.perf_counter() - self.since
        rate = len(self.window) / max(seconds, 1e-9)
        self.folder.log(leg=self.leg, step=step + 1, **figures, steps_per_second=round(rate, 3))
        self.window, self.since = [], time.perf_counter()
        return figures

    def read(self, step: int) -> None:
        """Bring pending losses to the host; raise at the first that is not finite."""
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
        kept = "what earlier legs finished is kept"
        if self.folder.unfinished.exists():
            _, facts = load_tensors(self.folder.unfinished)
            kept = f"the last good state is {self.folder.unfinished} ({facts['leg']}, step {facts['step']})"
        return (
            f"the {name} loss became {value} at step {step} of {self.leg}; training stopped and {kept}. "
            "Try a lower --learning-rate, or --precision 32-true."
        )
