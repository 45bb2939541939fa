"""Life after the run: a finished model on a new folder without labels.

- the run's own readings on the new images, with its target beside them; a model file alone has confidence only
- whether the images moved away from the target, and which classes' shares did
- memory: the names, and outputs of a sample of `SAMPLE` images, old and new; the others are counted and passed
  through
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor, nn

from biwaa.checks import not_below
from biwaa.domains.domain import Domain, drop_unreadable, tell_passed_over
from biwaa.errors import BiwaaError
from biwaa.files import local
from biwaa.inference.classifier import stream_outputs
from biwaa.inference.predict import Predicted
from biwaa.judging.evidence import SAMPLE, Evidence, sample_rows
from biwaa.judging.label_shift import total_variation
from biwaa.judging.later import Outputs, combine, later_estimates, moved_classes
from biwaa.judging.likeness import likeness_of, unfamiliar
from biwaa.judging.warnings import LIKENESS
from biwaa.methods import METHODS
from biwaa.methods import SOURCE_ONLY as SOURCE_ONLY_METHOD
from biwaa.models.network import Network
from biwaa.models.place import Look
from biwaa.models.saved import SavedModel, load_model
from biwaa.progress import track
from biwaa.result import SOURCE_ONLY, Estimate, Result, read_result
from biwaa.training.folder import RunFolder
from biwaa.training.stage import load_network_state, load_sample

FEWEST = 50
"""Images below which no interval is given: errors were not measured."""
Withheld = Literal["moved", "moved_far", "run_in_doubt", "no_class", "unfamiliar"]


class ClassShare(Struct, frozen=True, kw_only=True):
    """A class's share of the predictions, in [0, 1]."""

    before: float | None
    """In the run's target; None where it is not known."""
    now: float
    moved: bool | None
    """Whether they differ by more than chance; None where `before` is not known."""


class Later(Struct, frozen=True, kw_only=True):
    """What can be said of a model on new images without labels."""

    run: str
    spec: str
    images: int
    left_out: int
    """Unreadable images, which are not among `images`."""
    estimated_accuracy: Estimate
    """Its value is null where `withheld` says why, its interval where errors were not measured."""
    withheld: Withheld | None
    """moved: without an interval nothing is said of another place; moved_far: farther than errors were measured;
    run_in_doubt: the run's own warnings contradict, or it has no estimate; no_class: most images seem to be of no class
    of the source; unfamiliar: the place has not moved, but many images look like none of the target's."""
    estimate_of_the_run: float | None
    """Of its own target; None of a model file alone."""
    moved: bool | None
    """Whether the images look like another place's; None where that is not known."""
    shift: float | None
    """How far their mean lies from the target's around the classes, in shares of the spread within classes."""
    shift_limit: float | None
    """What is let pass of it, for as many images."""
    unfamiliar: float | None
    """Share of the images that look like none of the run's target; None where that is not known."""
    unfamiliar_limit: float | None
    """What is let pass of it, for as many images."""
    shares_moved_by: float | None
    """Total variation between the predicted shares now and in the run."""
    classes: dict[str, ClassShare]
    adapt_again: bool | None
    """Whether adapting to these images promises more accuracy: they moved, and are of the source's classes. None where
    that is not known."""
    updated: str | None = None
    """The folder of a new run that was adapted to these images, where that was asked for."""


@dataclass(frozen=True, eq=False)
class _Known:
    """What a run folder adds to its model; of a model file alone nothing is known."""

    result: Result | None = None
    solved: bool = False
    selected: Evidence | None = None
    baseline: Evidence | None = None
    head: Network | None = None  # Source-only's, on the backbone's standardised features


def estimate_later(
    run: Path, domain: Domain, device: str = "auto", batch_size: int = 32, skip_unreadable: bool = False
) -> Later:
    """What can be said of a run's model on new images; their labels, if there are any, are not looked at.

    Args:
        run: a run folder, or a model.safetensors alone.
        domain: the new images.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        skip_unreadable: leave out images that cannot be decoded.

    Raises:
        BiwaaError: no model, images of another kind than the model's, or unreadable images without `skip_unreadable`.
    """
    not_below(1, batch_size=batch_size)
    model = load_model(run)
    result = run_result(run)
    known = _known(run, model, result) if result else _Known()
    tell_passed_over(domain)
    look, counts = Look(model.place), np.zeros(len(model.classes), dtype=np.int64)
    sampled = np.zeros(len(domain.images), dtype=np.bool_)
    sampled[sample_rows(len(domain.images), SAMPLE).numpy()] = True
    kept: list[Predicted] = []
    unreadable: dict[int, str] = {}
    first = 0
    with track(f"estimating {domain.spec}", len(domain.images), "images") as advance:
        for predicted, bad in stream_outputs(model, domain.images, device, batch_size, pooled=known.head is not None):
            rows = np.arange(first, first + len(predicted.probabilities))
            readable = ~np.isin(rows, list(bad))
            classes = predicted.probabilities[readable].argmax(dim=1)
            look.add(predicted.features[readable], classes)
            counts += classes.bincount(minlength=len(counts)).numpy()
            kept.append(Predicted(*(part[readable & sampled[rows]] for part in predicted)))
            unreadable |= bad
            first += len(rows)
            advance(first)
    if len(unreadable) == len(domain.images):
        raise BiwaaError(f"no image of {domain.spec} can be read: check its files.")
    drop_unreadable(domain, unreadable, skip_unreadable)
    seen = Predicted(*(torch.cat(parts) for parts in zip(*kept, strict=True)))
    new, of_baseline = Outputs(seen.probabilities, seen.features), _of_baseline(known, seen.pooled)
    like, strange = None, None
    if known.baseline and of_baseline:
        like, strange = (
            likeness_of(known.baseline, of_baseline.features),
            unfamiliar(known.baseline, of_baseline.features),
        )
    # Images of one or two classes are unlike the classes too, but they have not moved.
    no_class = bool(look.unlike) and like is not None and like < LIKENESS
    aside = strange is not None and strange.clear
    if known.result and _same_images(new.features, known.selected):
        estimate, withheld = _of_the_run(known.result)
    else:
        readings = later_estimates(new, model.temperature, known.selected, known.baseline, of_baseline)
        estimate, withheld = _estimate(readings, len(new.probabilities), known, look, no_class, aside)
    before = _before(model, known)
    shift, shift_limit = look.shift or (None, None)
    return Later(
        run=str(run),
        spec=domain.spec,
        images=first - len(unreadable),
        left_out=len(unreadable),
        estimated_accuracy=estimate,
        withheld=withheld,
        estimate_of_the_run=known.result.estimated_accuracy.value if known.result else None,
        moved=look.unlike,
        shift=_rounded(shift),
        shift_limit=_rounded(shift_limit),
        unfamiliar=_rounded(strange and strange.share),
        unfamiliar_limit=_rounded(strange and strange.limit),
        shares_moved_by=None if before is None else total_variation(_shares(before), _shares(counts)),
        classes=_classes(model.classes, before, counts),
        adapt_again=False if no_class else look.unlike,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def run_result(run: Path) -> Result | None:
    """What result.json says; None of a model file alone.

    Raises:
        BiwaaError: it is damaged, or of another version.
    """
    run = local(run)
    return read_result(run) if (run / "result.json").is_file() else None


def _known(run: Path, model: SavedModel, result: Result) -> _Known:
    """What the run folder kept, as far as its stages are still there."""
    folder = RunFolder(local(run))
    if result.classes != model.classes:
        raise BiwaaError(f"{run} has a model and a result.json of different classes: it is not one run.")
    solved = METHODS[result.method].solved(result.model.frozen)

    def evidence(name: str) -> Evidence | None:
        return load_sample(folder, name)[0] if folder.stage(name).is_file() else None

    selected = evidence(result.model.stage)
    plain = result.model.stage if result.method == SOURCE_ONLY_METHOD else SOURCE_ONLY
    baseline = evidence(plain) if solved else None
    width = model.network.classifier.in_features
    if selected is not None and selected.features is not None and selected.features.shape[1] != width:
        raise BiwaaError(
            f"{folder.stage(result.model.stage)} is not of this run's model: its features are of other width."
        )
    head = None if baseline is None else _head(folder, plain, len(model.classes))
    return _Known(result, solved, selected, baseline, head)


def _head(folder: RunFolder, stage: str, classes: int) -> Network:
    """A stage's bottleneck and classifier, which take features of the frozen backbone."""
    state = load_network_state(folder, stage)
    try:
        bottleneck = len(state["bottleneck.bias"]) if "bottleneck.bias" in state else None
        inputs = state["bottleneck.weight" if bottleneck else "classifier.weight"].shape[1]
        head = Network(nn.Identity(), inputs, bottleneck, classes)
        head.load_state_dict(state)
    except (KeyError, IndexError, RuntimeError):
        raise BiwaaError(f"{folder.stage(stage)} is no finished stage of this run: remove it and resume.") from None
    return head.eval()


def _of_baseline(known: _Known, pooled: Tensor) -> Outputs | None:
    """What source-only says of (n, F) features; None where it is not known."""
    if known.head is None:
        return None
    with torch.no_grad():
        output = known.head.head(pooled)
    return Outputs(output.logits.softmax(dim=1), output.features)


def _same_images(features: Tensor, selected: Evidence | None) -> bool:
    """Whether the model sees its run's own target, or the same sample of it."""
    old = selected.features if selected else None
    return old is not None and old.shape == features.shape and torch.allclose(features, old.float(), 1e-3, 1e-3)


def _of_the_run(result: Result) -> tuple[Estimate, Withheld | None]:
    """The run's own estimate, which has more readings."""
    return result.estimated_accuracy, "run_in_doubt" if result.estimated_accuracy.value is None else None


def _estimate(
    readings: dict[str, float], images: int, known: _Known, look: Look, no_class: bool, aside: bool
) -> tuple[Estimate, Withheld | None]:
    """The estimate, without its value where that is not to be trusted, and why."""
    if known.result is None:
        rounded = {name: round(value, 6) for name, value in readings.items()}
        found = Estimate(value=rounded["confidence"], readings=rounded)
    else:
        found = combine(readings, images, known.solved)
        if images < FEWEST:
            found = replace(found, low=None, high=None, lower_bound=None)
    why: Withheld | None = None
    if known.result and known.result.estimated_accuracy.value is None:
        why = "run_in_doubt"
    elif no_class:
        why = "no_class"
    elif look.far:
        why = "moved_far"
    elif look.unlike and found.lower_bound is None:
        why = "moved"
    elif aside and not look.unlike:  # errors were measured with other places, and not with images of other classes
        why = "unfamiliar"
    return (Estimate(readings=found.readings), why) if why else (found, None)


def _before(model: SavedModel, known: _Known) -> NDArray[np.int64] | None:
    """(K,) target images by predicted class, as the run or the model file has them."""
    if known.result:
        of = known.result.selected.predicted_shares
        return np.array([round(of[name] * known.result.target.images) for name in model.classes], dtype=np.int64)
    return None if model.place is None else model.place.counts.round().to(torch.int64).numpy()


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _classes(names: tuple[str, ...], before: NDArray[np.int64] | None, now: NDArray[np.int64]) -> dict[str, ClassShare]:
    then: list[float | None] = [None] * len(names) if before is None else _shares(before).round(6).tolist()
    moved: list[bool | None] = [None] * len(names) if before is None else moved_classes(before, now).tolist()
    rows = zip(names, then, _shares(now).round(6).tolist(), moved, strict=True)
    return {name: ClassShare(before=share, now=here, moved=beyond) for name, share, here, beyond in rows}
