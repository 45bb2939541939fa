"""A model as a source: its classes, its frozen backbone, and what it remembers of the images that it was trained on."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biwaa.domains.classes import match_classes
from biwaa.domains.labels import UNKNOWN, LabelKind
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError, printable
from biwaa.files import local
from biwaa.images.augment import Transform
from biwaa.images.images import feature_width
from biwaa.models.auto_backbone import AUTO
from biwaa.models.backbone import FEATURES, Backbone, canonical, features_backbone
from biwaa.models.network import Network, Standardise, linear_head
from biwaa.models.saved import load_model
from biwaa.models.side_by_side import several
from biwaa.solvers.logistic import Head
from biwaa.solvers.remembered import Memory


@dataclass(frozen=True, eq=False)
class KnownSource:
    """What stands in the place of a source's images."""

    spec: str
    classes: tuple[str, ...]
    label_kind: LabelKind
    backbone: Backbone
    """With its weights."""
    transform: Transform
    memory: Memory | None
    """Statistics of the source; None for a model that has none, whose head alone is known."""
    head: Head
    """The model's own, on the backbone's features as they are."""
    fingerprint: str
    """SHA-256 of the model's file."""
    standardise: Standardise | None = None
    """Of the source's own features, where the model has it."""
    outputs: Tensor | None = None
    """(M,) the class of each of the head's rows, where a class has several of them; None: one each."""
    named: tuple[str, ...] = ()
    """The class of each output that the whole classifier has, empty where it is none of the classes."""

    def lesson(self, standardise: Standardise) -> Memory:
        """What training gets, for target features that were standardised so."""
        if self.memory:
            return self.memory
        deviation = torch.where(standardise.deviation.isfinite(), standardise.deviation, 0.0)
        weight, bias = self.head.weight * deviation, self.head.bias + self.head.weight @ standardise.mean
        return Memory(None, Head(None, weight, bias), self.outputs)


def model_file(given: Any) -> Path | None:
    """The model's file, where a run folder or a file of a model is named; else None."""
    if not isinstance(given, (str, os.PathLike)):
        return None
    try:
        path = local(os.fspath(given))
        file = path / "model.safetensors" if path.is_dir() else path
        return file if file.suffix == ".safetensors" and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no path at all: the form of a SPEC tells what is wrong
        return None


def open_known(spec: str, file: Path) -> KnownSource:
    """A model as a source.

    Raises:
        BiwaaError: the file is not a model that biwaa wrote.
    """
    model = load_model(file)
    statistics, head = model.memory and model.memory.statistics, linear_head(model.network)
    labelled = model.classes[:-1] if model.classes[-1] == UNKNOWN else model.classes
    classes = model.classes[: len(statistics.counts)] if statistics else labelled
    network, width = model.network, model.network.backbone
    if model.backbone == FEATURES:
        backbone = features_backbone(_inputs(network))
    else:
        size = model.transform.image_size
        backbone = Backbone(
            model.backbone, width, _inputs(network), size, model.transform.mean, model.transform.std
        )  # fmt: skip
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return KnownSource(
        spec, classes, model.label_kind, backbone, replace(model.transform, crops=1), model.memory,
        head._replace(weight=head.weight[: len(classes)], bias=head.bias[: len(classes)]), digest,
        model.source,
    )  # fmt: skip


def check_known(known: KnownSource, target: str | None, data_root: Path | None, as_json: bool = False) -> None:
    """Print what a model knows as a source, and make sure that it can be adapted to a target, where one is named.

    Raises:
        BiwaaError: the target has other classes or is of another kind.
    """
    statistics = known.memory.statistics if known.memory else None
    images = int(statistics.counts.sum()) if statistics else None
    what = f"statistics of {images} images" if images else "a head alone"
    facts: list[dict[str, Any]] = [
        {"spec": known.spec, "classes": known.classes, "backbone": known.backbone.name, "statistics_of": images}
    ]
    lines = [f"{known.spec}: a model of {len(known.classes)} classes on {known.backbone.name}, with {what}"]
    if target is not None:
        there = open_domain(target, data_root)
        check_width(known, feature_width(there.images))
        match_classes(there, known.classes, other=known.spec)
        facts.append({"spec": target, "images": len(there.images), "classes": there.counts() or None})
        lines.append(f"{known.spec} can be adapted to {target}")
    print(json.dumps(facts, indent=2) if as_json else "\n".join(map(printable, lines)))


def check_width(known: KnownSource, width: int | None) -> None:
    """Refuse a target of another kind than the model's.

    Args:
        known: the model.
        width: features a row of the target; None for images.

    Raises:
        BiwaaError: it is of another kind.
    """
    wanted = known.backbone.features if known.backbone.name == FEATURES else None
    if width != wanted:
        kind = "images" if wanted is None else f"rows of {wanted} features"
        raise BiwaaError(f"{known.spec} is a model of {kind}, and the target is not: name a target of the same kind.")


def _inputs(network: Network) -> int:
    layer = network.classifier if isinstance(network.bottleneck, torch.nn.Identity) else network.bottleneck
    assert isinstance(layer, torch.nn.Linear)  # as `Network` makes them
    return layer.in_features


def check_backbone(known: KnownSource, asked: str, weights: str, image_size: int | None) -> None:
    """Refuse another backbone than the model's own.

    Raises:
        BiwaaError: one is asked for.
    """
    name, size = known.backbone.name, known.transform.image_size
    same = asked in (AUTO, FEATURES, name) or (not several(asked) and canonical(asked) == name)
    if not same or weights != "auto" or image_size not in (None, size):
        what = f"--backbone {asked}" if not same else "--weights" if weights != "auto" else f"--image-size {image_size}"
        raise BiwaaError(
            f"{known.spec} is a model of the backbone {name} at {size} pixels, with its own weights: leave {what} out."
        )


def check_classes(known: KnownSource, named: Sequence[str]) -> None:
    """Refuse another list of classes than the model's own.

    Raises:
        BiwaaError: another is named.
    """
    if named and set(named) != set(known.classes):
        raise BiwaaError(
            f"{known.spec} is a model of {len(known.classes)} classes ({', '.join(known.classes[:3])}, ..), and "
            f"--classes names others: leave --classes out."
        )
