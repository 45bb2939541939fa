"""`biwaa evaluate`: accuracy of a run's model on labelled images."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from biwaa.checks import not_below
from biwaa.domains.domain import drop_unreadable, match_classes
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.inference.classifier import stream_predictions
from biwaa.judging.metrics import accuracies, accuracy_by_class
from biwaa.models.saved import load_model
from biwaa.progress import track


def evaluate_run(
    run: Path, spec: str, device: str, batch_size: int, skip_unreadable: bool, data_root: Path | None = None
) -> dict[str, Any]:
    """Accuracy of a run's model on a labelled domain, over images, over classes and by class.

    Raises:
        BiwaaError: no model, no labels, classes that the model does not have, or unreadable images without
            `skip_unreadable`.
    """
    not_below(1, batch_size=batch_size)
    model = load_model(run)
    domain = match_classes(open_domain(spec, data_root), model.classes, other=f"the model of {run}", subset=True)
    if domain.labels is None:
        raise BiwaaError(f"{spec} has no labels to score against: use `biwaa predict`.")
    parts: list[Tensor] = []
    unreadable: dict[int, str] = {}
    done = 0
    with track(f"evaluating {spec}", len(domain.images), "images") as advance:
        for probabilities, bad in stream_predictions(model, domain.images, device, batch_size):
            parts.append(probabilities)
            unreadable |= bad
            done += len(probabilities)
            advance(done)
    readable, rows = drop_unreadable(domain, unreadable, skip_unreadable)
    if not len(rows):
        raise BiwaaError(f"no image of {spec} can be read: check its files.")
    assert readable.labels is not None  # checked above
    every = torch.cat(parts)[torch.from_numpy(rows)]
    shares = accuracy_by_class(every.argmax(dim=1).numpy(), readable.labels, len(model.classes))
    return {
        "run": str(run),
        "domain": spec,
        "images": len(rows),
        "left_out": len(unreadable),
        "views_an_image": model.transform.crops,
        "accuracy": msgspec.to_builtins(accuracies(every, readable.labels)),
        "by_class": {
            name: None if np.isnan(share) else round(float(share), 6)
            for name, share in zip(model.classes, shares, strict=True)
        },
    }
