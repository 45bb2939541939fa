"""The grid: a list of independent runs with stable names, and the folder that keeps them.

- DIR/bench.json says what is compared; DIR/runs/NAME is one run's folder, NAME is TASK.VARIANT.SEED
- a later invocation may add tasks, variants and seeds; one with other settings is refused
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from biwaa.bench.suites import Variant, resolve
from biwaa.domains.catalogue import BENCHMARKS, Benchmark
from biwaa.errors import BiwaaError
from biwaa.files import write_text
from biwaa.recipe import RESUMABLE, Recipe, recipe_from
from biwaa.registry import plugin_files
from biwaa.result import Result, read_result

FORMAT = 2  # Of bench.json; 1 had no number, and the method `biwaa` stood for that of the recipe `robust` too.
DECIDED = ("seed", "method", "baseline")  # Settings that the grid decides


@dataclass(frozen=True)
class Work:
    """One run of the grid; plain values, so that it travels to other processes and machines."""

    name: str
    source: str
    target: str
    held_out: str | None
    recipe: dict[str, Any]
    data_root: Path
    folder: Path  # The bench's folder
    keep_models: bool = False
    plugins: tuple[Path, ...] = ()  # Files that register what it needs
    wait: bool = False  # Wait for another process that trains this run; otherwise leave it to that one

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / self.name

    @property
    def log(self) -> Path:
        """What the process that trains it prints."""
        return self.run.with_name(f"{self.name}.log")

    @property
    def failed(self) -> Path:
        """Says why, where the last try failed."""
        return self.run.with_name(f"{self.name}.failed")

    @property
    def running(self) -> Path:
        """Holds the number of tries while the run is being trained, and after its process died."""
        return self.run.with_name(f"{self.name}.running")

    def failure(self) -> str | None:
        """What NAME.failed says; None where there is none."""
        try:
            return self.failed.read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def result(self) -> Result | None:
        """The result of a finished run; None of one that is not."""
        try:
            found = read_result(self.run)
        except BiwaaError:
            return None
        return found if found.finished else None


@dataclass(frozen=True)
class Bench:
    """What is compared, as bench.json has it."""

    benchmark: str
    study: str
    settings: dict[str, Any]  # The whole recipe that all variants start from
    task_settings: dict[str, dict[str, Any]]
    """What single tasks change of it, also tasks that are not among `tasks` yet."""
    tasks: tuple[str, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()  # Where the data are not the benchmark's

    @property
    def entry(self) -> Benchmark:
        """The benchmark's entry in the catalogue."""
        return BENCHMARKS[self.benchmark]

    @property
    def recipe(self) -> Recipe:
        """What all variants start from; settings younger than the bench have their defaults."""
        return recipe_from(self.settings, "bench.json")

    def works(self, folder: Path, data_root: Path, keep_models: bool = False) -> list[Work]:
        """All runs: seed by seed, so that a first whole table is there early."""
        found = []
        for seed in self.seeds:
            for task in self.tasks:
                source, target = self.entry.task(task)
                base = recipe_from({**self.settings, **self.task_settings.get(task, {})}, "bench.json")
                test = self.entry.task_domains(source, target)[2:]
                held_out = f"{self.benchmark}:{test[0]}" if test else None
                for variant in self.variants:
                    recipe = resolve(variant, base, seed).flat()
                    found.append(
                        Work(
                            f"{task}.{variant.name}.{seed}", f"{self.benchmark}:{source}",
                            f"{self.benchmark}:{target}", held_out, recipe, data_root, folder, keep_models,
                            plugin_files(),
                        )
                    )  # fmt: skip
        return found


def load_bench(folder: Path) -> Bench:
    """What a bench folder compares.

    Raises:
        BiwaaError: the folder holds no bench, or one of an earlier version, whose settings meant something else.
    """
    try:
        facts = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
        if facts.pop("format", 1) != FORMAT:
            raise BiwaaError(
                f"{folder} holds a bench of another version of biwaa: read its table.md, or show it with that version."
            )
        variants = tuple(Variant(**variant) for variant in facts.pop("variants"))
        lists = {name: tuple(facts.get(name, ())) for name in ("tasks", "seeds", "notes")}
        return Bench(**{**facts, **lists}, variants=variants)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BiwaaError(f"{folder} holds no bench with a readable bench.json: name the folder of one.") from None


def refuse_strangers(folder: Path, kind: str) -> None:
    """Refuse a folder that holds something else than a bench or a panel, whichever `kind` is.

    Raises:
        BiwaaError: it is not empty, and KIND.json is not there.
    """
    if not folder.is_dir() or (folder / f"{kind}.json").exists():
        return
    # Another process may be making its own right now: a lock and a draft of KIND.json are no strangers.
    strangers = [path.name for path in folder.iterdir() if not path.name.startswith((f".{kind}.json", f"{kind}."))]
    if strangers:
        raise BiwaaError(f"{folder} is not empty and holds no {kind} ({strangers[0]}): name another folder.")


def enrol(bench: Bench, folder: Path) -> Bench:
    """Write bench.json, or add to the one that is there what is new in `bench`; the two together.

    Raises:
        BiwaaError: the folder holds another bench, or something else.
    """
    refuse_strangers(folder, "bench")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "bench.lock"):
        if (folder / "bench.json").exists():
            bench = _joined(load_bench(folder), bench, folder)
        facts = {"format": FORMAT} | dataclasses.asdict(bench)
        write_text(folder / "bench.json", json.dumps(facts, indent=2) + "\n")
    return bench


def _joined(there: Bench, new: Bench, folder: Path) -> Bench:
    if (there.benchmark, there.study) != (new.benchmark, new.study):
        raise BiwaaError(
            f"{folder} holds the bench {there.benchmark}/{there.study}, not {new.benchmark}/{new.study}: "
            "name another folder."
        )
    fixed = [name for name in new.settings if name not in (*RESUMABLE, *DECIDED)]
    earlier = there.recipe.flat()
    changed = [name for name in fixed if earlier[name] != new.settings[name]]
    if changed:
        was, now = earlier[changed[0]], new.settings[changed[0]]
        raise BiwaaError(
            f"the runs in {folder} have {changed[0]} = {was}, not {now}: name another folder, or go on as before."
        )
    if there.task_settings != new.task_settings:
        raise BiwaaError(f"the runs in {folder} have other settings for single tasks: name another folder.")
    order = {name: index for index, name in enumerate(new.entry.tasks)}
    tasks = sorted({*there.tasks, *new.tasks}, key=lambda name: (order.get(name, len(order)), name))
    variants = {variant.name: variant for variant in (*there.variants, *new.variants)}
    seeds = tuple(dict.fromkeys((*there.seeds, *new.seeds)))
    settings = earlier | {name: new.settings[name] for name in RESUMABLE}
    notes = tuple(dict.fromkeys((*there.notes, *new.notes)))
    return Bench(
        there.benchmark,
        there.study,
        settings,
        there.task_settings,
        tuple(tasks),
        tuple(variants.values()),
        seeds,
        notes,
    )
