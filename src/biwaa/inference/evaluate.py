"""`biwaa evaluate`: accuracy of a run's model on labelled images."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from biwaa.checks import not_below
from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain, drop_unreadable, tell_passed_over
from biwaa.domains.labels import MISSING, UNKNOWN
from biwaa.errors import BiwaaError
from biwaa.evaluations import Evaluation, keep_evaluation, model_digest
from biwaa.files import expanded
from biwaa.images.images import FileImages
from biwaa.inference.classifier import stream_predictions, tell_unlike
from biwaa.judging.metrics import accuracies, accuracy_by_class
from biwaa.models.place import Look
from biwaa.models.saved import DomainName, load_model
from biwaa.predictions import read_rows
from biwaa.progress import say, track
from biwaa.result import Result, read_result


def evaluate_run(
    run: Path,
    labelled: Domain,
    device: str,
    batch_size: int,
    skip_unreadable: bool,
    place: DomainName = "target",
) -> tuple[Evaluation, Result | None]:
    """Accuracy of a run's model on a labelled domain, over images, over classes and by class; the run folder keeps it.

    Args:
        run: a run folder, or a model.safetensors alone, beside which nothing is kept.
        labelled: the images; classes are matched by name.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        skip_unreadable: leave out images that cannot be decoded.
        place: where the images are from: source for the place that the model learned from.

    Returns:
        The figures, and what the run's result.json says; None of a model alone.

    Raises:
        BiwaaError: no model, no labels, classes that the model does not have, or unreadable images without
            `skip_unreadable`.
    """
    not_below(1, batch_size=batch_size)
    model = load_model(run).for_domain(place)
    look = Look(model.place)
    result = _result(run)
    others = model.classes[-1] == UNKNOWN
    domain, spec = match_classes(labelled, model.classes, f"the model of {run}", others), labelled.spec
    if domain.labels is None:
        raise BiwaaError(f"{spec} has no labels to score against: use `biwaa predict`.")
    domain, trained_on = _without_trained_on(domain, run, result)
    tell_passed_over(domain)
    parts: list[Tensor] = []
    unreadable: dict[int, str] = {}
    done = 0
    with track(f"evaluating {spec}", len(domain.images), "images") as advance:
        for probabilities, bad in stream_predictions(model, domain.images, device, batch_size, look):
            parts.append(probabilities)
            unreadable |= bad
            done += len(probabilities)
            advance(done)
    readable, rows = drop_unreadable(domain, unreadable, skip_unreadable)
    if not len(rows):
        raise BiwaaError(f"no image of {spec} can be read: check its files.")
    unlabelled = readable.unlabelled()
    if readable.labels is None or len(unlabelled) == len(rows):
        raise BiwaaError(f"no image of {spec} that can be read has a label to score against: use `biwaa predict`.")
    tell_unlike(model, look)
    every = torch.cat(parts)[torch.from_numpy(rows)]
    shares = accuracy_by_class(every.argmax(dim=1).numpy(), readable.labels, len(model.classes))
    labels = readable.labels[readable.labels != MISSING]
    counts = np.bincount(labels, minlength=len(model.classes))
    found = Evaluation(
        spec=spec,
        images=len(rows) - len(unlabelled),
        left_out=len(unreadable),
        unlabelled=len(unlabelled),
        trained_on=trained_on,
        looks_like_the_target=None if look.unlike is None else not look.unlike,
        accuracy=accuracies(every, readable.labels),
        by_class={
            name: None if np.isnan(share) else round(float(share), 6)
            for name, share in zip(model.classes, shares, strict=True)
        },
        images_by_class=dict(zip(model.classes, counts.tolist(), strict=True)),
        of_source=place == "source" or (result is not None and of_source(domain, result)),
        model=model_digest(run) if run.is_dir() else "",
    )
    if result:
        try:
            keep_evaluation(run, found)
        except OSError as error:  # somebody else's run: its figure is worth having all the same
            say(f"warning: {run} cannot keep this figure ({error.strerror or error}), so its report will not have it")
    return found, result


def _without_trained_on(domain: Domain, run: Path, result: Result | None) -> tuple[Domain, int]:
    """The images whose labels the model was not trained on, and how many others there are.

    Raises:
        BiwaaError: it was trained on all of them.
    """
    if result is None or not result.target.labels_given:
        return domain, 0
    names = [row["path"] for row in read_rows(run / "target_labels.csv")]
    if isinstance(domain.images, FileImages):
        known = {os.path.realpath(name) for name in names}
        seen = np.array([os.path.realpath(path) in known for path in domain.images.paths])
    elif domain.images.fingerprint() == result.fingerprints.get("target_images"):
        seen = np.isin(np.array(domain.images.names), names)
    else:
        return domain, 0
    if seen.all():
        raise BiwaaError(f"the model was trained on all labels of {domain.spec}: they say nothing of its accuracy.")
    return domain.select(np.flatnonzero(~seen)), int(seen.sum())


def _result(run: Path) -> Result | None:
    try:
        return read_result(run)
    except BiwaaError:  # a model alone, or a run of an earlier version
        return None


def of_source(domain: Domain, result: Result) -> bool:
    """Whether these are the images that the run was trained on, or some of their folder."""
    if domain.images.fingerprint() == result.fingerprints.get("source_images"):
        return True
    sources = [folder for spec in result.source_specs if (folder := expanded(spec)).is_dir()]
    if not sources or not isinstance(domain.images, FileImages):
        return False
    return all(any(path.is_relative_to(source) for source in sources) for path in domain.images.paths)
