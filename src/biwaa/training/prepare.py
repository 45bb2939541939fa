"""From two domains to what training feeds on: pixels decoded once, or features computed once.

Every image is decoded before training starts, so an unreadable one can never cost a round.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import nn

from biwaa.domains.augment import Transform
from biwaa.domains.domain import Domain, check_pair
from biwaa.domains.inputs import FeatureInputs, Inputs, PixelInputs
from biwaa.domains.pixels import keep_pixels, readable
from biwaa.errors import BiwaaError
from biwaa.models.backbone import Backbone, build_backbone, load_weights
from biwaa.models.features import keep_features
from biwaa.models.network import Network, Standardise
from biwaa.recipe import Recipe
from biwaa.training.leg import Data


@dataclass(frozen=True)
class Prepared:
    """Everything that stands before the first step."""

    source: Domain
    target: Domain
    """Both without what was left out; the target's labels, if any, are for evaluation alone."""
    data: Data
    transform: Transform
    backbone: Backbone
    weights: str
    """Where the backbone's weights came from."""
    fresh_network: Callable[[int], Network]
    """What a leg trains, by seed."""
    whole_network: Callable[[dict[str, torch.Tensor]], Network]
    """From a leg's trained state to a network that takes images."""


def prepare(source: Domain, target: Domain, recipe: Recipe, fabric: Fabric, skip_unreadable: bool) -> Prepared:
    """Decode, build and check all that training needs.

    Raises:
        BiwaaError: an image cannot be read, or too few stay; the backbone or its weights are not to be had.
    """
    if recipe.freeze_backbone and recipe.weights == "none":
        raise BiwaaError("--freeze-backbone with --weights none would freeze random weights: leave one of them out.")
    torch.manual_seed(recipe.seed)
    backbone = build_backbone(recipe.backbone, recipe.image_size)
    weights = load_weights(backbone, recipe.weights)
    transform = _transform(backbone, recipe)
    domains: list[Domain] = []
    inputs: list[Inputs] = []
    kept = [
        keep_features(domain, backbone, transform, fabric) if recipe.freeze_backbone
        else keep_pixels(domain, transform.resize)
        for domain in (source, target)
    ]  # fmt: skip
    for domain, found in zip((source, target), kept, strict=True):
        left, rows = readable(domain, found.unreadable, skip_unreadable)
        domains.append(left)
        if recipe.freeze_backbone:
            inputs.append(FeatureInputs(torch.from_numpy(found.rows[rows]).to(fabric.device)))
        else:
            inputs.append(PixelInputs(found.rows, rows, transform, recipe.augment, fabric.device))
    # Skipping may have emptied a class of the source; of the target no label decides anything here.
    source, target = domains
    check_pair(source, Domain(target.spec, target.images), recipe.batch_size)
    standardise: nn.Module = nn.Identity()
    if recipe.freeze_backbone:
        inputs, standardise = _standardised(inputs, recipe)
    assert source.labels is not None  # check_pair made sure of both
    assert source.classes is not None
    data = Data(inputs[0], source.labels, inputs[1], len(source.classes))

    def fresh_network(seed: int) -> Network:
        torch.manual_seed(seed)
        if recipe.freeze_backbone:
            module: nn.Module = nn.Identity()
        elif recipe.weights == "none":
            module = build_backbone(recipe.backbone, recipe.image_size).module
        else:
            module = copy.deepcopy(backbone.module)
        return Network(module, backbone.features, recipe.bottleneck, data.classes)

    def whole_network(state: dict[str, torch.Tensor]) -> Network:
        network = Network(copy.deepcopy(backbone.module).cpu(), backbone.features, recipe.bottleneck, data.classes)
        missing, unexpected = network.load_state_dict(state, strict=not recipe.freeze_backbone)
        if unexpected or any(not name.startswith("backbone.") for name in missing):
            raise BiwaaError(f"a checkpoint does not fit the recipe: {missing + unexpected}.")
        network.standardise = standardise.cpu()
        return network.eval()

    return Prepared(source, target, data, transform, backbone, weights, fresh_network, whole_network)


def _transform(backbone: Backbone, recipe: Recipe) -> Transform:
    resize = recipe.resize or round(backbone.image_size * 8 / 7)
    if resize < backbone.image_size:
        raise BiwaaError(
            f"--resize {resize} is smaller than the {backbone.image_size} pixels that {backbone.name} sees."
        )
    crops = 1 if recipe.freeze_backbone else recipe.crops
    return Transform(resize, backbone.image_size, backbone.mean, backbone.std, crops)


def _standardised(inputs: list[Inputs], recipe: Recipe) -> tuple[list[Inputs], nn.Module]:
    """Standardise both domains' features; the target's standardisation stays with the model."""
    features = [entry.features for entry in inputs if isinstance(entry, FeatureInputs)]
    own = [Standardise.of(part) for part in features]
    if recipe.statistics == "source":
        own = [own[0], own[0]]
    return [FeatureInputs(of(part)) for of, part in zip(own, features, strict=True)], own[1]
