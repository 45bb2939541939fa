"""A recipe: all settings of a run, in groups; and the named recipes.

- the defaults are the recipe `paper`: WACV 2023 and the published implementation's defaults
- `robust` is what `biwaa train` uses unless told otherwise: chosen by ablation (docs/robust.md)
- a recipe file holds some of the settings, under their groups' names or flat; the rest keep their defaults
- command-line flags win over the recipe; the run folder keeps the resolved whole as recipe.yaml
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_origin, get_type_hints

import msgspec
import yaml

from biwaa.errors import BiwaaError, choices, nearest, one_line
from biwaa.files import local
from biwaa.methods import METHODS
from biwaa.methods.biwaa import BiwaaSettings
from biwaa.methods.dann import DannSettings
from biwaa.methods.mcc import MccSettings
from biwaa.methods.mcc_teacher import MccTeacherSettings
from biwaa.methods.prototypes import PrototypesSettings
from biwaa.named_recipes import NAMED
from biwaa.result import LAST
from biwaa.settings import DataSettings, MachineSettings, NetworkSettings, OptimizerSettings, ScheduleSettings

RESUMABLE = ("device", "log_every", "checkpoint_every")
"""Settings that change no figure: they may differ when a run or a bench goes on."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a run."""

    method: str = "biwaa"
    """How the domains are adapted; auto: prototypes on a frozen backbone, else mcc_teacher."""
    seed: int = 42
    """Seed of random numbers; round r uses seed + 100 r."""
    data: DataSettings = field(default_factory=DataSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    dann: DannSettings = field(default_factory=DannSettings)
    biwaa: BiwaaSettings = field(default_factory=BiwaaSettings)
    mcc: MccSettings = field(default_factory=MccSettings)
    mcc_teacher: MccTeacherSettings = field(default_factory=MccTeacherSettings)
    prototypes: PrototypesSettings = field(default_factory=PrototypesSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if not 0 <= self.seed < 2**31:
            raise BiwaaError(f"seed must lie between 0 and 2^31, not {self.seed}.")
        size, ranks = self.data.batch_size, self.machine.devices * self.machine.num_nodes
        if size % ranks:
            near = max(size - size % ranks, ranks)
            raise BiwaaError(f"a batch of {size} cannot be divided over {ranks} processes: set --batch-size {near}.")

    def flat(self) -> dict[str, Any]:
        """Every setting by its own name, without groups."""
        return {name: getattr(getattr(self, group) if group else self, name) for name, group in GROUP_OF.items()}

    def replace(self, where: str = "the recipe", **settings: Any) -> Self:
        """A recipe with some settings changed, each by its own name.

        Raises:
            BiwaaError: as for `recipe_from`; `where` names the origin of `settings`.
        """
        return recipe_from({**self.flat(), **flattened(settings, where)}, where)  # type: ignore[return-value]


AUTO = "auto"
"""The method, or the choice, that follows from whether the backbone is frozen."""
NUCLEAR_NORM = "nuclear_norm"


def with_method(recipe: Recipe) -> Recipe:
    """The recipe with `auto` resolved, in its method and its choice; a method without any random part has one round."""
    if recipe.method == AUTO:
        solved = {"method": "prototypes", "rounds": 1} if recipe.network.freeze_backbone else {"method": "mcc_teacher"}
        recipe = recipe.replace(**solved)
    if recipe.schedule.choice == AUTO:
        recipe = recipe.replace(choice=LAST if METHODS[recipe.method].solved(recipe.network.frozen) else NUCLEAR_NORM)
    return recipe


def _group_of() -> dict[str, str]:
    """Every setting's group, "" for those of the recipe itself."""
    found: dict[str, str] = {}
    for entry in dataclasses.fields(Recipe):
        if entry.default is not dataclasses.MISSING:
            found[entry.name] = ""
        else:
            assert isinstance(entry.type, type)  # a group is a dataclass
            found |= {inner.name: entry.name for inner in dataclasses.fields(entry.type)}
    return found


GROUP_OF = _group_of()
"""Setting -> its group."""


def _texts() -> set[str]:
    """Settings that are words."""
    groups = [entry.type for entry in dataclasses.fields(Recipe) if isinstance(entry.type, type)]
    hints = {name: hint for kind in (Recipe, *groups) for name, hint in get_type_hints(kind).items()}
    return {name for name in GROUP_OF if hints[name] is str or get_origin(hints[name]) is Literal}


TEXTS = _texts()


def load_recipe(name: str) -> Recipe:
    """Resolve a recipe's name or YAML file.

    Raises:
        BiwaaError: unknown name, unreadable file, unknown key (the nearest is named) or a value of the wrong type.
    """
    if name in NAMED:
        return recipe_from(NAMED[name], name)
    settings = _read(local(name))
    settings.pop("tasks", None)
    return recipe_from(settings, name)


def task_settings(name: str) -> dict[str, dict[str, Any]]:
    """What a recipe's file changes for single tasks of a benchmark, by task; only `biwaa bench` knows tasks.

    Raises:
        BiwaaError: they are not settings by task, or as for `load_recipe`.
    """
    special = {} if name in NAMED else _read(local(name)).get("tasks") or {}
    if not isinstance(special, dict) or not all(isinstance(changed, dict) for changed in special.values()):
        raise BiwaaError(
            f"{name}: tasks must hold settings by task, as in `tasks: {{A2D: {{learning_rate: 0.0003}}}}`."
        )
    return {str(task): changed for task, changed in special.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BiwaaError(f"no recipe {str(path)!r}, and no such file: {choices(str(path), NAMED)}.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # on hostile text the reader raises KeyError, RecursionError, AttributeError ..
        raise BiwaaError(f"{path} is not readable as YAML: {one_line(error)}.") from None
    if not isinstance(settings, dict):
        raise BiwaaError(f"{path} must hold settings as `name: value` lines.")
    return settings


def flattened(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings by their own names, of some that stand under their groups' names and some that do not.

    Raises:
        BiwaaError: an unknown name; the nearest known one is suggested.
    """
    groups = set(GROUP_OF.values()) - {""}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        nested = key in groups and isinstance(value, Mapping)
        inside = value if nested else {key: value}
        for name in inside:
            if name not in GROUP_OF:
                raise _unknown(str(name)[:100], where)
            if nested and GROUP_OF[name] != key:
                raise BiwaaError(f"{where}: {name} does not belong under {key} but {_place(name)}.")
        found |= inside
    return found


def _place(name: str) -> str:
    return f"under {GROUP_OF[name]}" if GROUP_OF[name] else "at the top"


def _unknown(name: str, where: str) -> BiwaaError:
    near = nearest(name, GROUP_OF)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(GROUP_OF)}."
    return BiwaaError(f"{where}: unknown setting {name!r}; {hint}")


def recipe_from(settings: Mapping[str, Any], where: str) -> Recipe:
    """Check names and types of `settings`, grouped or flat; `where` names their origin in errors.

    Raises:
        BiwaaError: an unknown name, or a value of the wrong type or out of range.
    """
    grouped: dict[str, Any] = {}
    for name, value in flattened(settings, where).items():
        if name in TEXTS and isinstance(value, bool | float):  # YAML reads `off` as false, and 0.3 as a number
            value = {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value:g}"
        group = GROUP_OF[name]
        if group:
            grouped.setdefault(group, {})[name] = value
        else:
            grouped[name] = value
    try:
        return msgspec.convert(grouped, Recipe)
    except msgspec.ValidationError as error:
        raise BiwaaError(f"{where}: {error}.") from None


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 over all settings but threads and those of `RESUMABLE`: runs with one digest had the same settings."""
    settings = {name: value for name, value in recipe.flat().items() if name not in (*RESUMABLE, "threads")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, in its groups, readable by `load_recipe`."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)
