"""What `biwaa evaluate` and `biwaa predict` do: they need a run folder and images, nothing else.

Images stream through: what is held in memory does not grow with their number.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biwaa.device import open_fabric
from biwaa.domains.domain import match_classes
from biwaa.domains.images import SUFFIXES, FileImages, Images
from biwaa.domains.pixels import decode_batches, readable
from biwaa.domains.sources import images_below
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.evaluation.calibration import with_temperature
from biwaa.evaluation.metrics import accuracies, accuracy_by_class
from biwaa.evaluation.predict import average_views
from biwaa.files import replacing
from biwaa.models.saved import SavedModel, load_model
from biwaa.progress import say, track


def stream_predictions(
    model: SavedModel, images: Images, device: str, batch_size: int, what: str
) -> Iterator[tuple[Tensor, dict[int, str]]]:
    """Probabilities (B, K) batch by batch, with the batch's unreadable rows (numbered over the whole)."""
    fabric = open_fabric(device)
    network = model.network.to(fabric.device).to(memory_format=torch.channels_last)
    done = 0
    with track(what, len(images), "images") as advance, torch.inference_mode():
        for pixels, bad in decode_batches(images, model.transform.resize, batch_size):
            views = model.transform.views(torch.from_numpy(pixels).to(fabric.device))
            predicted = average_views(network, model.transform.normalise(views))
            yield with_temperature(predicted.probabilities, model.temperature), bad
            done += len(pixels)
            advance(done)


def evaluate_run(
    run: Path, spec: str, device: str, batch_size: int, skip_unreadable: bool, data_root: Path | None = None
) -> dict[str, Any]:
    """Accuracy of a run's model on a labelled domain, over images, over classes and by class.

    Raises:
        BiwaaError: no model, no labels, other classes, or unreadable images that may not be skipped.
    """
    model = load_model(run)
    domain = match_classes(open_domain(spec, data_root), model.classes, other=f"the model of {run}", subset=True)
    if domain.labels is None:
        raise BiwaaError(f"{spec} has no labels to score against: `biwaa predict` predicts without.")
    parts: list[Tensor] = []
    unreadable: dict[int, str] = {}
    for probabilities, bad in stream_predictions(model, domain.images, device, batch_size, f"evaluating {spec}"):
        parts.append(probabilities)
        unreadable |= bad
    kept, rows = readable(domain, unreadable, skip_unreadable)
    if not len(rows):
        raise BiwaaError(f"no image of {spec} can be read.")
    assert kept.labels is not None  # checked above
    every = torch.cat(parts)[torch.from_numpy(rows)]
    shares = accuracy_by_class(every.argmax(dim=1).numpy(), kept.labels, len(model.classes))
    return {
        "run": str(run),
        "domain": spec,
        "images": len(rows),
        "left_out": len(unreadable),
        "views_an_image": model.transform.crops,
        "accuracy": accuracies(every, kept.labels),
        "by_class": {
            name: None if np.isnan(share) else round(float(share), 6)
            for name, share in zip(model.classes, shares, strict=True)
        },
    }


def predict_paths(run: Path, paths: tuple[str, ...], out: Path, device: str, batch_size: int) -> tuple[int, int]:
    """Write predictions of images as CSV; an unreadable image has an empty label and says why on standard error.

    Returns:
        How many rows were predicted, and how many images could not be read.

    Raises:
        BiwaaError: no model, or a path that is neither an image nor a domain.
    """
    model = load_model(run)
    if out.is_dir():
        raise BiwaaError(f"{out} is a folder: name the CSV file to write.")
    if not paths:
        raise BiwaaError("name at least one image or folder to predict.")
    written = unreadable = 0
    with replacing(out) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "confidence"])
        for path in paths:
            images = images_of(path)
            names = images.names
            first = 0
            for probabilities, bad in stream_predictions(model, images, device, batch_size, f"predicting {path}"):
                confidence, label = probabilities.max(dim=1)
                for offset in range(len(probabilities)):
                    row = first + offset
                    if row in bad:
                        unreadable += 1
                        say(f"unreadable: {names[row]} ({bad[row]})")
                        writer.writerow([names[row], "", ""])
                        continue
                    written += 1
                    writer.writerow([names[row], model.classes[label[offset]], f"{confidence[offset]:.4f}"])
                first += len(probabilities)
    return written, unreadable


def images_of(path: str) -> Images:
    """An image, those in a folder, or those of a SPEC.

    Raises:
        BiwaaError: there is none.
    """
    file = Path(path).expanduser()
    if file.is_file() and file.suffix.lower() in SUFFIXES:
        return FileImages((file,))
    if file.is_dir():
        found = images_below(file)
        if not found:
            raise BiwaaError(f"no images in {path} (looked for {', '.join(sorted(SUFFIXES))}).")
        return FileImages(tuple(found))
    return open_domain(path).images
