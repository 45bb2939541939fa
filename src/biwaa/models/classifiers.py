"""A timm classifier as a source: `timm:MODEL[@FILE]`, its own linear head, and a list that says what its outputs are.

Nothing is known of the images that it was trained on. Its head is heard as a teacher is (`solvers.remembered`).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from biwaa.domains.spec import CLASSIFIER
from biwaa.errors import BiwaaError, listed
from biwaa.files import expanded
from biwaa.images.augment import Transform
from biwaa.models.backbone import Backbone, build_backbone
from biwaa.models.known import KnownSource, check_classes, model_file, open_known
from biwaa.models.weights import fit, whole_model
from biwaa.progress import say
from biwaa.solvers.logistic import Head
from biwaa.teachers.prompts import read_entries
from biwaa.tensors import weights_digest

SHOWN = 12  # Classes whose outputs are shown
Names = str | Sequence[Any] | Mapping[Any, Any] | None
"""What says which class each output is, as of `biwaa.adapt`."""


def is_model(given: Any) -> bool:
    """Whether a SPEC of a source names a model: a classifier, a run folder, or a model's file."""
    return (isinstance(given, str) and given.startswith(CLASSIFIER)) or model_file(given) is not None


def known_source(spec: str, classes: Names) -> KnownSource:
    """The model that a SPEC names, as a source.

    Args:
        spec: one for which `is_model` holds.
        classes: of a classifier, what its outputs are; of another model at most its own classes.

    Raises:
        BiwaaError: it cannot be opened, or the classes do not fit it.
    """
    if spec.startswith(CLASSIFIER):
        return open_classifier(spec, classes)
    file = model_file(spec)
    assert file is not None  # the caller asked `is_model`
    try:
        known = open_known(spec, file)
    except BiwaaError as error:
        told = str(error).removesuffix(".")
        raise BiwaaError(f"{told}; weights of a timm classifier are named as {CLASSIFIER}MODEL@FILE.") from None
    check_classes(known, tuple(read_entries(classes)) if isinstance(classes, str) else tuple(map(str, classes or ())))
    return known


def open_classifier(spec: str, classes: Names) -> KnownSource:
    """A classifier with its own transform, of the outputs that have a name.

    Args:
        spec: timm:MODEL with published weights, or timm:MODEL@FILE with a state dict of the whole model.
        classes: a name for each output (empty or None where it is none of the classes), or lines `NUMBER NAME` of some
            outputs, or a mapping from classes to one number or several; in a list, a .txt or .yaml file, or one text
            with commas. Probabilities of outputs with the same name are added.

    Raises:
        BiwaaError: no such model, its weights cannot be loaded or do not fit, its classifier is not one linear layer,
            or the classes do not fit its outputs.
    """
    name, _, file = spec.removeprefix(CLASSIFIER).partition("@")
    backbone = build_backbone(name)
    if backbone.parts or not timm.is_model(backbone.name):
        raise BiwaaError(f"{spec} is no model of timm: a classifier is timm:MODEL or timm:MODEL@FILE.")
    model = whole_model(backbone.name, expanded(file) if file else None)
    weight, bias = _linear_layer(spec, model, backbone)
    named = _named(spec, classes, len(weight), model)
    every = tuple(dict.fromkeys(one for one in named if one))
    rows = sorted((row for row, one in enumerate(named) if one), key=lambda row: every.index(named[row]))
    outputs = torch.tensor([every.index(named[row]) for row in rows])
    config = timm.data.resolve_model_data_config(model)
    resize = max(round(backbone.image_size / float(config.get("crop_pct") or 1.0)), backbone.image_size)
    digest = hashlib.sha256(f"{weights_digest(model)} {named}".encode("utf-8", "surrogateescape"))
    return KnownSource(
        spec, every, "text", backbone, Transform(resize, backbone.image_size, backbone.mean, backbone.std, 1), None,
        Head(None, weight[rows], bias[rows]), digest.hexdigest(),
        outputs=outputs if len(rows) > len(every) else None, named=named,
    )  # fmt: skip


def _linear_layer(spec: str, model: nn.Module, backbone: Backbone) -> tuple[Tensor, Tensor]:
    """Weight and bias of a model's classifier; the rest of it goes into the backbone.

    Raises:
        BiwaaError: what the model does is not one linear layer on the backbone's features.
    """
    layer: Any = model.get_classifier()  # type: ignore[operator]  # of every timm model
    odd = BiwaaError(f"{spec} does not end in one linear layer on its features: take another model.")
    if not isinstance(layer, nn.Linear):
        raise odd
    fit(backbone.module, backbone.name, model.state_dict(), spec)
    weight = layer.weight.detach()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    with torch.inference_mode():
        pixels = torch.rand(2, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(0))
        said, own = model.eval()(pixels), F.linear(backbone.module.eval()(pixels), weight, bias)
    if said.shape != own.shape or not torch.allclose(said, own, rtol=1e-3, atol=1e-3 * float(said.abs().max())):
        raise odd
    return weight, bias


def _named(spec: str, classes: Names, count: int, model: nn.Module) -> tuple[str, ...]:
    """(count,) the class of each output, empty where it is none."""
    if classes is None or not len(classes):
        raise BiwaaError(
            f"{spec} has {count} outputs without names: add --classes FILE.txt with the class of one output a line, or "
            "lines `7 cat` of those that count."
        )
    entries = read_entries(classes) if isinstance(classes, str) else classes
    subset = infer_imagenet_subset(model)
    labels = ImageNetInfo(subset) if subset else None
    own = {label: row for row, label in enumerate(labels.label_names())} if labels else {}
    pairs = _pairs(spec, entries, count, own)
    found = [""] * count
    for row, name in pairs:
        if found[row] not in ("", name):
            raise BiwaaError(f"--classes calls output {row} of {spec} both {found[row]} and {name}: give it one name.")
        found[row] = name
    if len(pairs) < count and labels:
        words: dict[str, list[str]] = {}
        for row, name in sorted(pairs):
            words.setdefault(name, []).append(f"{row} {labels.index_to_description(row).partition(',')[0]}")
        every = [f"{name}: {', '.join(some[:2])}" + ", .." * (len(some) > 2) for name, some in words.items()]
        say(f"outputs of {spec}, as ImageNet calls them: {listed(every, SHOWN)}")
    return tuple(found)


def _pairs(spec: str, entries: Any, count: int, own: Mapping[str, int]) -> list[tuple[int, str]]:
    """Outputs that are named, and their names.

    Args:
        spec: for messages.
        entries: a list with a name for each output, or with `NUMBER NAME`; or a mapping from names to numbers.
        count: of outputs.
        own: names of outputs that the model has by itself, WordNet's of ImageNet: they may stand for numbers.
    """

    def number(word: Any) -> int:
        text = str(word)
        if text in own:
            return own[text]
        if not re.fullmatch(r"\d{1,9}", text) or int(text) >= count:
            raise BiwaaError(f"{spec} has no output {text[:50]}: its {count} are numbered from 0 to {count - 1}.")
        return int(text)

    if isinstance(entries, Mapping):
        rows = {str(name): value if isinstance(value, (list, tuple)) else [value] for name, value in entries.items()}
        return [(number(word), name) for name, words in rows.items() for word in words]
    names = ["" if name is None else str(name).strip() for name in entries]
    split = [re.fullmatch(r"(\S+)\s+(\S.*)", name) for name in names if name]
    if all(found and (found[1].isdecimal() or found[1] in own) for found in split):
        return [(number(found[1]), found[2]) for found in split if found]
    if own and all(name in own for name in names if name):
        return [(own[name], name) for name in names if name]
    if len(names) != count:
        raise BiwaaError(
            f"{spec} has {count} outputs, and --classes has {len(names)} names: give one line an output, an empty one "
            "where it is none of your classes, or lines `7 cat` of those that count."
        )
    return [(row, name) for row, name in enumerate(names) if name]
