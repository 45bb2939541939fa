"""`biwaa bench`: its flags, and what it does with them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import tyro
from tyro.conf import Positional, arg

from biwaa.errors import BiwaaError
from biwaa.files import local

if TYPE_CHECKING:
    from biwaa.recipe import Recipe


PANEL = "panel"
"""The suite of many benchmarks."""


@dataclass(frozen=True)
class BenchFlags:
    """Run a benchmark's whole table: tasks x methods x seeds, resumable.

    Example: biwaa bench digits --tasks plain2photographs --recipe demo --out tables
    """

    EVERYDAY: ClassVar[tuple[str, ...]] = (
        "backbone", "weights", "freeze_backbone", "image_size", "batch_size", "rounds", "steps", "device",
    )  # fmt: skip
    """Settings that the short help shows."""

    suite: Positional[Annotated[str, arg(metavar="SUITE")]]
    """BENCHMARK (all methods), BENCHMARK/STUDY, panel, or a bench's folder with --show."""
    out: Path | None = None
    """Folder for the runs and the tables."""
    methods: tuple[str, ...] = ()
    """Which variants, all unless named; METHOD@ROUNDS trains a method in that many rounds."""
    tasks: tuple[str, ...] = ()
    """Which tasks, as A2W or amazon>webcam, of the panel DATASET or DATASET:TASK; all unless named."""
    seeds: tuple[int, ...] = (42, 43, 44)
    """Seeds of training."""
    show: bool = False
    """Print the table of what is finished so far."""
    recipe: str = "paper"
    """Named recipe or YAML file; flags win over it. The panel's default is robust."""
    data_root: Path | None = None
    """Folder of benchmarks; unset: $BIWAA_DATA or ./data."""
    processes: int | None = None
    """Runs at a time on this machine; unset: one a GPU, or one a core where the backbone is frozen."""
    cluster: Literal["none", "ray", "slurm"] = "none"
    """Ray cluster or Slurm jobs."""
    cluster_options: dict[str, str] = field(default_factory=dict)
    """Options of Ray's tasks (address, num_cpus, num_gpus) or submitit's jobs (time, partition, gpus_per_node ..)."""
    keep_models: bool = False
    """Keep every run's model and checkpoints."""

    @classmethod
    def starting_from(cls, recipe: str) -> Self:
        """The flags' defaults under a recipe."""
        return cls(tyro.MISSING, recipe=recipe)


def bench(flags: BenchFlags, settings: "Recipe") -> None:
    """Do what the flags of `biwaa bench` say."""
    from biwaa.bench.command import choose_engine, plan, show_bench, train_bench
    from biwaa.bench.panel import enrol_panel, is_panel, plan_panel
    from biwaa.bench.standings import show_panel
    from biwaa.domains.spec import default_data_root
    from biwaa.recipe import load_recipe, task_settings

    if flags.show:
        folder = flags.out or Path(flags.suite)
        print(show_panel(folder) if is_panel(folder) else show_bench(folder))
        return
    if flags.out is None:
        raise BiwaaError("name the folder for runs and tables with --out; `biwaa bench DIR --show` prints a table.")
    out = local(flags.out)
    named = load_recipe(flags.recipe)
    for same, flag, name in (
        (settings.seed == named.seed, "--seeds", "--seed"), (settings.method == named.method, "--methods", "--method")
    ):  # fmt: skip
        if not same:
            raise BiwaaError(f"a bench takes {flag}, not {name}.")
    if settings.prototypes.unknown != "off":
        raise BiwaaError("both domains of a bench's tasks have the same classes, and not every method finds unknown "
                         "images: leave --unknown out.")  # fmt: skip
    root = flags.data_root or default_data_root()
    train = choose_engine(flags.cluster, flags.cluster_options, flags.processes, settings.network.frozen)
    special = task_settings(flags.recipe)
    if flags.suite == PANEL:
        if special:
            raise BiwaaError(f"{flags.recipe} has settings for single tasks of a benchmark: the panel takes none.")
        benches, left_out = plan_panel(settings, flags.tasks, flags.methods, flags.seeds, root)
        enrol_panel(out, left_out)
        failures = []
        for name, bench in benches.items():
            found = train_bench(bench, out / name, root, train, flags.keep_models)
            failures += [f"{name}: {failure}" for failure in found]
        print(show_panel(out))
    else:
        planned = plan(flags.suite, settings, special, flags.tasks, flags.methods, flags.seeds, root)
        failures = train_bench(planned, out, root, train, flags.keep_models)
        print(show_bench(out))
    if failures:
        raise BiwaaError(f"{len(failures)} runs failed, the others are done; the same command tries them again.")
