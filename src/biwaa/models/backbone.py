"""Backbones by name, and where their weights come from.

- any timm model; the usual spellings (ResNet50, VGG16BN, EfficientNet-Lite0) are understood
- AlexNet from torchvision; LeNet, DTN and a small CNN for digits
- weights: the hub through timm, a local state dict, an installed package; never a silent random start
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from biwaa.errors import BiwaaError, listed
from biwaa.models.digits import cnn, dtn, lenet
from biwaa.registry import Registry, load_plugins

DIGITS: dict[str, Callable[[int], nn.Module]] = {"lenet": lenet, "dtn": dtn, "cnn": cnn}
DIGITS_SIZE = {"lenet": 28, "dtn": 32, "cnn": 24}


@dataclass(frozen=True)
class Backbone:
    """A network from images to features, and how it wants its images."""

    name: str
    module: nn.Module
    """(B, 3, image_size, image_size) -> (B, features)."""
    features: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


FEATURES = "features"
"""Stands for a backbone where features, not images, were given."""


def features_backbone(features: int) -> Backbone:
    """Hands (B, features) through."""
    return Backbone(FEATURES, nn.Identity(), features, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Registered:
    """A backbone from outside the package."""

    factory: Callable[[int], nn.Module]
    """Pixels a side -> a module from (B, 3, size, size) to (B, features), with the weights that it starts from."""
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


REGISTERED: Registry[Registered] = Registry("backbone", {})
"""Backbones from outside the package."""


def register_backbone(
    name: str,
    image_size: int = 224,
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
    std: tuple[float, float, float] = (0.229, 0.224, 0.225),
) -> Callable[[Callable[[int], nn.Module]], Callable[[int], nn.Module]]:
    """Decorate a factory of backbones, so that `backbone=NAME` builds it.

    Args:
        name: not one that timm or biwaa knows.
        image_size: pixels a side that it is given unless the recipe says otherwise.
        mean: by channel, of pixels in [0, 1]; ImageNet's unless given.
        std: the same for the deviation.

    Returns:
        The decorator; the factory takes the image size and gives a module from (B, 3, size, size) to (B, features). It
        sets its own weights: `weights=auto` leaves them as they are.

    Raises:
        BiwaaError: the name is taken.
    """
    if timm.is_model(name) or name in (*DIGITS, "alexnet", FEATURES):
        raise BiwaaError(f"the backbone {name!r} exists already: register yours under another name.")

    def register(factory: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        REGISTERED.add(name, Registered(factory, image_size, mean, std))
        return factory

    return register


def _registered(entry: Registered, image_size: int | None) -> nn.Module:
    size = image_size or entry.image_size
    module = entry.factory(size)
    module.pretrained_cfg = {"input_size": (3, size, size), "mean": entry.mean, "std": entry.std}  # type: ignore[assignment]
    return module


def canonical(name: str) -> str:
    """ResNet-50 -> resnet50, VGG16BN -> vgg16_bn, EfficientNet-Lite0 -> tf_efficientnet_lite0."""
    if timm.is_model(name) or name in REGISTERED:
        return name
    plain = re.sub(r"[-_ ]", "", name.lower())
    plain = re.sub(r"^(vgg\d+)bn$", r"\1_bn", plain)
    return re.sub(r"^efficientnetlite(\d)$", r"tf_efficientnet_lite\1", plain)


def build_backbone(name: str, image_size: int | None = None) -> Backbone:
    """A backbone with random weights.

    Args:
        name: a timm model, alexnet, lenet, dtn or cnn, in any usual spelling.
        image_size: pixels a side; None for the backbone's own.

    Raises:
        BiwaaError: no such backbone, or it cannot take that image size.
    """
    known = canonical(name)
    if known not in DIGITS and known != "alexnet" and not timm.is_model(known):
        load_plugins()
        known = canonical(name)
    try:
        if known in REGISTERED:
            module = _registered(REGISTERED[known], image_size)
        elif known in DIGITS:
            module = DIGITS[known](image_size or DIGITS_SIZE[known])
        elif known == "alexnet":
            module = _alexnet()
        elif timm.is_model(known):
            module = build_timm(known, image_size)
        else:
            every = [*timm.list_models(), "alexnet", *DIGITS, *REGISTERED]
            near = difflib.get_close_matches(known, every, n=3)
            hint = f"Did you mean {listed(near)}?" if near else "Any timm model, alexnet, lenet, dtn or cnn will do."
            raise BiwaaError(f"no backbone is called {name!r}. {hint}")
        config = timm.data.resolve_model_data_config(module)
        size = image_size or int(config["input_size"][-1])
        with torch.inference_mode():
            features = module.eval()(torch.zeros(1, 3, size, size)).shape
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BiwaaError(f"{name} cannot be built for {image_size} x {image_size} pixels: {reason}.") from None
    if len(features) != 2:
        raise BiwaaError(f"{name} gives features of shape {tuple(features)}, not one vector an image.")
    return Backbone(known, module, features[1], size, tuple(config["mean"]), tuple(config["std"]))


def build_timm(name: str, image_size: int | None, **pretrained: Any) -> nn.Module:
    """Timm's model without its classifier; with random weights unless `pretrained` says otherwise."""
    config: Any = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"num_classes": 0, **pretrained}
    if image_size and config and config.fixed_input_size and image_size != config.input_size[-1]:
        options["img_size"] = image_size
    model: nn.Module = timm.create_model(name, **options)
    return model


def _alexnet() -> nn.Module:
    model: nn.Module = torchvision.models.alexnet(weights=None)
    assert isinstance(model.classifier, nn.Sequential)
    model.classifier = model.classifier[:-1]  # up to the second hidden layer: 4096 features
    model.pretrained_cfg = {"input_size": (3, 224, 224)}  # type: ignore[assignment]
    return model
