"""What a recipe leaves open and the machine decides: whether the backbone is frozen, and which one it is.

A run's recipe.yaml has what was decided, so that it is repeated with the same anywhere. A bench is decided by no
machine: it compares.
"""

import copy
import time

import torch

from biwaa.device import has_gpu
from biwaa.errors import BiwaaError
from biwaa.methods import METHODS
from biwaa.models.auto_backbone import AUTO, FROZEN, TRAINED, best_backbone
from biwaa.models.backbone import BACKBONES, Backbone
from biwaa.models.side_by_side import several
from biwaa.models.towers import is_tower
from biwaa.progress import duration, say
from biwaa.recipe import AUTO as AUTO_METHOD
from biwaa.recipe import Recipe, load_recipe, with_method
from biwaa.settings import NetworkSettings
from biwaa.training.cost import planned_images

TIMED, WARMING = 8, 2
"""Images of the pass that is timed, and of one before it."""


def suited(recipe: Recipe) -> Recipe:
    """The recipe with `freeze_backbone` and `backbone` decided for this machine; says what it decided, and why.

    Raises:
        BiwaaError: a file of weights without a backbone's name.
    """
    network = recipe.network
    reason = ""
    if network.freeze_backbone is None:
        frozen = freezes(recipe)
        recipe = recipe.replace(freeze_backbone=frozen)
        reason = "no GPU here, so " if frozen and not has_gpu(recipe.machine.device) else ""
    state = "frozen" if recipe.network.frozen else "trained end to end"
    if network.backbone != AUTO:
        if reason:
            say(f"{reason}the backbone {network.backbone} is {state}")
        return recipe
    if network.weights == "none":  # all are alike, so the machine decides nothing
        return recipe.replace(backbone=NetworkSettings().backbone)
    if network.weights != "auto":
        raise BiwaaError(f"--weights {network.weights} belongs to one backbone: name it with --backbone.")
    found = best_backbone(FROZEN if recipe.network.frozen else TRAINED)
    size = recipe.data.image_size or found.candidate.image_size
    pixels = f" at {size} pixels" if size else ""
    say(f"{reason}the backbone is {state}; it is {found.candidate.name}{pixels}, {found.reason}")
    return recipe.replace(backbone=found.candidate.name, image_size=size)


def freezes(recipe: Recipe) -> bool:
    """Whether a backbone is frozen of which the recipe does not say so: where that can be done, and there is no GPU."""
    network = recipe.network
    method = None if recipe.method == AUTO_METHOD else METHODS[recipe.method]
    if method and (method.frozen or method.strong_view):
        return method.frozen
    if several(network.backbone) or is_tower(network.backbone):
        return True
    own = network.backbone in BACKBONES and network.backbone != "alexnet"  # it may have random weights
    return not (network.weights == "none" or own or has_gpu(recipe.machine.device))


def least_images(recipe: Recipe) -> int:
    """Images that each domain must have: a batch, or two where no step is trained, since the heads are solved."""
    return 2 if METHODS[recipe.method].solved(recipe.network.frozen) else recipe.data.batch_size


def least_images_here(name: str) -> int:
    """`least_images` of a named recipe on this machine."""
    recipe = load_recipe(name)
    return least_images(with_method(recipe.replace(freeze_backbone=freezes(recipe))))


def same_everywhere(recipe: Recipe) -> Recipe:
    """The recipe of a bench: what is open is as in the recipe `paper`, on every machine."""
    usual = NetworkSettings()
    backbone = usual.backbone if recipe.network.backbone == AUTO else recipe.network.backbone
    return recipe.replace(backbone=backbone, freeze_backbone=recipe.network.frozen)


def training_instead(asked: Recipe, used: Recipe, backbone: Backbone, device: torch.device) -> str:
    """What --no-freeze-backbone would do, and how long that would take, by a pass of a few images.

    Args:
        asked: the recipe before anything was decided.
        used: the one that was decided.
        backbone: with its weights.
        device: where it would be trained.
    """
    trained = with_method(asked.replace(freeze_backbone=False, backbone=used.network.backbone))
    images = planned_images(trained)
    seconds = images * pass_seconds(backbone, device) / TIMED
    return (
        f"--no-freeze-backbone --backbone {used.network.backbone} would train all of its layers instead: about "
        f"{duration(seconds)} here ({images} images forward and backward; timed on {TIMED})"
    )


def pass_seconds(backbone: Backbone, device: torch.device) -> float:
    """Seconds that `TIMED` images take forward and backward; weights and random numbers stay as they are."""
    size = backbone.image_size
    module = copy.deepcopy(backbone.module).to(device).to(memory_format=torch.channels_last).train()
    seconds = 0.0
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        for many in (WARMING, TIMED):
            images = torch.rand(many, 3, size, size, device=device).to(memory_format=torch.channels_last)
            begin = time.perf_counter()
            module(images).sum().backward()
            seconds = time.perf_counter() - begin
    return seconds
