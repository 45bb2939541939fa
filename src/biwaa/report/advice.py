"""What the settings at hand allow to try next: advice is data, each piece with the settings that it changes.

- no advice names a value that is set already, a flag that the run's method does not read, or what biwaa refuses
- a function looks at the recipe and gives advice, or None where it does not apply
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from biwaa.methods import METHODS
from biwaa.models.backbone import DIGITS, FEATURES
from biwaa.recipe import GROUP_OF, Recipe, load_recipe, with_method
from biwaa.settings import MOST_STEPS

MOST_HELD_OUT = 0.5  # Share of the source above which keeping images from training costs more than it tells
OF_THE_USER = ("seed", "backbone", "weights", "freeze_backbone")
"""Settings that a user keeps when taking another recipe."""
OWN_GROUPS = {group for name in METHODS.built_in for group in METHODS[name].groups} - {"schedule"}
"""Groups of settings that belong to some methods alone."""


@dataclass(frozen=True)
class Advice:
    """One thing to try."""

    text: str  # Stands after "try"; names its flags
    settings: Mapping[str, Any]  # Settings of the recipe that it changes


def reads(recipe: Recipe, setting: str) -> bool:
    """Whether the recipe's method reads a setting: one that all methods share, or one of its own groups."""
    method, group = METHODS.find(recipe.method), GROUP_OF[setting]
    return method is None or group not in OWN_GROUPS or group in method.groups


def adapts(recipe: Recipe) -> bool:
    """Whether training sees the target at all."""
    method = METHODS.find(recipe.method)
    return method is None or method.sees_target


def robust_recipe(recipe: Recipe) -> Advice | None:
    """The recipe that was measured not to harm; for small networks from random weights its variant `digits`."""
    small = recipe.network.backbone in DIGITS
    name = "digits" if small else "robust"
    frozen = recipe.network.freeze_backbone
    wanted, here = with_method(load_recipe(name).replace(freeze_backbone=frozen)).flat(), recipe.flat()
    if recipe.method == wanted["method"]:
        return None
    changed = {
        key: value for key, value in wanted.items()
        if GROUP_OF[key] != "machine" and key not in OF_THE_USER and here[key] != value
    }  # fmt: skip
    measured = "" if small else " (below source-only on no task and seed of PACS)"
    return Advice(f"--recipe {name}{measured}", changed)


def no_semantic_losses(recipe: Recipe) -> Advice | None:
    """Leave out the losses of BIWAA that have no bound."""
    on = {name: 0.0 for name in ("alignment", "separation") if getattr(recipe.biwaa, name)}
    if recipe.method != "biwaa" or not on:
        return None
    return Advice(" ".join(f"--{name} 0" for name in on), on)


def solved(recipe: Recipe) -> bool:
    """Whether the head is solved for: then no setting of the steps matters."""
    method = METHODS.find(recipe.method)
    return method is not None and method.solved(recipe.network.freeze_backbone)


def lower_learning_rate(recipe: Recipe) -> Advice | None:
    """A third of it, to one digit."""
    if solved(recipe):
        return None
    rate = float(f"{recipe.optimizer.learning_rate / 3:.0e}")
    return Advice(f"--learning-rate {rate:g}", {"learning_rate": rate})


def more_steps(recipe: Recipe) -> Advice | None:
    """Twice as many."""
    steps = min(2 * recipe.schedule.steps, MOST_STEPS)
    idle = solved(recipe) or steps == recipe.schedule.steps
    return None if idle else Advice(f"--steps {steps}", {"steps": steps})


def other_method(recipe: Recipe) -> Advice:
    """One with few ways to fail."""
    name = "mcc" if recipe.method in ("self_training", "prototypes") else "self_training"
    return Advice(f"--method {name}", {"method": name})


def without_discriminator(recipe: Recipe) -> Advice | None:
    """A method that has none."""
    if recipe.method == "mcc":
        return None
    return Advice("--method mcc (it has no discriminator)", {"method": "mcc"})


def horizon(recipe: Recipe, factor: float) -> Advice | None:
    """Let the gradient's reversal ramp up sooner or later, where the method has a discriminator that does so."""
    steps = float(f"{recipe.dann.adversarial_horizon * factor:.2g}")
    idle = recipe.method == "biwaa" and not recipe.biwaa.adversarial
    if idle or not reads(recipe, "adversarial_horizon"):
        return None
    word = "shorter" if factor < 1 else "longer"
    return Advice(f"a {word} --adversarial-horizon ({steps:g})", {"adversarial_horizon": steps})


def higher_head_factor(recipe: Recipe) -> Advice:
    """Let the discriminator learn faster than the backbone."""
    factor = float(f"{recipe.optimizer.head_factor * 3:.2g}")
    return Advice(f"a higher --head-factor ({factor:g})", {"head_factor": factor})


def stronger_backbone(recipe: Recipe) -> Advice | None:
    """Better features to start from; not where features were given, nor where a network starts from random weights."""
    network = recipe.network
    if network.backbone == FEATURES or network.weights == "none" or network.backbone in DIGITS:
        return None
    name = "convnext_large" if network.backbone.startswith("convnext_base") else "convnext_base"
    if network.backbone.startswith(name) or network.weights != "auto":
        return None  # a file of weights fits its own network alone
    return Advice(f"a stronger --backbone (such as {name})", {"backbone": name})


def more_held_out(recipe: Recipe, images: int, wanted: int) -> Advice | None:
    """Keep a larger share of the source from training, where a sensible share gives enough."""
    share = recipe.data.source_held_out
    needed = math.ceil(100 * share * wanted / max(images, 1) - 1e-9) / 100
    if not share or needed > MOST_HELD_OUT:
        return None
    return Advice(f"a higher --source-held-out ({needed:g})", {"source_held_out": needed})


def gentler(recipe: Recipe) -> list[Advice]:
    """What harms less, at most two things, the best first; nothing where nothing is adapted."""
    if not adapts(recipe):
        return []
    ways = [robust_recipe(recipe), no_semantic_losses(recipe), lower_learning_rate(recipe), other_method(recipe)]
    return [way for way in ways if way][:2]
