"""Backbones by name, with random weights; `weights` fills them.

- any timm model; the usual spellings (ResNet50, VGG16BN, EfficientNet-Lite0) are understood
- image towers of open_clip (`towers`), and several backbones side by side (`side_by_side`)
- BACKBONES has the others: LeNet, DTN and a small CNN for digits, torchvision's AlexNet, and registered ones
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from biwaa.errors import BiwaaError, listed, nearest, one_line
from biwaa.models.auto_backbone import AUTO
from biwaa.models.digits import cnn, dtn, lenet
from biwaa.models.side_by_side import BLACK, MOST_PARTS, WHOLE, SideBySide, parts_of, several
from biwaa.models.towers import build_tower, is_tower
from biwaa.models.weight_files import PACKAGED, at_hand
from biwaa.registry import Registry, load_plugins, taken

Channels = tuple[float, float, float]  # A value for each of red, green and blue, of pixels in [0, 1]
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
HALF: Channels = (0.5, 0.5, 0.5)
Factory = Callable[[int], nn.Module]  # Pixels a side -> a module from (B, 3, size, size) to (B, features)


@dataclass(frozen=True)
class Backbone:
    """A network from images to features, and how its images are prepared."""

    name: str
    module: nn.Module  # (B, 3, image_size, image_size) -> (B, features)
    features: int
    image_size: int
    mean: Channels
    std: Channels
    parts: "tuple[Backbone, ...]" = ()
    """Backbones whose features stand side by side in this one's."""


FEATURES = "features"  # The backbone's name in a model of features: it was trained without images


def features_backbone(features: int) -> Backbone:
    """The identity on (B, features)."""
    return Backbone(FEATURES, nn.Identity(), features, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class BackboneEntry:
    """How a backbone that is not timm's is built."""

    factory: Factory
    image_size: int  # Pixels a side, unless a recipe sets them
    mean: Channels
    std: Channels


def _alexnet(size: int) -> nn.Module:
    """Up to the second hidden layer: 4096 features of an image of any size."""
    model: nn.Module = torchvision.models.alexnet(weights=None)
    assert isinstance(model.classifier, nn.Sequential)
    model.classifier = model.classifier[:-1]
    return model


BACKBONES: Registry[BackboneEntry] = Registry(
    "backbone",
    {
        "lenet": BackboneEntry(lenet, 28, HALF, HALF),
        "dtn": BackboneEntry(dtn, 32, HALF, HALF),
        "cnn": BackboneEntry(cnn, 24, HALF, HALF),
        "alexnet": BackboneEntry(_alexnet, 224, IMAGENET_MEAN, IMAGENET_STD),
    },
)
DIGITS = ("lenet", "dtn", "cnn")  # Small networks for digits, for which there are no published weights
USUAL = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "bn")),
    *PACKAGED,
)  # Spellings of the field that `canonical` understands, for hints


def register_backbone(
    name: str, image_size: int = 224, mean: Channels = IMAGENET_MEAN, std: Channels = IMAGENET_STD
) -> Callable[[Factory], Factory]:
    """Decorate a factory of backbones, so that `backbone=NAME` builds it.

    Args:
        name: not one that timm or biwaa knows.
        image_size: pixels a side, unless the recipe sets them.
        mean: of each channel, of pixels in [0, 1]; ImageNet's unless given.
        std: each channel's standard deviation.

    Returns:
        The decorator. The factory takes the image size and gives a module from (B, 3, size, size) to (B, features). It
        sets its own weights: `weights=auto` leaves them as they are.

    Raises:
        BiwaaError: the name is taken.
    """
    reserved = name in (FEATURES, AUTO) or several(name) or is_tower(name)
    if timm.is_model(name) or reserved or name in BACKBONES.built_in:
        raise taken(BACKBONES.kind, name)

    def register(factory: Factory) -> Factory:
        BACKBONES.add(name, BackboneEntry(factory, image_size, mean, std))
        return factory

    return register


def _exists(name: str) -> bool:
    return name in BACKBONES or timm.is_model(name)


def canonical(name: str) -> str:
    """ResNet-50 -> resnet50, VGG16BN -> vgg16_bn, EfficientNet-Lite0 -> tf_efficientnet_lite0."""
    if _exists(name):
        return name
    plain = re.sub(r"[-_ ]", "", name.lower())
    plain = re.sub(r"^(vgg\d+)bn$", r"\1_bn", plain)
    return re.sub(r"^efficientnetlite(\d)$", r"tf_efficientnet_lite\1", plain)


def _known(name: str) -> str:
    """The name under which BACKBONES or timm has it.

    Raises:
        BiwaaError: neither has it.
    """
    found = canonical(name)
    if not _exists(found):
        load_plugins()
        found = canonical(name)
    if _exists(found):
        return found
    with_weights = (model.partition(".")[0] for model in timm.list_models(pretrained=True))
    by_model: dict[str, str] = {}
    for spelling in (*USUAL, *BACKBONES, *with_weights):
        by_model.setdefault(canonical(spelling), spelling)
    near = nearest(name, by_model.values(), most=3)
    hint = _hint(near) if near else f"there are timm's models and {listed(list(BACKBONES))}."
    raise BiwaaError(f"no {BACKBONES.kind} is called {name!r}: {hint}")


def _hint(near: list[str]) -> str:
    """Of near names those that run here; or the nearest, with what it needs."""
    if near[0] in DIGITS:
        return f"did you mean {near[0]}? It has no ImageNet weights: add --weights none."
    ready = [one for one in near if _ready(one)]
    if ready and ready[0] == near[0]:
        return f"did you mean {' or '.join(ready)}?"
    installed = [usual for usual, timms in PACKAGED.items() if at_hand(timms)][:1]
    ready = ready or installed
    other = f", or take {ready[0]}, whose weights can be loaded" if ready else ""
    return (
        f"did you mean {near[0]}? Its weights are not on this machine and cannot be fetched: add --weights FILE{other}."
    )


def _ready(name: str) -> bool:
    """Whether a backbone starts from weights that can be loaded on this machine."""
    known = canonical(name)
    if known in BACKBONES and known != "alexnet":
        return known not in BACKBONES.built_in  # a registered one brings its own
    return at_hand(known)


def build_backbone(name: str, image_size: int | None = None) -> Backbone:
    """A backbone with random weights; a registered one has those of its factory.

    Args:
        name: of a timm model or an entry of BACKBONES, in any usual spelling; clip:MODEL/TAG; or several, with commas.
        image_size: pixels a side; None for the backbone's own.

    Raises:
        BiwaaError: no such backbone, or it cannot take that image size.
    """
    if several(name):
        return _side_by_side(name, image_size)
    known = name if is_tower(name) else _known(name)
    try:
        if is_tower(name):
            known, module, size, mean, std = build_tower(name, image_size)
        elif known in BACKBONES:
            entry = BACKBONES[known]
            size, mean, std = image_size or entry.image_size, entry.mean, entry.std
            module = entry.factory(size)
        else:
            module = build_timm(known, image_size)
            config = timm.data.resolve_model_data_config(module)
            size, mean, std = image_size or int(config["input_size"][-1]), tuple(config["mean"]), tuple(config["std"])
        with torch.inference_mode():
            features = module.eval()(torch.zeros(1, 3, size, size)).shape
    except (RuntimeError, AssertionError, TypeError, ValueError, AttributeError) as error:
        pixels = f" for {image_size} x {image_size} pixels" if image_size else ""
        raise BiwaaError(f"{name} cannot be built{pixels}: {one_line(error)}.") from None
    if len(features) != 2:
        raise BiwaaError(f"{name} gives features of shape {tuple(features)}, not one vector an image.")
    return Backbone(known, module, features[1], size, mean, std)


def _side_by_side(name: str, image_size: int | None) -> Backbone:
    """Several backbones as one, whose name has the size that each of them sees."""
    named = parts_of(name)
    if len(named) > MOST_PARTS:
        raise BiwaaError(f"{len(named)} backbones side by side are more than {MOST_PARTS}: leave some out.")
    parts = tuple(build_backbone(part, own or image_size) for part, own in named)
    module = SideBySide(*zip(*((one.module, one.image_size, one.mean, one.std) for one in parts), strict=True))
    whole = ",".join(f"{one.name}@{one.image_size}" for one in parts)
    size = max(one.image_size for one in parts)
    return Backbone(whole, module.eval(), sum(one.features for one in parts), size, BLACK, WHOLE, parts)


def build_timm(name: str, image_size: int | None, **others: Any) -> nn.Module:
    """Timm's model without its classifier and with random weights, unless `others` say otherwise."""
    config: Any = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"num_classes": 0, **others}
    if image_size and config and config.fixed_input_size and image_size != config.input_size[-1]:
        options["img_size"] = image_size
    model: nn.Module = timm.create_model(name, **options)
    return model
