"""The legs of a run: source-only first, then rounds that each start afresh from what all before them predicted.

Iterative label distribution alignment (WACV 2023, section 3.3) is a property of the rounds, not of a method.
This file and all below it are given the target's images alone: labels cannot reach training.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.domains.inputs import Data, Inputs
from biwaa.errors import BiwaaError
from biwaa.evaluation.evidence import Evidence, evidence_of
from biwaa.evaluation.gather import gather
from biwaa.evaluation.neighbours import neighbours_of_a_class
from biwaa.evaluation.predict import predict
from biwaa.functional import align_distribution, average_rounds, smooth_over_neighbours
from biwaa.methods import method_named
from biwaa.models.network import Network
from biwaa.progress import say
from biwaa.recipe import Recipe
from biwaa.tensors import load_tensors
from biwaa.training.folder import RunFolder
from biwaa.training.leg import train_leg

BASELINE = "source-only"


@dataclass(frozen=True)
class Trained:
    """A finished leg."""

    name: str
    state: dict[str, Tensor]
    """The network's parameters and buffers."""
    probabilities: Tensor
    """(N, K) what it predicts of the target, on the CPU."""
    average: Tensor | None
    """(N, K) the weighted average over the rounds up to this one; None for the baseline."""
    evidence: Evidence
    """What it can be judged by without target labels."""
    neighbours: Tensor | None
    """(N, M) each target image's nearest neighbours in the backbone's features, where a teacher asks for them."""
    pseudo_labels: Tensor | None
    """(K,) target images of each class by what earlier rounds taught this one; None where nothing was taught."""
    fresh: bool
    """Trained in this sitting, not found finished."""
    held_out: Tensor | None
    """(M, K) what it predicts of the held-out target images, where there are any."""
    seconds: float
    """Training and prediction, summed over all sittings since the last checkpoint of an interrupted leg."""
    compiled: dict[str, Any] | None
    """Seconds to compile in its last sitting, or why that failed, as of `Compiled`; None where nobody asked for it."""


def train_rounds(
    data: Data,
    fresh_network: Callable[[int], Network],
    recipe: Recipe,
    fabric: Fabric,
    folder: RunFolder,
    held_out: Inputs | None = None,
) -> Iterator[Trained]:
    """Train leg after leg, taking up finished ones from the folder.

    Args:
        data: what to train on.
        fresh_network: a network that starts from the pre-trained backbone, its new layers drawn from a seed.
        recipe: all settings.
        fabric: device and precision.
        folder: takes log and checkpoints.
        held_out: target images to predict beside those that are trained on.

    Yields:
        Every leg once it is finished and kept.
    """
    if recipe.baseline and method_named(recipe.method).sees_target:
        settings = dataclasses.replace(recipe, method="source_only")
        yield _leg(BASELINE, recipe.seed, data, None, fresh_network, settings, fabric, folder, held_out)
    rounds: list[Tensor] = []
    neighbours: list[Tensor] = []
    for number in range(recipe.rounds):
        taught = recipe.iterate and number >= recipe.scouts
        previous = _taught(rounds, neighbours, recipe) if taught else None
        seed = recipe.seed + 100 * number
        # Frozen features are the same in every round, so their neighbours are found once.
        find = teaches(recipe, number) and not (recipe.freeze_backbone and neighbours)
        leg = _leg(f"round {number}", seed, data, previous, fresh_network, recipe, fabric, folder, held_out, find)
        rounds.append(leg.probabilities)
        if teaches(recipe, number):
            neighbours.append(neighbours[0] if leg.neighbours is None else leg.neighbours)
        update = recipe.round_update if recipe.iterate else 0.0  # of independent rounds none is the better informed
        yield dataclasses.replace(leg, average=average_rounds(torch.stack(rounds), update))


def teaches(recipe: Recipe, number: int) -> bool:
    """Whether a teacher of later rounds asks the neighbours of this one."""
    return recipe.teacher and recipe.iterate and max(number + 1, recipe.scouts) < recipe.rounds


def _taught(rounds: list[Tensor], neighbours: list[Tensor], recipe: Recipe) -> Tensor:
    """What earlier rounds say together; as a teacher, agreed with neighbours and drawn to an evener distribution."""
    average = average_rounds(torch.stack(rounds), recipe.round_update)
    if not recipe.teacher:
        return average
    smooth = smooth_over_neighbours(average, torch.cat(neighbours, dim=1))
    return align_distribution(smooth, recipe.distribution_damping)


def _leg(
    name: str, seed: int, data: Data, previous: Tensor | None,
    fresh_network: Callable[[int], Network], recipe: Recipe, fabric: Fabric, folder: RunFolder,
    held_out: Inputs | None, find_neighbours: bool = False,
) -> Trained:  # fmt: skip
    done = folder.leg(name)
    if done.exists():
        say(f"{name} is finished already")
        return load_leg(folder, name)
    network = fresh_network(seed)
    torch.manual_seed(seed + 1)
    method = method_named(recipe.method)(recipe, data.classes, len(data.target), previous)
    training = train_leg(name, seed, network, method, data, previous, recipe, fabric, folder)
    begin = time.perf_counter()
    what, size = f"{name}: predicting", recipe.batch_size
    target = predict(network, data.target, size, fabric, what, pooled=find_neighbours)
    evidence = gather(network, data, target, size, fabric, what)
    extra: dict[str, Tensor] = {}
    if previous is not None:
        extra["pseudo_labels"] = previous.argmax(dim=1).bincount(minlength=data.classes)
    if find_neighbours:
        extra["neighbours"] = neighbours_of_a_class(target.pooled, recipe.neighbours, data.classes)
    if held_out:
        extra["held_out"] = predict(network, held_out, size, fabric, f"{what} held-out images").probabilities
    seconds = round(training.seconds + time.perf_counter() - begin, 2)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    known = {key: part for key, part in vars(evidence).items() if isinstance(part, Tensor)}
    compiled = training.compiled._asdict() if training.compiled else None
    folder.keep(done, state | known | extra, leg=name, seconds=seconds, compiled=compiled)
    folder.drop(folder.unfinished, folder.candidate)
    fabric.barrier()  # no process may look for what another has not yet written, or removed
    return Trained(
        name, state, target.probabilities, None, evidence, extra.get("neighbours"), extra.get("pseudo_labels"), True,
        extra.get("held_out"), seconds, compiled,
    )  # fmt: skip


def load_evidence(folder: RunFolder, name: str) -> Evidence:
    """What a finished leg's file holds to judge it by; its network stays on the disk."""
    return evidence_of(load_tensors(folder.leg(name), [field.name for field in dataclasses.fields(Evidence)])[0])


def load_leg(folder: RunFolder, name: str) -> Trained:
    """A finished leg as its file has it; the average over rounds is not in it."""
    state, facts = load_tensors(folder.leg(name))
    if "probabilities" not in state or not isinstance(facts.get("seconds"), int | float):
        raise BiwaaError(f"{folder.leg(name)} is no finished round of this run: remove it and resume.")
    kept, neighbours, taught = (state.pop(key, None) for key in ("held_out", "neighbours", "pseudo_labels"))
    evidence = evidence_of(state)
    return Trained(
        name, state, evidence.probabilities, None, evidence, neighbours, taught, False, kept, facts["seconds"],
        facts.get("compiled"),
    )  # fmt: skip
