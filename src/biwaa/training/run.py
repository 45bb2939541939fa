"""The whole run: from two domains to a folder with a model, its predictions and what they are worth.

- labels of the target, where there are any, are used after a leg is trained (`result.py`) and never before
- outputs are renewed after every round: whatever happens later, the last finished round's model is there
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from biwaa.device import open_fabric, within_memory
from biwaa.domains.domain import Domain, check_pair, match_classes
from biwaa.domains.images import FeatureRows
from biwaa.errors import BiwaaError, listed
from biwaa.evaluation.calibration import with_temperature
from biwaa.evaluation.choice import check_choice, choose
from biwaa.files import csv_line, write_text
from biwaa.methods import method_named
from biwaa.models.backbone import FEATURES
from biwaa.models.saved import SavedModel, save_model
from biwaa.progress import say
from biwaa.ranks import part, together
from biwaa.recipe import Recipe
from biwaa.training.compiled import forget_compiled
from biwaa.training.folder import Listener, RunFolder, claim, look
from biwaa.training.memory import naming_what_fits
from biwaa.training.prepare import Prepared, prepare
from biwaa.training.result import describe
from biwaa.training.rounds import BASELINE, Trained, load_leg, train_rounds
from biwaa.training.trust import temperature_of


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: RunFolder
    result: dict[str, Any]


def adapt(
    source: Domain,
    target: Domain,
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    held_out: Domain | None = None,
    listeners: Sequence[Listener] = (),
) -> Run:
    """Train on labelled `source` and unlabelled `target`; leave everything in `out`.

    Args:
        source: with labels.
        target: labels, if it has any, are used for reporting alone.
        recipe: all settings.
        out: the run folder.
        resume: go on with an interrupted run of the same recipe and domains.
        overwrite: replace a run that lies there.
        skip_unreadable: leave out images that cannot be decoded instead of stopping.
        held_out: labelled images of the target's place that training gets nothing of; scored beside the others.
        listeners: called with each entry of log.jsonl as it is written.

    Raises:
        BiwaaError: anything the user can mend; see the message.
    """
    if _are_features(source, target, held_out):
        recipe = dataclasses.replace(recipe, backbone=FEATURES, weights="auto", freeze_backbone=True)
    if method_named(recipe.method).frozen and not recipe.freeze_backbone:
        recipe = dataclasses.replace(recipe, freeze_backbone=True)
    check_choice(recipe.choice)
    source, target = check_pair(source, target, recipe.batch_size)
    if held_out:
        held_out = _check_held_out(held_out, source, target)
    task: dict[str, Any] = {
        "source": source.spec,
        "target": target.spec,
        "classes": list(source.classes or ()),
        "source_images": source.images.fingerprint(),
        "target_images": target.images.fingerprint(),
    }
    if held_out:
        task |= {"held_out": held_out.spec, "held_out_images": held_out.images.fingerprint()}
    look(out, recipe, task, resume, overwrite)
    fabric = open_fabric(recipe.device, recipe.precision, recipe.devices, recipe.num_nodes)
    with within_memory("before training", "close other programs, lower --image-size or take a smaller --backbone"):
        prepared = prepare(source, target, recipe, fabric, skip_unreadable, held_out)
    folder = RunFolder(out, fabric.is_global_zero, tuple(listeners))
    with (
        claim(folder, recipe, task, resume, overwrite),
        naming_what_fits(prepared, recipe, fabric),
        together(fabric),
    ):
        fabric.barrier()  # no process may go on before the folder is the run's
        begin = time.perf_counter()
        legs: list[Trained] = []
        if recipe.compile:
            forget_compiled()
        result: dict[str, Any] = {}
        trained = train_rounds(prepared.data, prepared.fresh_network, recipe, fabric, folder, prepared.held_out_inputs)
        for leg in trained:
            if legs:
                legs[-1] = dataclasses.replace(legs[-1], state={})  # the newest leg's parameters are all that is needed
            legs.append(leg)
            # A finished round found again must not put its model in the place of a later one's.
            if folder.writes and leg.name != BASELINE and (leg.fresh or leg.name == f"round {recipe.rounds - 1}"):
                result = _write_outputs(folder, prepared, recipe, legs, time.perf_counter() - begin, fabric.device.type)
                folder.forget_replaced()
        if folder.writes:
            _write_labels(folder, prepared)
        fabric.barrier()  # from here on every process finds the run finished
        part()
    say(f"the model is in {folder.path}")
    return Run(folder, result)


def _are_features(*domains: Domain | None) -> bool:
    """Whether features stand in the place of images; then they must do so everywhere, and be of one width."""
    given = [domain for domain in domains if domain]
    widths = {d.images.array.shape[1] if isinstance(d.images, FeatureRows) else None for d in given}
    if len(widths) > 1:
        said = ", ".join("images" if width is None else f"{width} features a row" for width in widths)
        specs = listed([domain.spec for domain in given])
        raise BiwaaError(f"{specs} differ in kind: {said}. Give images, or features of one width.")
    return None not in widths


def _check_held_out(held_out: Domain, source: Domain, target: Domain) -> Domain:
    """With the source's classes, labelled, and none of the images that are trained on."""
    if held_out.labels is None:
        raise BiwaaError(f"{held_out.spec} has no labels to score against: held-out images need them.")
    for domain in (source, target):
        if held_out.images.identity() & domain.images.identity():
            raise BiwaaError(f"{held_out.spec} shares images with {domain.spec}: held-out images must be others.")
    return match_classes(held_out, source.classes or (), other=source.spec, subset=True)


def _write_outputs(
    folder: RunFolder, prepared: Prepared, recipe: Recipe, legs: list[Trained], seconds: float, device: str
) -> dict[str, Any]:
    classes = prepared.source.classes or ()
    chosen = choose({leg.name: leg.evidence for leg in legs}, recipe.choice)
    handed = next(leg for leg in legs if leg.name == chosen)
    state = handed.state or load_leg(folder, chosen).state
    temperature = temperature_of(handed.evidence)
    network = prepared.whole_network(state)
    save_model(folder.model, SavedModel(network, classes, prepared.transform, prepared.backbone.name, temperature))
    sure = with_temperature(handed.probabilities, temperature)
    write_text(folder.path / "predictions.csv", predictions_table(prepared.target.images.names, sure, classes))
    result = describe(prepared, recipe, legs, chosen, temperature, folder, seconds, device)
    folder.write_json("result.json", result)
    return result


def _write_labels(folder: RunFolder, prepared: Prepared) -> None:
    """The target's labels beside its predictions, for the report, once no leg is left to be trained."""
    path, target = folder.path / "labels.csv", prepared.target
    if target.labels is None:
        path.unlink(missing_ok=True)
        return
    named = zip(target.images.names, [(target.classes or ())[k] for k in target.labels], strict=True)
    write_text(path, csv_line("path", "label") + "".join(csv_line(*row) for row in named))


def predictions_table(names: Sequence[str], probabilities: torch.Tensor, classes: tuple[str, ...]) -> str:
    """CSV text of path, label and confidence (the class's probability, four digits), a row an image."""
    lines = [csv_line("path", "label", "confidence")]
    confidence, label = probabilities.max(dim=1)
    for name, index, value in zip(names, label.tolist(), confidence.tolist(), strict=True):
        lines.append(csv_line(name, classes[index], f"{value:.4f}"))
    return "".join(lines)
