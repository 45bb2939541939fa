"""What `biwaa bench` does: plan the grid, train what is not trained yet, write the tables."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
import yaml

from biwaa.bench import engine
from biwaa.bench.grid import Bench, enrol, load_bench
from biwaa.bench.render import write_tables
from biwaa.bench.suites import variants
from biwaa.domains.catalogue import Benchmark, benchmark_named, deviations, empty_classes, find
from biwaa.domains.spec import default_data_root
from biwaa.errors import BiwaaError, listed
from biwaa.progress import say, track
from biwaa.recipe import Recipe, load_recipe


def plan(
    suite: str,
    settings: dict[str, Any],
    task_settings: dict[str, dict[str, Any]],
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
    data_root: Path,
) -> Bench:
    """What an invocation asks for, with all that it names known and all its data there.

    Args:
        suite: BENCHMARK or BENCHMARK/STUDY.
        settings: the whole recipe that all variants start from.
        task_settings: what single tasks change of it.
        tasks: their names; empty for all.
        methods: the study's variants; empty for all.
        seeds: of training.
        data_root: where benchmarks lie.

    Raises:
        BiwaaError: an unknown benchmark, study, task or method, or a domain that is missing or incomplete.
    """
    name, _, study = suite.partition("/")
    entry = benchmark_named(name)
    recipe = Recipe(**settings)
    chosen = variants(study or "methods", recipe, methods)
    pairs = [entry.task(task) for task in tasks or entry.tasks]
    _check_data(entry, pairs, data_root)
    named = tuple(dict.fromkeys(entry.task_name(*pair) for pair in pairs))
    special = {task: settings for task, settings in task_settings.items() if task in named}
    return Bench(name, study or "methods", settings, special, named, tuple(chosen), tuple(dict.fromkeys(seeds)))


def _check_data(entry: Benchmark, pairs: list[tuple[str, str]], root: Path) -> None:
    """All domains of the tasks must be there, with every class."""
    needed = dict.fromkeys(domain for pair in pairs for domain in entry.task_domains(*pair))
    lacks = {domain: problem for domain in needed if (problem := _problem(entry, domain, root))}
    if not lacks:
        return
    able = [task for task in entry.tasks if _all_there(entry, entry.task_domains(*entry.task(task)), root)]
    hint = f"; --tasks {' '.join(able)} can run with what is there" if able else ""
    tell = "; ".join(f"{domain} {problem}" for domain, problem in lacks.items())
    raise BiwaaError(f"{entry.title} is not complete below {root}: {tell}{hint}. See `biwaa check {entry.name}`.")


def _all_there(entry: Benchmark, domains: list[str], root: Path) -> bool:
    """Whether all of these are there, with every class."""
    found = [find(entry, domain, root) for domain in domains]
    return all(domain is not None and not empty_classes(domain) for domain in found)


def _problem(entry: Benchmark, domain: str, root: Path) -> str:
    found = find(entry, domain, root)
    if found is None:
        return "is missing"
    if empty := empty_classes(found):
        return f"has no image of {listed(empty)}"
    if other := deviations(entry, domain, found):
        say(f"warning: {entry.name}:{domain} is not the benchmark's: {listed(other, 3)}")
    return ""


def read_task_settings(recipe: str) -> dict[str, dict[str, Any]]:
    """The `tasks` of a recipe file: settings that hold for single tasks of a benchmark."""
    path = Path(recipe)
    if not path.is_file():
        return {}
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict(settings.get("tasks") or {}) if isinstance(settings, dict) else {}


def run_bench(
    bench: Bench,
    folder: Path,
    data_root: Path,
    processes: int | None,
    cluster: str,
    options: dict[str, Any],
    keep_models: bool,
) -> list[str]:
    """Train the grid and write the tables.

    Args:
        bench: as of `plan`.
        folder: the bench's.
        data_root: where benchmarks lie.
        processes: at a time on this machine; None for one a GPU, or one a core where features are frozen, else one.
        cluster: none, ray or slurm.
        options: of the cluster.
        keep_models: keep each run's model and checkpoints.

    Returns:
        A sentence for each failed run.
    """
    asked = set(_names(bench, folder, data_root))
    bench = enrol(bench, folder)
    works = [work for work in bench.works(folder.absolute(), data_root.absolute(), keep_models) if work.name in asked]
    failures = []
    with track(f"{bench.benchmark}/{bench.study}", len(works), "runs") as advance:
        for done, outcome in enumerate(engine.train_all(works, _engine(bench, processes, cluster, options)), 1):
            if outcome.state == "failed":
                failures.append(f"{outcome.name}: {outcome.reason}")
                say(f"failed: {failures[-1]}")
            advance(done)
    write_tables(bench, folder)
    return failures


def _names(bench: Bench, folder: Path, data_root: Path) -> list[str]:
    return [work.name for work in bench.works(folder, data_root)]


def _engine(bench: Bench, processes: int | None, cluster: str, options: dict[str, Any]) -> engine.Engine:
    if cluster == "ray":
        return functools.partial(engine.ray, options=options)
    if cluster == "slurm":
        return functools.partial(engine.slurm, options=options)
    if processes is None:
        processes = torch.cuda.device_count() or (engine.cores() if bench.settings["freeze_backbone"] else 1)
    return functools.partial(engine.local, processes=processes)


def bench_or_show(given: Any) -> list[str]:
    """Do what the command line asks for (`cli.Bench`); a sentence for each failed run.

    Raises:
        BiwaaError: the flags contradict each other, or anything of `plan` and `run_bench`.
    """
    if given.show:
        folder = given.out or Path(given.suite)
        print(write_tables(load_bench(folder), folder))
        return []
    if given.out is None:
        raise BiwaaError("name the folder for runs and tables with --out; `biwaa bench DIR --show` prints a table.")
    if given.settings.seed != load_recipe(given.recipe).seed:
        raise BiwaaError("a bench takes --seeds, not --seed.")
    root = given.data_root or default_data_root()
    bench = plan(
        given.suite,
        dataclasses.asdict(given.settings),
        read_task_settings(given.recipe),
        given.tasks,
        given.methods,
        given.seeds,
        root,
    )
    options = {name: yaml.safe_load(value) for name, value in given.cluster_options.items()}
    failures = run_bench(bench, given.out, root, given.processes, given.cluster, options, given.keep_models)
    print(write_tables(load_bench(given.out), given.out))
    return failures
