"""What `biwaa bench` does: plan the grid, train what is not trained yet, write the tables."""

import functools
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from biwaa.bench import engine
from biwaa.bench.grid import Bench, Work, enrol, load_bench
from biwaa.bench.render import write_tables
from biwaa.bench.suites import METHODS_STUDY, PANEL_STUDY, resolve, variants
from biwaa.checks import not_below
from biwaa.domains.catalogue import BENCHMARKS, Benchmark, deviations, find
from biwaa.domains.classes import empty_classes
from biwaa.domains.shift import check_rule
from biwaa.errors import BiwaaError, listed
from biwaa.models.backbone import build_backbone
from biwaa.models.weights import load_weights
from biwaa.progress import say, track
from biwaa.recipe import Recipe
from biwaa.training.suited import freezes, same_everywhere

LAST_BYTES = 4096  # Of a log: its last line is among them


class MissingDataError(BiwaaError):
    """A domain of the benchmark is missing or incomplete."""


def plan(
    suite: str,
    recipe: Recipe,
    special: dict[str, dict[str, Any]],
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
    data_root: Path,
) -> Bench:
    """What an invocation asks for, with all that it names known and all its data there.

    Args:
        suite: BENCHMARK or BENCHMARK/STUDY.
        recipe: what all variants start from.
        special: what single tasks change of it, by task.
        tasks: their names; empty for all.
        methods: the study's variants; empty for all.
        seeds: of training.
        data_root: where benchmarks lie.

    Raises:
        BiwaaError: an unknown benchmark, study, task, method, backbone or label shift, weights that are not to be
            had, a setting that no recipe has, or no seed.
        MissingDataError: a domain is missing or incomplete.
    """
    recipe = same_everywhere(recipe)
    name, _, study = suite.partition("/")
    study = study or METHODS_STUDY
    entry = BENCHMARKS[name]
    chosen = variants(study, recipe, methods)
    pairs = [entry.task(task) for task in tasks or entry.tasks]
    if not seeds:
        raise BiwaaError("name at least one seed after --seeds.")
    for seed in seeds:
        recipe.replace("--seeds", seed=seed)
    for run in (resolve(variant, recipe, seeds[0]) for variant in chosen):
        check_rule(run.data.source_shift)
        check_rule(run.data.target_shift)
    known = {entry.task_name(*entry.task(task)): changed for task, changed in special.items()}
    for task, changed in known.items():
        recipe.replace(f"the settings of the task {task}", **changed)
    named = tuple(dict.fromkeys(entry.task_name(*pair) for pair in pairs))
    notes = _check_data(entry, pairs, data_root)
    if not entry.features:
        _check_weights(recipe.network.backbone, recipe.data.image_size, recipe.network.weights)
        if freezes(recipe) and not recipe.network.frozen:
            say("no GPU here, and the backbone is trained end to end: --freeze-backbone is many times faster")
    return Bench(name, study, recipe.flat(), known, named, tuple(chosen), tuple(dict.fromkeys(seeds)), notes)


@functools.cache
def _check_weights(backbone: str, image_size: int | None, weights: str) -> None:
    """Find the weights; what is to say of them is said once, not by every run or part of a panel."""
    load_weights(build_backbone(backbone, image_size), weights)


def _check_data(entry: Benchmark, pairs: list[tuple[str, str]], root: Path) -> tuple[str, ...]:
    """All domains of the tasks must be there, with every class; sentences on what is not the benchmark's."""
    needed = dict.fromkeys(domain for pair in pairs for domain in entry.task_domains(*pair))
    lacks: dict[str, str] = {}
    notes: list[str] = []
    for domain in needed:
        found = find(entry, domain, root)
        if found is None:
            lacks[domain] = "is missing"
        elif empty := empty_classes(found):
            lacks[domain] = f"has no image of {listed(empty)}"
        elif other := deviations(entry, domain, found):
            notes.append(f"{entry.name}:{domain} is not the benchmark's: {listed(other, 3)}")
            say(f"warning: {notes[-1]}")
    if not lacks:
        return tuple(notes)
    able = entry.tasks_without([*lacks, *(domain for domain in entry.domains if not _is_there(entry, domain, root))])
    hint = f"; --tasks {' '.join(able)} can run with what is there" if able else ""
    tell = "; ".join(f"{domain} {problem}" for domain, problem in lacks.items())
    see = f"See `biwaa check {entry.name} --data-root {shlex.quote(str(root))}`."
    raise MissingDataError(f"{entry.title} is not complete below {root}: {tell}{hint}. {see}")


def _is_there(entry: Benchmark, domain: str, root: Path) -> bool:
    """Whether a domain is there, with every class."""
    found = find(entry, domain, root)
    return found is not None and not empty_classes(found)


def rounds_text(bench: Bench) -> str:
    """How many rounds each variant trains, in a line: the study may set them, whatever --rounds says."""
    recipe = bench.recipe
    rounds = {variant.name: resolve(variant, recipe, 0).schedule.rounds for variant in bench.variants}
    usual, how_often = Counter(rounds.values()).most_common(1)[0]
    parts = [f"{name} {number}" for name, number in rounds.items() if number != usual]
    if how_often > 1 or not parts:
        parts.append(f"{'all others' if parts else 'all'} {usual}")
    else:  # no two are alike, so the first counts as the most common
        parts.append(f"{next(iter(rounds))} {usual}")
    if bench.study in (METHODS_STUDY, PANEL_STUDY):
        return f"rounds: {', '.join(parts)}; METHOD@N trains a method in N rounds"
    fixed = any("rounds" in variant.settings for variant in bench.variants)
    return f"rounds: {', '.join(parts)}{'; the study sets some of them itself' if fixed else ''}"


def choose_engine(
    cluster: str, cluster_options: Mapping[str, str], processes: int | None, frozen: bool
) -> engine.Engine:
    """What trains a list of runs.

    Args:
        cluster: none, ray or slurm.
        cluster_options: of Ray's tasks or submitit's jobs, as text.
        processes: runs at a time on this machine; None for one a GPU, or one a core where the backbone is frozen.
        frozen: whether the backbone is.

    Raises:
        BiwaaError: the cluster's library is missing, or less than one process is asked for.
    """
    engine.check_cluster(cluster)
    options = {name: _number(value) for name, value in cluster_options.items()}
    if cluster != "none":
        return functools.partial({"ray": engine.ray, "slurm": engine.slurm}[cluster], options=options)
    if processes is None:
        processes = torch.cuda.device_count() or (engine.cores() if frozen else 1)
    not_below(1, processes=processes)
    return functools.partial(engine.local, processes=processes)


def _number(text: str) -> int | float | str:
    """A number where the text is one: 4:00:00 stays as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def train_bench(bench: Bench, folder: Path, data_root: Path, train: engine.Engine, keep_models: bool) -> list[str]:
    """Train what is not trained yet of the runs that `bench` names.

    Args:
        bench: as of `plan`.
        folder: the bench's.
        data_root: where benchmarks lie.
        train: trains a list of runs, as of `choose_engine`.
        keep_models: keep each run's model and checkpoints.

    Returns:
        A sentence for each failed run.

    Raises:
        BiwaaError: the folder holds another bench, or something else.
    """
    enrol(bench, folder)
    say(rounds_text(bench))
    works = bench.works(folder.absolute(), data_root.absolute(), keep_models)
    failures = []
    finished = sum(1 for work in works if work.result())
    what = f"{bench.benchmark}/{bench.study}"
    with track(what, len(works), "runs", finished, others=functools.partial(at_work, works)) as advance:
        for done, outcome in enumerate(engine.train_all(works, train), 1):
            if outcome.state == "failed":
                failures.append(f"{outcome.name}: {outcome.reason}")
                say(f"failed: {failures[-1]}")
            advance(done)
    return failures


def at_work(works: list[Work]) -> str:
    """What the processes are doing: how many runs are in training, and the last line of the newest log."""
    running = [work for work in works if work.running.exists() and work.log.exists()]
    if not running:
        return ""
    newest = max(running, key=lambda work: work.log.stat().st_mtime)
    with newest.log.open("rb") as file:
        file.seek(max(newest.log.stat().st_size - LAST_BYTES, 0))
        lines = file.read().decode("utf-8", "replace").split("\n")
    line = next((line for line in reversed(lines) if line.strip()), "begins")
    more = f" and {len(running) - 1} more" if len(running) > 1 else ""
    return f"in training: {newest.name} ({line.strip()}){more}"


def show_bench(folder: Path) -> str:
    """The tables of a bench as they stand, as Markdown; all its table files are written anew.

    Raises:
        BiwaaError: the folder holds no bench, or one of an earlier version.
    """
    return write_tables(load_bench(folder), folder)
