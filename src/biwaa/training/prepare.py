"""From two domains to what training feeds on: pixels decoded once, or features computed once.

Every image is decoded before training starts, so an unreadable one can never cost a round.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from biwaa.domains.augment import Transform
from biwaa.domains.domain import Domain, check_pair
from biwaa.domains.images import FeatureRows
from biwaa.domains.inputs import Data, FeatureInputs, Inputs, PixelInputs, placed
from biwaa.domains.pixels import keep_pixels, readable
from biwaa.domains.shift import shifted_rows
from biwaa.errors import BiwaaError
from biwaa.methods import method_named
from biwaa.models.backbone import FEATURES, Backbone, build_backbone, features_backbone, load_weights
from biwaa.models.features import keep_features
from biwaa.models.network import Network, Standardise
from biwaa.models.saved import FEATURES_TRANSFORM
from biwaa.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """Everything that stands before the first step."""

    source: Domain
    target: Domain
    """Both without what was left out; the target's labels, if any, are for evaluation alone."""
    data: Data
    held_out: Domain | None
    """Target images that training gets nothing of, to be scored beside the others."""
    held_out_inputs: Inputs | None
    transform: Transform
    backbone: Backbone
    weights: str
    """Where the backbone's weights came from."""
    fresh_network: Callable[[int], Network]
    """What a leg trains, by seed."""
    whole_network: Callable[[dict[str, torch.Tensor]], Network]
    """From a leg's trained state to a network that takes images."""


def prepare(
    source: Domain,
    target: Domain,
    recipe: Recipe,
    fabric: Fabric,
    skip_unreadable: bool,
    held_out: Domain | None = None,
) -> Prepared:
    """Decode, build and check all that training needs.

    Raises:
        BiwaaError: an image cannot be read, or too few stay; the backbone or its weights are not to be had.
    """
    method = method_named(recipe.method)
    if method.strong_view and recipe.freeze_backbone:
        raise BiwaaError(f"{recipe.method} needs images to augment: it does not go with --freeze-backbone.")
    if recipe.freeze_backbone and recipe.weights == "none":
        raise BiwaaError(
            f"{'a linear probe' if method.frozen else '--freeze-backbone'} with --weights none would freeze random "
            "weights: leave one of them out."
        )
    torch.manual_seed(recipe.seed)
    if isinstance(source.images, FeatureRows):
        backbone, weights = features_backbone(source.images.array.shape[1]), "none: features were given"
    else:
        backbone = build_backbone(recipe.backbone, recipe.image_size)
        weights = load_weights(backbone, recipe.weights)
    transform = FEATURES_TRANSFORM if backbone.name == FEATURES else _transform(backbone, recipe)
    domains: list[Domain] = []
    inputs: list[Inputs] = []
    opened = [domain for domain in (source, target, held_out) if domain]
    kept = [
        keep_features(domain, backbone, transform, fabric) if recipe.freeze_backbone
        else keep_pixels(domain, transform.resize)
        for domain in opened
    ]  # fmt: skip
    stores = [] if recipe.freeze_backbone else placed([found.rows for found in kept], fabric.device)
    shifts = (recipe.source_shift, recipe.target_shift, recipe.target_shift)
    for number, (domain, found, shift) in enumerate(zip(opened, kept, shifts, strict=False)):
        left, rows = readable(domain, found.unreadable, skip_unreadable)
        # An experiment's own making, before training: the one place where labels say which target images there are.
        chosen = shifted_rows(left, shift)
        left, rows = left.select(chosen), rows[chosen]
        domains.append(left)
        if recipe.freeze_backbone:
            inputs.append(FeatureInputs(torch.from_numpy(found.rows[rows]).to(fabric.device)))
        else:
            inputs.append(PixelInputs(stores[number], rows, transform, recipe.augment, recipe.crop_area, fabric.device))
    # Skipping may have emptied a class of the source; of the target no label decides anything here.
    source, target = domains[:2]
    held_out = domains[2] if held_out else None
    check_pair(source, Domain(target.spec, target.images), recipe.batch_size)
    standardise: nn.Module = nn.Identity()
    if recipe.freeze_backbone:
        inputs, standardise = _standardised(inputs, method.statistics or recipe.statistics)
    assert source.labels is not None  # check_pair made sure of both
    assert source.classes is not None
    data = _divided(inputs[0], source.labels, inputs[1], len(source.classes), recipe)
    width = recipe.bottleneck if method.bottleneck else None

    def fresh_network(seed: int) -> Network:
        torch.manual_seed(seed)
        if recipe.freeze_backbone:
            module: nn.Module = nn.Identity()
        elif recipe.weights == "none":
            module = build_backbone(recipe.backbone, recipe.image_size).module
        else:
            module = copy.deepcopy(backbone.module)
        return Network(module, backbone.features, width, data.classes, recipe.input_dropout)

    def whole_network(state: dict[str, torch.Tensor]) -> Network:
        network = Network(copy.deepcopy(backbone.module).cpu(), backbone.features, width, data.classes)
        missing, unexpected = network.load_state_dict(state, strict=not recipe.freeze_backbone)
        if unexpected or any(not name.startswith("backbone.") for name in missing):
            raise BiwaaError(f"a checkpoint does not fit the recipe: {missing + unexpected}.")
        network.standardise = standardise.cpu()
        return network.eval()

    held_out_inputs = inputs[2] if held_out else None
    return Prepared(
        source, target, data, held_out, held_out_inputs, transform, backbone, weights, fresh_network, whole_network
    )


def _divided(source: Inputs, labels: NDArray[np.int64], target: Inputs, classes: int, recipe: Recipe) -> Data:
    """Keep a share of each class of the source from training; at least one image of every class is trained on."""
    if not recipe.source_held_out:
        return Data(source, labels, target, classes)
    rng = np.random.default_rng(recipe.seed)
    members = [rng.permutation(np.flatnonzero(labels == k)) for k in range(classes)]
    counts = [min(round(recipe.source_held_out * len(rows)), len(rows) - 1) for rows in members]
    kept = np.sort(np.concatenate([rows[:count] for rows, count in zip(members, counts, strict=True)]))
    trained = np.setdiff1d(np.arange(len(labels)), kept)
    if not len(kept) or len(trained) < recipe.batch_size:
        raise BiwaaError(
            f"--source-held-out {recipe.source_held_out:g} of {len(labels)} source images leaves {len(trained)} to "
            f"train on, in batches of {recipe.batch_size}, and {len(kept)} to judge by: set it to 0, or lower "
            "--batch-size."
        )
    return Data(source.select(trained), labels[trained], target, classes, source.select(kept), labels[kept])


def _transform(backbone: Backbone, recipe: Recipe) -> Transform:
    resize = recipe.resize or round(backbone.image_size * 8 / 7)
    if resize < backbone.image_size:
        raise BiwaaError(
            f"--resize {resize} is smaller than the {backbone.image_size} pixels that {backbone.name} sees."
        )
    crops = 1 if recipe.freeze_backbone else recipe.crops
    return Transform(resize, backbone.image_size, backbone.mean, backbone.std, crops)


def _standardised(inputs: list[Inputs], statistics: str) -> tuple[list[Inputs], nn.Module]:
    """Standardise both domains' features; the target's standardisation stays with the model."""
    features = [entry.features for entry in inputs if isinstance(entry, FeatureInputs)]
    own = [Standardise.of(part) for part in features[:2]]
    if statistics == "source":
        own = [own[0], own[0]]
    of_each = [own[0], own[1], own[1]][: len(features)]  # held-out images are the target's
    found = [of(part) for of, part in zip(of_each, features, strict=True)]
    if statistics == "coral":
        found[0] = recoloured(found[0], found[1])
    return [FeatureInputs(part) for part in found], own[1]


def recoloured(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """CORAL: source (Cs + I)^-1/2 (Ct + I)^1/2 with C the covariances of centred (N, F) features.

    Sun et al., "Return of Frustratingly Easy Domain Adaptation", AAAI 2016, algorithm 1.
    """

    def root(features: torch.Tensor, power: float) -> torch.Tensor:
        wide = features.double()
        covariance = wide.T @ wide / max(len(wide) - 1, 1)
        covariance.diagonal().add_(1.0)
        values, vectors = torch.linalg.eigh(covariance)
        return torch.mm(vectors * values**power, vectors.T)

    return torch.mm(source.double(), root(source, -0.5) @ root(target, 0.5)).to(source.dtype)
