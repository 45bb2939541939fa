"""From two domains to the inputs of training: pixels decoded once, or features computed once.

Every image is decoded before training starts, so an unreadable one can never cost a round.
"""

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from biwaa.device import few_threads
from biwaa.domains.classes import own_classes
from biwaa.domains.domain import Domain, drop_unreadable
from biwaa.domains.labels import MISSING
from biwaa.domains.shift import shifted_rows
from biwaa.domains.trainable import check_batch, check_source, held_out_counts
from biwaa.errors import BiwaaError
from biwaa.functional import coral
from biwaa.images.augment import Transform
from biwaa.images.batches import FeatureInputs, Inputs, PixelInputs, placed
from biwaa.images.images import feature_width
from biwaa.images.joint import parts_of
from biwaa.images.store import Stored, store_pixels
from biwaa.methods import METHODS
from biwaa.models.backbone import Backbone, build_backbone, features_backbone
from biwaa.models.features import store_features
from biwaa.models.known import KnownSource
from biwaa.models.network import Network, Standardise
from biwaa.models.saved import FEATURES_TRANSFORM
from biwaa.models.side_by_side import several
from biwaa.models.weights import load_weights
from biwaa.recipe import Recipe
from biwaa.solvers.logistic import Head
from biwaa.solvers.remembered import Memory, Remembered
from biwaa.teachers.fusion import Teacher
from biwaa.training.data import Data, Given
from biwaa.training.suited import least_images


@dataclass(frozen=True)
class Pair:
    """The domains of a run, with the source's classes."""

    source: Domain
    target: Domain  # Its labels, if any, are for evaluation alone
    held_out: Domain | None = None  # Labelled target images that are not used in training, only scored
    known: KnownSource | None = field(default=None, kw_only=True)
    """A model in the place of the source's images; the source then has none."""
    teacher: Teacher | None = field(default=None, kw_only=True)  # Of all images of source and target
    given: Given | None = field(default=None, kw_only=True)
    """(N,) classes of the target images whose labels were handed over to be trained on, MISSING for all others."""


def unseen(pair: Pair) -> Domain:
    """The target with the labels alone that no training was given: those that figures may be measured on."""
    target = pair.target
    if pair.given is None or target.labels is None:
        return target
    labels = np.where(pair.given == MISSING, target.labels, MISSING)
    return replace(target, labels=None if (labels == MISSING).all() else labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Everything that the first step needs."""

    recipe: Recipe
    domains: Pair  # Without what was left out
    data: Data
    held_out_inputs: Inputs | None
    transform: Transform
    backbone: Backbone
    weights: str  # Where the backbone's weights came from
    standardise: nn.Module
    """Of the target's frozen features; the identity where the backbone is trained."""
    source_standardise: Standardise | None
    """The source's own, where each domain of a frozen backbone has one."""

    def fresh_network(self, seed: int) -> Network:
        """What a stage trains."""
        torch.manual_seed(seed)
        network = self.recipe.network
        if network.frozen:
            module: nn.Module = nn.Identity()
        elif network.weights == "none":
            module = build_backbone(network.backbone, self.recipe.data.image_size).module
        else:
            module = copy.deepcopy(self.backbone.module)
        width = network.bottleneck if METHODS[self.recipe.method].bottleneck else None
        return Network(module, self.backbone.features, width, self.data.classes, network.input_dropout)

    def deployed_network(self, state: dict[str, Tensor]) -> Network:
        """From a stage's trained state to a network that takes images.

        Raises:
            BiwaaError: the state is of another network.
        """
        # A solved head has a bottleneck of its own width, or none.
        bottleneck = len(state["bottleneck.bias"]) if "bottleneck.bias" in state else None
        module = copy.deepcopy(self.backbone.module).cpu()
        network = Network(module, self.backbone.features, bottleneck, self.data.classes)
        missing, unexpected = network.load_state_dict(state, strict=not self.recipe.network.frozen)
        if unexpected or any(not name.startswith("backbone.") for name in missing):
            raise BiwaaError(f"a checkpoint does not fit the recipe: {missing + unexpected}.")
        network.standardise = self.standardise.cpu()
        return network.eval()

    def remember(self, head: Head | None) -> Memory | None:
        """From source-only's head to what the model's file keeps of the source; None of a trained backbone's."""
        if self.domains.known:
            return self.domains.known.memory
        # With other statistics the source was moved towards the target, or the target's statistics are its own.
        if not self.recipe.network.frozen or not len(self.data.source) or _statistics(self.recipe) != "domain":
            return None
        own = own_classes(self.domains.source)  # no image of the source is unknown
        return Memory(self._remembered, head).first(len(own))

    @cached_property
    def _remembered(self) -> Remembered:
        rows = self.data.source.batch(np.arange(len(self.data.source))).float()
        labels = torch.from_numpy(self.data.source_labels).to(rows.device)
        with few_threads(len(rows)):
            return Remembered(*(part.cpu() for part in Remembered.of(rows, labels, self.data.classes)))


def prepare(pair: Pair, recipe: Recipe, fabric: Fabric, skip_unreadable: bool) -> Prepared:
    """Decode, build and check all that training needs.

    Raises:
        BiwaaError: an image cannot be read, or too few stay; the backbone or its weights cannot be loaded.
    """
    frozen = recipe.network.frozen
    _check_frozen(recipe)
    torch.manual_seed(recipe.seed)
    backbone, weights, transform = _backbone(pair, recipe)
    opened = [domain for domain in (pair.source, pair.target, pair.held_out) if domain]
    kept = [
        Stored(np.zeros((0, backbone.features), np.float32), {}) if not len(domain.images)  # there is no source
        else _features(domain, backbone, transform, fabric) if frozen
        else store_pixels(domain.images, domain.spec, transform.resize)
        for domain in opened
    ]  # fmt: skip
    shifts = (recipe.data.source_shift, recipe.data.target_shift, recipe.data.target_shift)
    left = [
        _left(domain, found, shift, skip_unreadable) for domain, found, shift in zip(opened, kept, shifts, strict=False)
    ]
    rows = [of_domain for _, of_domain in left]
    domains = Pair(
        *(domain for domain, _ in left), known=pair.known,
        teacher=pair.teacher.select(rows[1], rows[0]) if pair.teacher else None,
        given=None if pair.given is None else pair.given[rows[1]],
    )  # fmt: skip
    source = domains.source
    if len(pair.source.images):
        check_source(source)  # skipping may have emptied a class
        check_batch(least_images(recipe), source, domains.target, recipe.data.source_held_out)
    standardise: nn.Module = nn.Identity()
    of_source: Standardise | None = None
    inputs: list[Inputs]
    if frozen:
        features = [
            torch.from_numpy(found.rows[chosen]).to(fabric.device) for found, chosen in zip(kept, rows, strict=True)
        ]
        inputs, standardise, of_source = _standardised(features, _statistics(recipe), source.origins)
    else:
        stores = placed([found.rows for found in kept], fabric.device)
        inputs = [
            PixelInputs(store, chosen, transform, recipe.data.augment, recipe.data.crop_area, fabric.device)
            for store, chosen in zip(stores, rows, strict=True)
        ]
    assert source.labels is not None  # check_source made sure of both
    assert source.classes is not None
    whole = Data(
        inputs[0], source.labels, inputs[1], len(source.classes), origins=source.origins, teacher=domains.teacher,
        given=domains.given,
    )  # fmt: skip
    data = _divided(whole, recipe, held_out_counts(source, recipe.data.source_held_out))
    if pair.known:
        assert isinstance(standardise, Standardise)  # its backbone is frozen
        data = replace(data, memory=pair.known.lesson(standardise))
    return Prepared(
        recipe=recipe,
        domains=domains,
        data=data,
        held_out_inputs=inputs[2] if pair.held_out else None,
        transform=transform,
        backbone=backbone,
        weights=weights,
        standardise=standardise,
        source_standardise=pair.known.standardise if pair.known else of_source,
    )


def _backbone(pair: Pair, recipe: Recipe) -> tuple[Backbone, str, Transform]:
    """The backbone, where its weights came from, and how its images are prepared."""
    if pair.known:
        return pair.known.backbone, f"of {pair.known.spec}", pair.known.transform
    if width := feature_width(pair.source.images):
        return features_backbone(width), "none: features were given", FEATURES_TRANSFORM
    backbone = build_backbone(recipe.network.backbone, recipe.data.image_size)
    weights = load_weights(backbone, recipe.network.weights, recipe.network.frozen)
    return backbone, weights, _transform(backbone, recipe)


def _statistics(recipe: Recipe) -> str:
    """By which statistics frozen features are standardised."""
    return METHODS[recipe.method].statistics or recipe.network.statistics


def _check_frozen(recipe: Recipe) -> None:
    method, network = METHODS[recipe.method], recipe.network
    if method.strong_view and network.freeze_backbone:
        raise BiwaaError(f"{recipe.method} needs images to augment: leave --freeze-backbone out.")
    if several(network.backbone) and not network.freeze_backbone:
        raise BiwaaError("several backbones stand side by side only frozen: add --freeze-backbone, or name one.")
    if network.freeze_backbone and network.weights == "none":
        raise BiwaaError(
            f"{f'the method {recipe.method}' if method.frozen else '--freeze-backbone'} with --weights none would "
            "freeze random weights: leave one of them out."
        )


def _left(domain: Domain, found: Stored, shift: str, skip_unreadable: bool) -> tuple[Domain, NDArray[np.int64]]:
    """What stays of a domain, and its rows among what is kept."""
    left, rows = drop_unreadable(domain, found.unreadable, skip_unreadable)
    # An experiment, made before training: the one place where labels decide which target images there are.
    chosen = shifted_rows(left, shift)
    return left.select(chosen), rows[chosen]


def _divided(data: Data, recipe: Recipe, counts: list[int]) -> Data:
    """Keep so many images of each class of the source from training."""
    if not recipe.data.source_held_out:
        return data
    labels, rng = data.source_labels, np.random.default_rng(recipe.seed)
    members = [rng.permutation(np.flatnonzero(labels == k)) for k in range(data.classes)]
    kept = np.sort(np.concatenate([rows[:count] for rows, count in zip(members, counts, strict=True)]))
    trained = np.setdiff1d(np.arange(len(labels)), kept)
    return replace(
        data,
        source=data.source.select(trained),
        source_labels=labels[trained],
        source_held_out=data.source.select(kept),
        source_held_out_labels=labels[kept],
        origins=None if data.origins is None else data.origins[trained],
        teacher=data.teacher.select(np.arange(len(data.target)), trained) if data.teacher else None,
    )


def _transform(backbone: Backbone, recipe: Recipe) -> Transform:
    resize = recipe.data.resize or round(backbone.image_size * 8 / 7)
    if resize < backbone.image_size:
        raise BiwaaError(
            f"--resize {resize} is smaller than the {backbone.image_size} pixels that {backbone.name} sees."
        )
    crops = 1 if recipe.network.freeze_backbone else recipe.data.crops
    return Transform(resize, backbone.image_size, backbone.mean, backbone.std, crops)


def _features(domain: Domain, backbone: Backbone, transform: Transform, fabric: Fabric) -> Stored:
    """Features of a domain; of several, each domain's own are kept for other runs."""
    parts = parts_of(domain.images)
    specs = domain.places if len(domain.places) == len(parts) else (domain.spec,) * len(parts)
    found = [
        store_features(part, spec, backbone, transform, fabric) for part, spec in zip(parts, specs, strict=True)
    ]  # fmt: skip
    if len(found) == 1:  # a mapped array stays where it is
        return found[0]
    begins = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    unreadable = {
        begin + row: why
        for begin, one in zip(begins, found, strict=False)
        for row, why in one.unreadable.items()
    }  # fmt: skip
    return Stored(np.concatenate([one.rows for one in found]), unreadable)


def _standardised(
    features: list[Tensor], statistics: str, origins: NDArray[np.int64] | None
) -> tuple[list[Inputs], nn.Module, Standardise | None]:
    """Standardise all domains' features; the target's standardisation stays with the model.

    Where each domain has its own, the source's is returned too, unless there are several sources or none.

    Args:
        features: (N, F) of the source, the target and, where there are any, held-out images, which are the target's.
        statistics: domain, source or coral.
        origins: (Ns,) which of several sources each source image is of; None for one.
    """
    source = features[0]
    of_source = Standardise.of(source if len(source) else features[1])
    of_target = of_source if statistics == "source" else Standardise.of(features[1])
    found = [of_source(source), *(of_target(part) for part in features[1:])]
    if origins is not None and statistics != "source":
        for number in range(int(origins.max()) + 1):
            rows = torch.from_numpy(origins == number).to(source.device)
            found[0][rows] = Standardise.of(source[rows])(source[rows])
    if statistics == "coral" and len(source):
        found[0] = coral(found[0], found[1])
    one = statistics == "domain" and origins is None and len(source) > 0
    return [FeatureInputs(part) for part in found], of_target, of_source.cpu() if one else None
