"""The training of one stage: batches, steps, checkpoints, a log and a watch on the losses.

- all that is random in step i is drawn from a generator seeded by (seed, i), and the batches of a seed can be
  replayed: a checkpoint needs no generator's state, and a resumed stage goes on to the bit
- losses are read off the device once in `log_every` steps (on the CPU, where reading is free, every step)
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.methods.method import Method
from biwaa.models.network import Network
from biwaa.progress import track
from biwaa.ranks import average_buffers, seed_per_rank, seed_shared, shard
from biwaa.recipe import Recipe
from biwaa.settings import MOST_STEPS
from biwaa.training.checkpoints import Due, restore, state_of
from biwaa.training.cost import images_a_step
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
    start, before = restore(name, network, method, optimizer, folder)
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
    due = Due(recipe.machine, start, fabric)
    network.train()
    method.train()
    with track(name, steps, "steps", start, work=images_a_step(recipe.method, recipe)) as advance:
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
            if due(step + 1) and step + 1 < steps:
                watch.read(step)
                seconds = before + time.perf_counter() - begin
                average_buffers(network, fabric)
                state = state_of(network, method, optimizer)
                folder.keep(folder.candidate, state, stage=name, step=step + 1, seconds=round(seconds, 2))
                unproven = True
                due.kept(step + 1)
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
