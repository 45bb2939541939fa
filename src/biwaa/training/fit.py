"""The training of one stage: batches, steps, checkpoints, a log and a watch on the losses.

- all that is random in step i is drawn from a generator seeded by (seed, i), and the batches of a seed can be
  replayed: a checkpoint needs no generator's state, and a resumed stage goes on to the bit
- losses are read off the device once in `log_every` steps (on the CPU, where reading is free, every step)
"""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.errors import BiwaaError
from biwaa.methods.method import Method
from biwaa.models.network import Network
from biwaa.progress import track
from biwaa.ranks import average_buffers, seed_per_rank, seed_shared, shard
from biwaa.recipe import Recipe
from biwaa.settings import MOST_STEPS
from biwaa.tensors import load_tensors
from biwaa.training.data import Data
from biwaa.training.folder import RunFolder
from biwaa.training.sampling import Indices, balanced_batches, uniform_batches
from biwaa.training.step import build_optimizer, gathered_forward, training_step
from biwaa.training.watch import LossWatch


@dataclass(frozen=True)
class StagePlan:
    """What one stage trains."""

    name: str  # source-only, round 0, round 1, ..
    recipe: Recipe  # All settings; source-only has its own method
    seed: int  # Of this stage's draws
    previous: Tensor | None = None  # (N, K) predictions of earlier rounds to learn from; None where none are used
    find_neighbours: bool = False  # Keep each target image's nearest neighbours for a later teacher


def fit(plan: StagePlan, network: Network, method: Method, data: Data, fabric: Fabric, folder: RunFolder) -> float:
    """Train a fresh `network` and `method` in place, from an unfinished state of this stage where there is one.

    Returns:
        Seconds, those before an interruption up to its last checkpoint included.

    Raises:
        BiwaaError: a loss is no longer finite; the message names it, the step and what is kept.
    """
    recipe, name = plan.recipe, plan.name
    network.to(fabric.device).to(memory_format=torch.channels_last)
    method.to(fabric.device)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # in place: names and parameters stay
    optimizer = build_optimizer(network, method, recipe.optimizer)
    start, before = _restore(name, network, method, optimizer, folder)
    begin = time.perf_counter()
    folder.rewind_log(name, start)
    wrapped, stepper = fabric.setup(network, optimizer)

    forward = partial(gathered_forward, wrapped, fabric)  # no closure, which would outlive the step that failed in it
    steps = recipe.schedule.steps
    drawn = itertools.islice(_batches(data, plan), start, steps)
    batches = _announced(drawn, data, method.sees_target, fabric)
    labels = torch.from_numpy(data.source_labels).to(fabric.device)
    watch = LossWatch(name, steps, recipe.machine.log_every, folder, every_step=fabric.device.type == "cpu")
    unproven = False  # whether a candidate waits for the loss of the step after it
    every, after = recipe.machine.checkpoint_interval()
    network.train()
    method.train()
    kept = time.perf_counter()
    with track(name, steps, "steps", start) as advance:
        for step, (source_rows, target_rows) in enumerate(batches, start):
            seed_per_rank(plan.seed * MOST_STEPS + step, fabric)
            on_device = torch.from_numpy(np.stack([source_rows, target_rows])).to(fabric.device)
            mine, others = shard(source_rows, fabric), shard(target_rows, fabric)
            losses = training_step(
                network,
                method,
                stepper,
                recipe,
                step,
                source=(data.source.batch(mine), labels[on_device[0]]),
                target=(data.target.batch(others) if method.sees_target else labels[:0], on_device[1]),
                strong=data.target.strong(others) if method.strong_view else None,
                backward=fabric.backward,
                forward=forward,
                between=partial(seed_shared, plan.seed * MOST_STEPS + step, fabric),
            )
            advance(step + 1, watch(step, losses))
            if unproven:
                watch.read(step)  # raises where the step from that state was not finite
                folder.prove()
                unproven = False
            late = after < math.inf and fabric.broadcast(time.perf_counter() - kept >= after)  # one clock decides
            due = (step + 1) % every == 0 or late
            if due and step + 1 < steps:
                watch.read(step)
                seconds = before + time.perf_counter() - begin
                average_buffers(network, fabric)
                state = _state(network, method, optimizer)
                folder.keep(folder.candidate, state, stage=name, step=step + 1, seconds=round(seconds, 2))
                unproven, kept = True, time.perf_counter()
    average_buffers(network, fabric)
    return before + time.perf_counter() - begin


def _batches(data: Data, plan: StagePlan) -> Iterator[tuple[Indices, Indices]]:
    settings, seed = plan.recipe.data, plan.seed
    size = settings.batch_size
    if settings.class_balanced:
        source = balanced_batches(data.source_labels, size, seed, drop_small=False)
    else:
        source = uniform_batches(len(data.source), size, seed)
    if settings.class_balanced and plan.previous is not None:
        target = balanced_batches(plan.previous.argmax(dim=1).cpu().numpy(), size, seed + 1, drop_small=True)
    else:
        target = uniform_batches(len(data.target), size, seed + 1)
    return zip(source, target, strict=False)


def _announced(
    batches: Iterator[tuple[Indices, Indices]], data: Data, sees_target: bool, fabric: Fabric
) -> Iterator[tuple[Indices, Indices]]:
    """The same batches; each is announced to the inputs one step before it is used, so that these can read ahead."""
    waiting: tuple[Indices, Indices] | None = None
    for source_rows, target_rows in batches:
        data.source.expect(shard(source_rows, fabric))
        if sees_target:
            data.target.expect(shard(target_rows, fabric))
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


def _restore(
    name: str, network: Network, method: Method, optimizer: torch.optim.Optimizer, folder: RunFolder
) -> tuple[int, float]:
    """Load the unfinished state of this stage, if there is one; the step to go on with, and seconds spent so far."""
    folder.drop(folder.candidate)
    if not folder.unfinished.exists():
        return 0, 0.0
    state, facts = load_tensors(folder.unfinished)
    if facts.get("stage") != name:
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
