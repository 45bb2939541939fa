"""The panel: data sets on which a default is judged, each an ordinary bench below one folder.

- DIR/PART is a bench of the study `panel`; parts of one data set share a column, as `label_shift.pacs` does
- a data set whose data are not there is left out with a sentence, which DIR/panel.json keeps
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock

from biwaa.bench.command import MissingDataError, plan
from biwaa.bench.grid import Bench, refuse_strangers
from biwaa.bench.suites import PANEL_STUDY
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.errors import BiwaaError, choices
from biwaa.files import write_text
from biwaa.progress import say
from biwaa.recipe import Recipe, load_recipe
from biwaa.settings import NetworkSettings
from biwaa.training.suited import same_everywhere


@dataclass(frozen=True)
class Part:
    """A bench of the panel."""

    data_set: str  # The column that it belongs to
    benchmark: str
    tasks: tuple[str, ...] = ()  # Empty for all of the benchmark's
    settings: dict[str, Any] = field(default_factory=dict)
    small: bool = False  # A domain has fewer images than a usual batch

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.data_set if self.data_set == self.benchmark else f"{self.data_set}.{self.benchmark}"

    @property
    def known(self) -> tuple[str, ...]:
        """All its tasks."""
        return self.tasks or BENCHMARKS[self.benchmark].tasks

    def recipe(self, recipe: Recipe) -> Recipe:
        """What its runs start from; small domains need small batches, and one in five images to judge by."""
        changed = dict(self.settings)
        if self.small:
            changed["batch_size"] = min(recipe.data.batch_size, 24)
            changed["source_held_out"] = 0.2 if recipe.data.source_held_out else 0.0
        return recipe.replace(self.name, **changed)


_SHIFT = {"source_shift": "long-tail:10", "target_shift": "reversed:10"}
_FIVE, _FIFTY = {"source_shift": "per-class:5"}, {"target_shift": "images:50"}
_SOME = {"pacs": 4, "office10": 5, "satellite": 4, "office_home_clip": 25, "grocery": 25}
"""The first classes, by their order: those of a partial target."""
PARTS = (
    *(Part(name, name) for name in ("pacs", "office10", "satellite", "office_home_clip", "grocery")),
    Part("label_shift", "pacs", ("P2A", "A2C", "C2S"), _SHIFT),
    Part("label_shift", "satellite", ("R2A",), _SHIFT),
    Part("label_shift", "office_home_clip", ("A2C", "P2R"), _SHIFT),
    Part("five_a_class", "pacs", ("A2P",), _FIVE, small=True),
    Part("five_a_class", "office10", ("A2W",), _FIVE, small=True),
    Part("five_a_class", "satellite", ("A2R",), _FIVE, small=True),
    Part("five_a_class", "office_home_clip", ("R2C",), _FIVE, small=True),
    Part("fifty_images", "pacs", ("C2A",), _FIFTY, small=True),
    Part("fifty_images", "office10", ("W2A",), _FIFTY, small=True),
    Part("fifty_images", "satellite", ("R2A",), _FIFTY, small=True),
    Part("fifty_images", "grocery", ("clean2corrupted2",), _FIFTY, small=True),
    *(
        Part("partial", name, settings={"target_shift": f"classes:1-{some}"}, small=True)
        for name, some in _SOME.items()
    ),
)


def panel_recipe(name: str) -> Recipe:
    """A recipe on frozen features of EfficientNet-Lite0, unless it names another backbone or freezes one itself.

    Raises:
        BiwaaError: as for `load_recipe`.
    """
    recipe, usual = same_everywhere(load_recipe(name)), NetworkSettings()
    if recipe.network.freeze_backbone or recipe.network.backbone != usual.backbone:
        return recipe
    return recipe.replace(PANEL_STUDY, backbone="tf_efficientnet_lite0", freeze_backbone=True)


def plan_panel(
    recipe: Recipe, tasks: tuple[str, ...], methods: tuple[str, ...], seeds: tuple[int, ...], data_root: Path
) -> tuple[dict[str, Bench], dict[str, str]]:
    """What an invocation asks for: benches by their part's name, and why parts are left out.

    Args:
        recipe: what all parts start from.
        tasks: DATASET or DATASET:TASK, a part's name too; empty for all.
        methods: as of `plan`.
        seeds: of training.
        data_root: where benchmarks lie.

    Raises:
        BiwaaError: no such data set or task, nothing is there, or as of `plan`.
    """
    benches, left_out = {}, {}
    for part, named in _chosen(tasks):
        entry = BENCHMARKS[part.benchmark]
        suite = f"{part.benchmark}/{PANEL_STUDY}"
        try:
            benches[part.name] = plan(suite, part.recipe(recipe), {}, named, methods, seeds, data_root)
        except MissingDataError as error:
            left_out[part.name] = f"{str(error).rstrip('.')}. To get it: {entry.where}."
            say(f"left out {part.name}: {left_out[part.name]}")
    if not benches:
        raise BiwaaError(f"none of the panel's data sets that were asked for is complete below {data_root}.")
    return benches, left_out


def _chosen(words: Iterable[str]) -> Iterator[tuple[Part, tuple[str, ...]]]:
    """The parts that are asked for, in order, each with its tasks."""
    found: dict[str, list[str]] = {}
    for word in words:
        data_set, colon, task = word.partition(":")
        parts = [part for part in PARTS if data_set in (part.data_set, part.name)]
        if not parts:
            names = dict.fromkeys(part.data_set for part in PARTS)
            raise BiwaaError(f"the panel has no data set {data_set!r}: {choices(data_set, names)}.")
        having = {part.name: _tasks(part, task) if colon else part.known for part in parts}
        if not any(having.values()):
            known = dict.fromkeys(name for part in parts for name in part.known)
            raise BiwaaError(f"no task {task!r} in the panel's {data_set}: {choices(task, known)}.")
        for name, some in having.items():
            found.setdefault(name, []).extend(some)
    for part in PARTS:
        tasks = tuple(found.get(part.name, ())) if found else part.known
        if tasks:
            yield part, tasks


def _tasks(part: Part, task: str) -> tuple[str, ...]:
    entry = BENCHMARKS[part.benchmark]
    try:
        name = entry.task_name(*entry.task(task))
    except BiwaaError:
        return ()
    return (name,) if name in part.known else ()


def enrol_panel(folder: Path, left_out: dict[str, str]) -> None:
    """Make `folder` a panel's, or keep it one, and note which parts are left out.

    Raises:
        BiwaaError: the folder holds something else.
    """
    refuse_strangers(folder, "panel")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "panel.lock"):
        there = parts_left_out(folder) if is_panel(folder) else {}
        write_text(folder / "panel.json", json.dumps({"left_out": {**there, **left_out}}, indent=2) + "\n")


def is_panel(folder: Path) -> bool:
    """Whether a folder is a panel's."""
    return (folder / "panel.json").is_file()


def parts_left_out(folder: Path) -> dict[str, str]:
    """Why parts are left out, by name.

    Raises:
        BiwaaError: the folder holds no panel.
    """
    try:
        found = msgspec.json.decode((folder / "panel.json").read_bytes(), type=dict[str, dict[str, str]])
        return found["left_out"]
    except (OSError, msgspec.DecodeError, KeyError):
        raise BiwaaError(f"{folder} holds no panel: there is no readable panel.json in it.") from None
