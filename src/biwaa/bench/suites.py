"""What a benchmark compares: named studies, each a list of variants of one recipe.

- `methods` sets every method beside its rivals; the others take BIWAA apart
- a variant is a name that is stable over invocations, and the settings that it changes
- each names the source-only run that stands beside it in the pool of candidates
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from biwaa.errors import BiwaaError
from biwaa.methods import METHODS
from biwaa.recipe import Recipe

SOURCE_ONLY = "source_only"


@dataclass(frozen=True)
class Variant:
    """A column of a comparison: one way to train."""

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    source_only: str = SOURCE_ONLY
    """The variant that is its source-only."""


TITLES = {
    "biwaa": "BIWAA", "source_only": "source-only", "linear_probe": "linear probe", "dann": "DANN", "cdan": "CDAN",
    "cdan_e": "CDAN+E", "mdd": "MDD", "mstn": "MSTN", "mcc": "MCC", "bnm": "BNM", "deep_coral": "DeepCORAL",
    "dan": "DAN", "self_training": "self-training", "pace": "PACE-like", "fixmatch": "FixMatch",
}  # fmt: skip
"""How tables call the methods."""

WEIGHTING_ALONE: dict[str, Any] = {"alignment": 0.0, "separation": 0.0}
"""Settings that switch the semantic losses off."""

_ONLY = Variant(SOURCE_ONLY, TITLES[SOURCE_ONLY], {"method": SOURCE_ONLY, "rounds": 1})


def method(name: str, recipe: Recipe, rounds: int | None = None) -> Variant:
    """A method as its paper has it: BIWAA in the recipe's rounds, every other in one; or in `rounds`."""
    title = TITLES.get(name, name)
    if rounds:
        return Variant(f"{name}@{rounds}", f"{title}, {rounds} rounds", {"method": name, "rounds": rounds})
    many = recipe.schedule.rounds if name == "biwaa" else 1
    return Variant(name, f"{title}, {many} rounds" if many > 1 else title, {"method": name, "rounds": many})


def _methods(recipe: Recipe) -> list[Variant]:
    order = dict.fromkeys([SOURCE_ONLY, "linear_probe", *(name for name in METHODS if name != "biwaa"), "biwaa"])
    return [method(name, recipe) for name in order if not _ruled_out(name, recipe)]


def _ruled_out(name: str, recipe: Recipe) -> str:
    """Why a method takes no part with such a recipe; empty where it does."""
    if recipe.network.freeze_backbone and METHODS[name].strong_view:
        return f"{name} needs images to augment: it does not go with --freeze-backbone."
    if recipe.network.weights == "none" and METHODS[name].frozen:
        return f"{name} stands on the backbone's features: it does not go with --weights none."
    return ""


def _many(name: str, title: str, **settings: Any) -> Variant:
    return Variant(name, title, {"method": "biwaa", **settings})


def _one(name: str, title: str, **settings: Any) -> Variant:
    return _many(name, title, rounds=1, **settings)


def _parts(recipe: Recipe) -> list[Variant]:
    return [
        _ONLY,
        _one("plain", "DANN (no weighting, no semantic losses)", weighting=False, **WEIGHTING_ALONE),
        _one("weighting", "weighting alone", **WEIGHTING_ALONE),
        _one("semantic", "semantic losses alone (no weighting)", weighting=False),
        _one("no_separation", "without separation", separation=0.0),
        _one("no_alignment", "without alignment", alignment=0.0),
        _one("all", "all parts"),
    ]


def _scale(recipe: Recipe) -> list[Variant]:
    return [
        _ONLY,
        *(_one(f"scale{value}", f"weight scale {value}", weight_scale=float(value)) for value in (1, 5, 10, 20)),
        *(
            _one(f"weighting_scale{value}", f"weighting alone, scale {value}", weight_scale=float(value),
                 **WEIGHTING_ALONE)
            for value in (1, 5, 10, 20)
        ),
    ]  # fmt: skip


def _distribution(recipe: Recipe) -> list[Variant]:
    return [
        _ONLY,
        _many("independent", "no label distribution alignment", iterate=False),
        *(_many(f"update{value}", f"update factor {value}", round_update=value) for value in (0.0, 0.2, 0.5, 1.0)),
    ]


def _rounds(recipe: Recipe) -> list[Variant]:
    return [
        _ONLY,
        _many("rounds", f"BIWAA, {recipe.schedule.rounds} rounds"),
        _many("weighting_rounds", f"weighting alone, {recipe.schedule.rounds} rounds", **WEIGHTING_ALONE),
    ]


def _compute(recipe: Recipe) -> list[Variant]:
    many = recipe.schedule.rounds
    return [
        _ONLY,
        _many("long", f"one round, {many} times as long", rounds=1, steps=recipe.schedule.steps * many),
        _many("independent", f"{many} independent rounds", iterate=False),
        _many("iterative", f"{many} iterative rounds"),
    ]


SHIFTS = (("none", "none"), ("long-tail:10", "reversed:10"), ("dirichlet:1:1", "dirichlet:1:2"))


def _shift(recipe: Recipe) -> list[Variant]:
    found = []
    for source, target in SHIFTS:
        mark = re.sub(r"[^a-z0-9]+", "-", f"{source} {target}") if source != "none" else "as-is"
        where = f"{source} > {target}" if source != "none" else "as it is"
        shift: dict[str, Any] = {"method": "biwaa", "source_shift": source, "target_shift": target}
        one = {**shift, "rounds": 1}
        for name, title, settings in (
            (SOURCE_ONLY, "source-only", {**one, "method": SOURCE_ONLY}),
            ("mcc", "MCC", {**one, "method": "mcc"}),
            ("weighting", "weighting alone", {**shift, **WEIGHTING_ALONE}),
            ("weighting-independent", "weighting alone, independent rounds",
             {**shift, **WEIGHTING_ALONE, "iterate": False}),
            ("biwaa", "BIWAA", shift),
            ("biwaa-independent", "BIWAA, independent rounds", {**shift, "iterate": False}),
        ):  # fmt: skip
            found.append(Variant(f"{name}.{mark}", f"{title} ({where})", settings, f"{SOURCE_ONLY}.{mark}"))
    return found


def _robust(recipe: Recipe) -> list[Variant]:
    """What each ingredient of the recipe `robust` is worth: one left out, or one of the paper's put back."""
    ramp = 4.0 * recipe.schedule.steps
    return [
        _ONLY,
        _many("full", "as it is"),
        _many("no_teacher", "teacher without neighbours and distribution", teacher=False),
        _many("no_damping", "label distribution as predicted", distribution_damping=1.0),
        _many("even", "label distribution even", distribution_damping=0.0),
        _many("iterative", "every round taught by those before", scouts=1),
        _many("no_taught", "no taught round", scouts=recipe.schedule.rounds),
        _many("no_confusion", "without class confusion", confusion=0.0),
        _many("no_dropout", "without input dropout", input_dropout=0.0),
        _many("weighting", "with the weighted discriminator", adversarial=1.0, adversarial_horizon=ramp),
        _many("plain", "with an unweighted discriminator", adversarial=1.0, weighting=False, adversarial_horizon=ramp),
        _many("weighting_only", "weighted discriminator in the place of confusion", confusion=0.0, adversarial=1.0,
              adversarial_horizon=ramp),
    ]  # fmt: skip


STUDIES: dict[str, Callable[[Recipe], list[Variant]]] = {
    "methods": _methods,
    "parts": _parts,
    "scale": _scale,
    "distribution": _distribution,
    "rounds": _rounds,
    "compute": _compute,
    "shift": _shift,
    "robust": _robust,
}
"""By name; what each compares, given the recipe that all start from."""


def variants(study: str, recipe: Recipe, asked: tuple[str, ...]) -> list[Variant]:
    """The variants of a study, or those `asked` for, source-only always among them.

    Args:
        study: its name.
        recipe: what all start from.
        asked: names of variants; in `methods` also METHOD@ROUNDS. Empty for all.

    Raises:
        BiwaaError: no such study or variant, or a method that the recipe rules out.
    """
    if study not in STUDIES:
        raise BiwaaError(f"no study {study!r}: there are {', '.join(STUDIES)}.")
    known = {variant.name: variant for variant in STUDIES[study](recipe)}
    chosen = []
    for name in asked or known:
        plain, _, rounds = name.partition("@")
        if re.fullmatch(r"[1-9][0-9]*", rounds) and study == "methods" and plain in known:
            chosen.append(method(plain, recipe, int(rounds)))
        elif name in known:
            chosen.append(known[name])
        elif study == "methods" and plain in METHODS and (reason := _ruled_out(plain, recipe)):
            raise BiwaaError(reason)
        else:
            more = "; METHOD@ROUNDS trains a method in rounds" if study == "methods" else ""
            raise BiwaaError(f"no method {name!r} in {study}: there are {', '.join(known)}{more}.")
    needed = [known[variant.source_only] for variant in chosen]
    every = {variant.name: variant for variant in [*needed, *chosen]}
    return list(every.values())


def resolve(variant: Variant, recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one run; source-only is a run of its own, so none trains it twice."""
    return recipe.replace(variant.name, baseline=False, seed=seed, **variant.settings)
