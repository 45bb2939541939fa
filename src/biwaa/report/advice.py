"""What the settings at hand allow to try next: advice is data, each piece with the settings that it changes.

- no advice names a value that is set already, a flag that the run's method does not read, or what biwaa refuses
- what was measured to help comes first, with its figure; what was measured to be worse is not advised (`measured`)
- the machine counts: frozen features on a CPU, no backbone whose weights cannot be had
- a function looks at the recipe and gives advice, or None where it does not apply
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from biwaa.methods import METHODS
from biwaa.models.backbone import DIGITS, FEATURES
from biwaa.models.weight_files import at_hand
from biwaa.recipe import GROUP_OF, Recipe, load_recipe, with_method
from biwaa.report.measured import FROZEN, LEAST, TRAINED, WHERE_FROZEN, WHERE_TRAINED
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
    recipe: str = ""  # The named recipe that brings them


def as_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they are typed after `biwaa train`."""
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def reads(recipe: Recipe, setting: str) -> bool:
    """Whether the recipe's method reads a setting: one that all methods share, or one of its own groups."""
    method, group = METHODS.find(recipe.method), GROUP_OF[setting]
    return method is None or group not in OWN_GROUPS or group in method.groups


def adapt_to_all(recipe: Recipe) -> Advice | None:
    """Leave no class out."""
    if not reads(recipe, "absent_classes") or recipe.prototypes.absent_classes == "off":
        return None
    return Advice("--absent-classes off, which adapts to all of them", {"absent_classes": "off"})


def adapts(recipe: Recipe) -> bool:
    """Whether training sees the target at all."""
    method = METHODS.find(recipe.method)
    return method is None or method.sees_target


def _measured(recipe: Recipe) -> tuple[dict[str, float], str]:
    """How well each method did with such a backbone, and where."""
    return (FROZEN, WHERE_FROZEN) if recipe.network.frozen else (TRAINED, WHERE_TRAINED)


def robust_recipe(recipe: Recipe) -> Advice | None:
    """The default recipe; for small networks from random weights its variant `digits`."""
    small = recipe.network.backbone in DIGITS
    name = "digits" if small else "robust"
    frozen = recipe.network.freeze_backbone
    wanted, here = with_method(load_recipe(name).replace(freeze_backbone=frozen)).flat(), recipe.flat()
    table, where = _measured(recipe)
    if table[wanted["method"]] - table.get(recipe.method, 0) < LEAST:
        return None
    changed = {
        key: value for key, value in wanted.items()
        if GROUP_OF[key] != "machine" and key not in OF_THE_USER and here[key] != value
    }  # fmt: skip
    measured = f" ({table[wanted['method']]:g} % {where}; source-only {table['source_only']:g})"
    return Advice(f"--recipe {name}{measured if frozen or small else ''}", changed, recipe=name)


def freeze(recipe: Recipe, device: str) -> Advice | None:
    """Solve for a head on frozen features: on a CPU all layers cannot be trained for long enough."""
    network = recipe.network
    random = network.weights == "none" or network.backbone in DIGITS
    if device != "cpu" or network.freeze_backbone or random or recipe.method == "prototypes":
        return None
    changed = {"freeze_backbone": True, "method": "prototypes"}
    claim = "on art > cartoon 76.5 % right; 51.9 with all layers trained, 200 steps at 96 pixels"
    return Advice(f"--freeze-backbone --method prototypes ({claim})", changed)


def no_semantic_losses(recipe: Recipe) -> Advice | None:
    """Leave out the losses of BIWAA that have no bound."""
    on = {name: 0.0 for name in ("alignment", "separation") if getattr(recipe.biwaa, name)}
    if recipe.method != "biwaa" or not on:
        return None
    return Advice(" ".join(f"--{name} 0" for name in on), on)


def solved(recipe: Recipe) -> bool:
    """Whether the head is solved for: then no setting of the steps matters."""
    method = METHODS.find(recipe.method)
    return method is not None and method.solved(recipe.network.frozen)


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


def better_method(recipe: Recipe) -> Advice | None:
    """The method that was measured best, where that is better than the recipe's own."""
    table, where = _measured(recipe)
    best = max(table, key=lambda name: table[name])
    if recipe.method == best or table[best] - table.get(recipe.method, 0) < LEAST:
        return None
    beside = f"; {recipe.method} {table[recipe.method]:g}" if recipe.method in table else ""
    return Advice(f"--method {best} ({table[best]:g} % {where}{beside})", {"method": best})


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
    if not at_hand(name):
        return None
    return Advice(f"a stronger --backbone (such as {name}; not measured)", {"backbone": name})


def more_held_out(recipe: Recipe, images: int, wanted: int) -> Advice | None:
    """Keep a larger share of the source from training, where a sensible share gives enough."""
    share = recipe.data.source_held_out
    needed = math.ceil(100 * share * wanted / max(images, 1) - 1e-9) / 100
    if not share or needed > MOST_HELD_OUT:
        return None
    return Advice(f"a higher --source-held-out ({needed:g})", {"source_held_out": needed})


def gentler(recipe: Recipe, device: str) -> list[Advice | None]:
    """What harms less, the best first; nothing where nothing is adapted."""
    if not adapts(recipe):
        return []
    ways = [freeze(recipe, device), robust_recipe(recipe) or better_method(recipe)]
    return [*ways, no_semantic_losses(recipe), lower_learning_rate(recipe)]
