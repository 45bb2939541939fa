"""What a benchmark compares: named studies, each a list of variants of one recipe.

- `methods` compares the methods; the others take BIWAA apart, `robust` the recipe of that name
- a variant is a name that is stable over invocations, and the settings that it changes
- each names its source-only run, which is in the pool of candidates
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from biwaa.errors import BiwaaError, choices
from biwaa.methods import METHODS
from biwaa.named_recipes import NAMED
from biwaa.recipe import AUTO, Recipe

SOURCE_ONLY = "source_only"


@dataclass(frozen=True)
class Variant:
    """A column of a comparison: one way to train."""

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    source_only: str = SOURCE_ONLY  # The variant that is its source-only


TITLES = {
    "biwaa": "BIWAA", "source_only": "source-only", "linear_probe": "linear probe", "dann": "DANN", "cdan": "CDAN",
    "cdan_e": "CDAN+E", "mdd": "MDD", "mstn": "MSTN", "mcc": "MCC", "bnm": "BNM", "deep_coral": "DeepCORAL",
    "dan": "DAN", "self_training": "self-training", "pace": "PACE-like", "fixmatch": "FixMatch",
    "mcc_teacher": "MCC + teacher", "prototypes": "prototypes",
}  # fmt: skip
"""How tables call the methods."""
METHODS_STUDY = "methods"  # The study that compares methods
PANEL_STUDY = "panel"  # The one that compares those of the panel
PANEL_METHODS = (SOURCE_ONLY, "mcc", "pace", "self_training", "prototypes", "mcc_teacher")
IN_ROUNDS = ("mcc_teacher", "biwaa")  # Methods whose later rounds learn from earlier ones

WEIGHTING_ALONE: dict[str, Any] = {"alignment": 0.0, "separation": 0.0}  # Settings that switch the semantic losses off

_ONLY = Variant(SOURCE_ONLY, TITLES[SOURCE_ONLY], {"method": SOURCE_ONLY, "rounds": 1})


def method(name: str, recipe: Recipe, rounds: int | None = None) -> Variant:
    """A method as it was published: those of `IN_ROUNDS` in the recipe's rounds, every other in one; or in `rounds`."""
    title = TITLES.get(name, name)
    if name == "mcc_teacher" and not recipe.schedule.smooth_rounds:
        title = "MCC + pseudo-labels of earlier rounds"  # what it is without the teacher of the recipe robust
    if name == "biwaa" and recipe.biwaa.cosine_pull:
        title = "BIWAA, bounded"  # as in the recipe biwaa
    if rounds:
        return Variant(f"{name}@{rounds}", f"{title}, {rounds} rounds", {"method": name, "rounds": rounds})
    many = recipe.schedule.rounds if name in IN_ROUNDS else 1
    settings: dict[str, Any] = {"method": name, "rounds": many}
    if name == "prototypes":
        settings["baseline"] = True  # its estimate and its choice need source-only beside it, which takes seconds
    return Variant(name, f"{title}, {many} rounds" if many > 1 else title, settings)


def _methods(recipe: Recipe) -> list[Variant]:
    # Of plug-ins only those that are asked for take part: a whole table does not depend on what is installed.
    others = [name for name in METHODS if name in METHODS.built_in and name not in IN_ROUNDS]
    order = dict.fromkeys([SOURCE_ONLY, "linear_probe", *others, *IN_ROUNDS])
    return [method(name, recipe) for name in order if not _ruled_out(name, recipe)]


def _panel(recipe: Recipe) -> list[Variant]:
    names = [name for name in dict.fromkeys((*PANEL_METHODS, recipe.method)) if name != AUTO]
    return [method(name, recipe) for name in names if not _ruled_out(name, recipe)]


def _ruled_out(name: str, recipe: Recipe) -> str:
    """Why a method takes no part with such a recipe; empty where it does."""
    if recipe.network.freeze_backbone and METHODS[name].strong_view:
        return f"{name} needs images to augment: train with --no-freeze-backbone, or leave {name} out."
    if recipe.network.weights == "none" and METHODS[name].frozen:
        return f"{name} needs a pretrained backbone: give --weights auto or a file, or leave {name} out."
    return ""


def _many(name: str, title: str, **settings: Any) -> Variant:
    """A variant of the paper's method."""
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
    """What each ingredient of the recipe `robust` is worth: one is left out or changed.

    Earlier versions also put BIWAA's weighted or plain discriminator into this recipe, which no method does any more.
    Those figures stay in benchmarks/results (pacs-robust-ablation, pacs-robust-ablation-weighting); the commit that
    added them has the version that made them.
    """

    def part(name: str, title: str, **settings: Any) -> Variant:
        return Variant(name, title, {"method": "mcc_teacher", **settings})

    return [
        _ONLY,
        part("full", "as it is"),
        part("no_teacher", "teacher without neighbours and distribution", smooth_rounds=False),
        part("no_damping", "class shares as predicted", distribution_damping=1.0),
        part("even", "class shares even", distribution_damping=0.0),
        part("iterative", "every round learns from those before", scouts=1),
        part("scouts_alone", "no round learns from others", scouts=recipe.schedule.rounds),
        part("no_confusion", "without class confusion", confusion=0.0),
        part("no_dropout", "without input dropout", input_dropout=0.0),
    ]


def _recipes(recipe: Recipe) -> list[Variant]:
    """What the recipes `paper`, `biwaa` and `robust` train, and the paper's parts, on one schedule.

    The recipes' methods have its rounds, all others one; source-only also has twice the steps: has it converged?
    """
    rounds = recipe.schedule.rounds
    frame: dict[str, Any] = {"smooth_rounds": True, "round_update": 0.0, "scouts": max(rounds - 1, 1)}
    default = {name: NAMED["robust"][name] for name in ("input_dropout", "confusion_temperature")}
    safe = {name: NAMED["biwaa"][name] for name in ("cosine_pull", "earlier_rounds")}
    # Whatever recipe they start from:
    paper: dict[str, Any] = {"cosine_pull": False, "earlier_rounds": 0.0}
    paper |= {"smooth_rounds": False, "round_update": 0.2, "scouts": 1}
    return [
        _ONLY,
        Variant(
            "source_only_long", "source-only, twice the steps",
            {**_ONLY.settings, "steps": 2 * recipe.schedule.steps},
        ),
        _one("dann", "DANN", weighting=False, **WEIGHTING_ALONE),
        _one("weighting", "weighting alone", **WEIGHTING_ALONE),
        _one("semantic", "semantic losses alone, no discriminator", weighting=False, adversarial=0.0, **paper),
        _many("paper", f"all of the paper (recipe paper), {rounds} rounds", **paper),
        _many("biwaa", f"bounded + teacher (recipe biwaa), {rounds} rounds", **safe, **frame),
        _many(
            "dann_teacher", f"DANN + teacher, {rounds} rounds",
            weighting=False, **WEIGHTING_ALONE, earlier_rounds=safe["earlier_rounds"], **frame,
        ),
        Variant("mcc", "MCC", {"method": "mcc", "rounds": 1}),
        Variant(
            "robust", f"MCC + teacher (recipe robust), {rounds} rounds",
            {"method": "mcc_teacher", **default, **frame},
        ),
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
    "recipes": _recipes,
    PANEL_STUDY: _panel,
}  # By name; what each compares, given the recipe that all start from


def variants(study: str, recipe: Recipe, asked: tuple[str, ...]) -> list[Variant]:
    """The variants of a study, or those `asked` for, source-only always among them.

    Args:
        study: its name.
        recipe: what all start from.
        asked: names of variants; in `methods` and `panel` also METHOD@ROUNDS. Empty for all.

    Raises:
        BiwaaError: no such study or variant, or a method that the recipe rules out.
    """
    if study not in STUDIES:
        raise BiwaaError(f"no study {study!r}: {choices(study, STUDIES)}.")
    known = {variant.name: variant for variant in STUDIES[study](recipe)}
    chosen = [known[name] if name in known else _asked(study, name, known, recipe) for name in asked or known]
    needed = [known[variant.source_only] for variant in chosen]
    every = {variant.name: variant for variant in [*needed, *chosen]}
    return list(every.values())


def _asked(study: str, name: str, known: Collection[str], recipe: Recipe) -> Variant:
    """A variant that is asked for by name and not in the study's own list: METHOD@ROUNDS, or a plug-in's method."""
    if study not in (METHODS_STUDY, PANEL_STUDY):
        raise BiwaaError(f"no variant {name!r} in {study}: {choices(name, known)}.")
    plain, at, rounds = name.partition("@")
    if at and not re.fullmatch(r"[1-9][0-9]*", rounds):
        raise BiwaaError(f"no method {name!r} in {study}: METHOD@ROUNDS trains a method in rounds, as in dann@3.")
    METHODS[plain]  # asks plug-ins; raises where there is none
    if reason := _ruled_out(plain, recipe):
        raise BiwaaError(reason)
    return method(plain, recipe, int(rounds) if at else None)


def resolve(variant: Variant, recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one run; source-only is a run of its own, so none trains it twice."""
    return recipe.replace(variant.name, **{"baseline": False, "seed": seed, **variant.settings})
