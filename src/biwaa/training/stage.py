"""One stage: training from scratch, prediction, and the evidence that it is judged by later, kept in one file.

A finished stage is never trained again.
"""

import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.device import few_threads
from biwaa.errors import BiwaaError
from biwaa.functional import neighbours_of_a_class
from biwaa.images.batches import FeatureInputs
from biwaa.inference.predict import predict
from biwaa.judging.evidence import Evidence, evidence_of
from biwaa.judging.second_opinion import classes_by_confusion
from biwaa.methods import METHODS
from biwaa.methods.method import Method, Task
from biwaa.models.network import Network
from biwaa.progress import say, was_done
from biwaa.recipe import Recipe
from biwaa.result import TEACHER
from biwaa.solvers.logistic import Head
from biwaa.solvers.taught import distilled
from biwaa.tensors import load_tensors
from biwaa.training.cost import stage_images
from biwaa.training.data import Data
from biwaa.training.fit import StagePlan, fit
from biwaa.training.folder import RunFolder
from biwaa.training.gather import gather
from biwaa.training.prepare import Prepared


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished stage; its network's parameters stay in its file."""

    name: str
    evidence: Evidence  # What it can be judged by without target labels, its predictions first
    neighbours: Tensor | None = None
    """(N, M) each target image's nearest neighbours in the backbone's features, where a teacher asks for them."""
    pseudo_labels: Tensor | None = None
    """(K,) target images of each class by the predictions that this stage learned from; None where it had none."""
    standing: Tensor | None = None
    """(3, J) what each of several sources is worth, as of `solvers.several.Standing`."""
    held_out: Tensor | None = None  # (M, K) what it predicts of the held-out target images, where there are any
    absent: Tensor | None = None  # (K,) whether a class was left out of the adaptation; None where none was
    seconds: float
    """Training and prediction, summed over all sittings since the last checkpoint of an interrupted stage."""
    fresh: bool  # Trained in this sitting, not found finished

    @property
    def probabilities(self) -> Tensor:
        """(N, K) what it predicts of the target, on the CPU."""
        return self.evidence.probabilities


ROWS = 4096
"""Features at a time that a solved head predicts."""


def train_stage(plan: StagePlan, prepared: Prepared, fabric: Fabric, folder: RunFolder) -> Trained:
    """Train a stage and keep it, or load it where it is finished already.

    Raises:
        BiwaaError: as of `fit`, or a file in its place is not of this run.
    """
    if folder.stage(plan.name).exists():
        say(f"{plan.name} is finished already")
        was_done(stage_images(plan.name, plan.recipe))
        return load_stage(folder, plan.name)
    data = prepared.data
    network = prepared.fresh_network(plan.seed)
    torch.manual_seed(plan.seed + 1)
    method = build_method(plan, data)
    begin = time.perf_counter()
    before = 0.0
    what, size = f"{plan.name}: predicting", plan.recipe.data.batch_size
    solved = method.solved(plan.recipe.network.frozen)
    # Source-only stays what there is without adaptation.
    seen = data.joined() if method.sees_target and not method.labelled else data
    own: Tensor | None = None
    left_out: Tensor | None = None
    extra: dict[str, Tensor] = {}
    if plan.name == TEACHER:
        own, size = ask_teacher(network, data, plan.recipe, fabric), ROWS
    elif solved:
        head, size = solve(network, method, seen, fabric), ROWS
        left_out = head.left_out if head.left_out is None else head.left_out.cpu()
        own = None if method.said is None else method.said.cpu()
        if head.absent is not None:
            extra["absent"] = head.absent.cpu()
    else:
        before = fit(plan, network, method, seen, fabric, folder)
        begin = time.perf_counter()
    target = predict(network, data.target, size, fabric, what, pooled=plan.find_neighbours)
    widths = [part.features for part in prepared.backbone.parts]
    evidence = gather(network, data, target, size, fabric, what, solved or own is not None, left_out, widths)
    if not solved and not method.sees_target and own is None:  # source-only, trained whole
        evidence = replace(evidence, second_opinion=classes_by_confusion(evidence))
    if own is not None:  # it is judged by its own words on the target, and its student stands for it elsewhere
        evidence = replace(evidence, probabilities=own)
    if plan.previous is not None:
        extra["pseudo_labels"] = plan.previous.argmax(dim=1).bincount(minlength=data.classes)
    if plan.find_neighbours:
        extra["neighbours"] = neighbours_of_a_class(target.pooled, plan.recipe.schedule.neighbours, data.classes)
    if prepared.held_out_inputs and plan.name != TEACHER:
        held_out = predict(network, prepared.held_out_inputs, size, fabric, f"{what} held-out images")
        extra["held_out"] = held_out.probabilities
    if method.standing:
        extra["standing"] = torch.stack(method.standing).cpu()
    seconds = round(before + time.perf_counter() - begin, 2)
    known = {key: part for key, part in vars(evidence).items() if isinstance(part, Tensor)}
    folder.keep(folder.stage(plan.name), network.state_dict() | known | extra, stage=plan.name, seconds=seconds)
    folder.drop(folder.unfinished, folder.candidate)
    fabric.barrier()  # no process may read what another has not yet written
    return Trained(name=plan.name, evidence=evidence, seconds=seconds, fresh=True, **extra)


def solve(network: Network, method: Method, data: Data, fabric: Fabric) -> Head:
    """Give the network the head that the method finds on frozen features."""
    with few_threads(len(data.source) + len(data.target)):
        head = method.solve(*_rows(data, fabric))
    network.to(fabric.device).install(head)
    return head


def ask_teacher(network: Network, data: Data, recipe: Recipe, fabric: Fabric) -> Tensor:
    """(N, K) what the teacher says of the target, on the CPU; the network gets a head that says the same."""
    assert data.teacher is not None  # the stage is planned for a teacher alone
    teacher = data.teacher.to(fabric.device)
    with few_threads(len(data.source) + len(data.target)):
        _, labels, target = _rows(data, fabric)
        found, head = distilled(labels, target, data.classes, teacher, recipe.schedule.neighbours)
    network.to(fabric.device).install(head)
    return found.cpu()


def _rows(data: Data, fabric: Fabric) -> tuple[Tensor, Tensor, Tensor]:
    """Frozen features of the source, its labels, features of the target."""
    source, target = (
        inputs.features if isinstance(inputs, FeatureInputs) else inputs.batch(np.arange(len(inputs)))  # no copy
        for inputs in (data.source, data.target)
    )
    source, target = source.float(), target.float()
    return source, torch.from_numpy(data.source_labels).to(fabric.device), target


def build_method(plan: StagePlan, data: Data) -> Method:
    """The recipe's method with its own groups of settings."""
    recipe, kind = plan.recipe, METHODS[plan.recipe.method]
    task = Task(
        recipe.network.bottleneck, data.classes, len(data.target), recipe.schedule.steps, plan.previous, data.teacher,
        None if data.given is None else torch.from_numpy(data.given),
        data.memory,
        None if data.origins is None else torch.from_numpy(data.origins),
    )  # fmt: skip
    return kind(task, *(getattr(recipe, group) for group in kind.groups))


BESIDE = {
    *(field.name for field in fields(Evidence)), "neighbours", "pseudo_labels", "held_out", "standing", "absent",
}  # fmt: skip
"""Tensors in a stage's file that are not of its network."""


def load_stage(folder: RunFolder, name: str) -> Trained:
    """A finished stage as its file has it.

    Raises:
        BiwaaError: the file is not that of a finished stage.
    """
    state, seconds = _beside(folder.stage(name), BESIDE)
    evidence = evidence_of(state)  # takes its own tensors out; the others are fields of Trained
    return Trained(name=name, evidence=evidence, seconds=seconds, fresh=False, **state)


def load_sample(folder: RunFolder, name: str) -> tuple[Evidence, Tensor]:
    """What a finished stage keeps of a sample of the target, and (M,) which images these are.

    It is evidence on M target images, however many the run has, without mixed pairs.

    Raises:
        BiwaaError: as of `load_stage`.
    """
    path = folder.stage(name)
    state, _ = _beside(path, BESIDE - {"mixed", "pairs", "neighbours"}, {"probabilities": "rows"})
    rows = state.pop("rows", None)
    evidence = evidence_of(state)
    return evidence, torch.arange(len(evidence.probabilities)) if rows is None else rows


def _beside(path: Path, names: set[str], rows_of: dict[str, str] | None = None) -> tuple[dict[str, Tensor], float]:
    state, facts = load_tensors(path, only=names, rows_of=rows_of)
    if "probabilities" not in state or not isinstance(facts.get("seconds"), int | float):
        raise BiwaaError(f"{path} is no finished stage of this run: remove it and resume.")
    return state, facts["seconds"]


def load_network_state(folder: RunFolder, name: str) -> dict[str, Tensor]:
    """The parameters and buffers of a finished stage's network."""
    return load_tensors(folder.stage(name), without=BESIDE)[0]
