"""The command line: a command is a function, its signature the flags.

- settings of training are the fields of `Recipe`; flags win over the recipe that --recipe names
- what the user can mend ends in one sentence and exit code 2; an interrupt in 130, SIGTERM in 143
- torch is imported only once there is work for it
"""

import errno
import io
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from biwaa import __version__
from biwaa.errors import BiwaaError, printable
from biwaa.files import cache_dir
from biwaa.progress import quiet
from biwaa.recipe import NAMED, Recipe, load_recipe


@dataclass(frozen=True)
class Train:
    """Adapt a classifier from labelled source images to unlabelled target images.

    Example: biwaa train --source photos --target sketches --out run
    """

    source: str
    """Labelled images: folder of class folders, LIST.txt[@ROOT] or FILE.npz:NAME."""
    target: str
    """The other place's images; labels, if there are any, serve the report alone."""
    out: Path
    """Run folder to make."""
    settings: OmitArgPrefixes[Recipe]
    recipe: str = "robust"
    """Where settings start from: a named recipe or a YAML file. Flags win over it."""
    resume: bool = False
    """Go on with the interrupted run in the run folder."""
    overwrite: bool = False
    """Replace the run in the run folder."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded."""
    held_out: str | None = None
    """Labelled images of the target's place that training gets nothing of, scored beside the others."""
    data_root: Path | None = None
    """Folder of catalogued benchmarks; unset: $BIWAA_DATA or ./data."""
    json: bool = False
    """Print result.json in place of the summary."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these."""


def train(arguments: Sequence[str]) -> None:
    """Read the flags of `biwaa train` and do it."""
    named = _named_recipe(arguments, Train.recipe)
    default = Train(tyro.MISSING, tyro.MISSING, tyro.MISSING, settings=load_recipe(named), recipe=named)
    given = tyro.cli(Train, args=arguments, prog="biwaa train", default=default)
    from biwaa.domains.domain import check_pair
    from biwaa.domains.spec import open_domain

    source, target = open_domain(given.source, given.data_root), open_domain(given.target, given.data_root)
    held_out = open_domain(given.held_out, given.data_root) if given.held_out else None
    check_pair(source, target, given.settings.batch_size)
    from biwaa.api import adapt
    from biwaa.evaluation.summary import summarise
    from biwaa.report.command import report_on

    run = adapt(
        source, target, out=given.out, recipe=given.settings, held_out=held_out, track=given.track,
        resume=given.resume, overwrite=given.overwrite, skip_unreadable=given.skip_unreadable,
    )  # fmt: skip
    if run.leads:
        print(json.dumps(run.result, indent=2) if given.json else summarise(run.result))
        report_on(given.out, given.data_root)


@dataclass(frozen=True)
class Bench:
    """Run a benchmark's whole table: tasks x methods x seeds, resumable; or show the one in a folder.

    Example: biwaa bench pacs --out tables --backbone efficientnet-lite0 --freeze-backbone --steps 600
    """

    suite: Positional[str]
    """BENCHMARK for all methods, BENCHMARK/STUDY for another study, or a bench's folder with --show."""
    settings: OmitArgPrefixes[Recipe]
    out: Path | None = None
    """Folder for the runs and the tables."""
    methods: tuple[str, ...] = ()
    """Which of the study's variants; METHOD@ROUNDS trains any method in rounds. All, unless named."""
    tasks: tuple[str, ...] = ()
    """Which tasks, as A2W or amazon>webcam. All, unless named."""
    seeds: tuple[int, ...] = (42, 43, 44)
    """Of training."""
    show: bool = False
    """Print the table as it stands, also while another process trains."""
    recipe: str = "paper"
    """Where settings start from: a named recipe or a YAML file. Flags win over it."""
    data_root: Path | None = None
    """Folder of catalogued benchmarks; unset: $BIWAA_DATA or ./data."""
    processes: int | None = None
    """Runs at a time on this machine; unset: one a GPU, or one a core where the backbone is frozen."""
    cluster: Literal["none", "ray", "slurm"] = "none"
    """Train on this machine, on a Ray cluster or as Slurm jobs."""
    cluster_options: dict[str, str] = field(default_factory=dict)
    """Of Ray's tasks (address, num_cpus, num_gpus) or submitit's jobs (time, partition, gpus_per_node ..)."""
    keep_models: bool = False
    """Keep every run's model and checkpoints."""


def bench(arguments: Sequence[str]) -> None:
    """Read the flags of `biwaa bench` and do it."""
    named = _named_recipe(arguments, Bench.recipe)
    default = Bench(tyro.MISSING, settings=load_recipe(named), recipe=named)
    given = tyro.cli(Bench, args=arguments, prog="biwaa bench", default=default)
    from biwaa.bench.command import bench_or_show

    failures = bench_or_show(given)
    if failures:
        raise BiwaaError(f"{len(failures)} runs failed, the others are done; the same command tries them again.")


def _named_recipe(arguments: Sequence[str], default: str) -> str:
    """The recipe must be known before the flags can be read, since it sets their defaults."""
    named = default
    for here, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if here == "--recipe" and following:
            named = following
        if here.startswith("--recipe="):
            named = here.removeprefix("--recipe=")
    return named  # the last one, as with any flag


def evaluate(
    run: Positional[Path],
    spec: Positional[str],
    out: Path | None = None,
    device: str = "auto",
    batch_size: int = 32,
    skip_unreadable: bool = False,
    data_root: Path | None = None,
) -> None:
    """Score a run's model on labelled images.

    Example: biwaa evaluate run more_sketches

    Args:
        run: a run folder.
        spec: labelled images, as for biwaa train.
        out: also write the figures as JSON here.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        skip_unreadable: leave out images that cannot be decoded.
        data_root: folder of catalogued benchmarks; unset: $BIWAA_DATA or ./data.
    """
    from biwaa.evaluation.evaluate import evaluate_run

    figures = evaluate_run(run, spec, device, batch_size, skip_unreadable, data_root)
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    if out:
        from biwaa.files import write_text

        write_text(out, text + "\n")
    print(text)


def predict(
    run: Positional[Path],
    paths: Positional[tuple[str, ...]],
    out: Path = Path("predictions.csv"),
    top_k: int = 1,
    device: str = "auto",
    batch_size: int = 32,
) -> None:
    """Predict the classes of images; writes path, label, confidence, and error where an image cannot be read.

    Example: biwaa predict run new_images holiday.jpg --out predictions.csv

    Args:
        run: a run folder, or a model.safetensors.
        paths: images, folders of images, globs, list files, - for a list on standard input, or FILE.npz:NAME.
        out: the table to write: .csv, .jsonl or .parquet.
        top_k: how many of the likeliest classes.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
    """
    from biwaa.evaluation.predict_paths import predict_paths

    read, unreadable = predict_paths(run, paths, out, device, batch_size, top_k)
    print(f"{read} predictions in {out}" + (f"; {unreadable} images could not be read" if unreadable else ""))


def export(
    run: Positional[Path],
    out: Path,
    format: Literal["onnx", "pt2"] = "onnx",
    crops: Literal[1, 10] | None = None,
) -> None:
    """Write a run's model as one file for other programs: resized 8-bit images in, calibrated probabilities out.

    Example: biwaa export run --format onnx --out model.onnx

    Args:
        run: a run folder, or a model.safetensors.
        out: the file to write.
        format: ONNX, or torch.export's.
        crops: views that are averaged, 1 for the centre alone; unset: the model's own.
    """
    from biwaa.evaluation.export import export_run

    difference = export_run(run, out, format, crops)
    print(f"{out}: its probabilities differ from PyTorch's by {difference:.1g} at most")


def push(run: Positional[Path], repo_id: Positional[str], public: bool = False, licence: str | None = None) -> None:
    """Publish a run's model with a model card on the Hugging Face hub; log in with `hf auth login` before.

    Args:
        run: a run folder.
        repo_id: OWNER/NAME, made where there is none.
        public: a repository that is made is for all to see.
        licence: of the model, by the hub's identifier, such as apache-2.0; the data's terms may bind you.
    """
    from biwaa.share import push_to_hub

    print(push_to_hub(run, repo_id, private=not public, licence=licence))


def check(
    specs: Positional[tuple[str, ...]],
    batch_size: int = 72,
    data_root: Path | None = None,
    json: bool = False,
) -> None:
    """Say what is in a domain, whether a benchmark is whole, or whether one domain can be adapted to another.

    Example: biwaa check photos sketches

    Args:
        specs: one domain, source and target, or a benchmark of the catalogue.
        batch_size: of the training to come.
        data_root: folder of catalogued benchmarks; unset: $BIWAA_DATA or ./data.
        json: print images and classes of each domain as JSON.
    """
    from biwaa.domains.check import check_domains

    check_domains(specs, batch_size, data_root, as_json=json)


def demo(out: Path = Path("biwaa-demo"), seed: int = 42) -> None:
    """Adapt from clean digits to digits on photographs, offline, in about a minute.

    Args:
        out: folder for the data, the run and the picture.
        seed: of data and training.
    """
    from biwaa.demo import run_demo
    from biwaa.evaluation.summary import summarise
    from biwaa.report.command import report_on

    print(summarise(run_demo(out, seed).result))
    print(f"samples with both predictions: {out / 'samples.png'}")
    report_on(out / "run")


def report(folder: Positional[Path], out: Path | None = None, data_root: Path | None = None) -> None:
    """Write the page of a finished run, or of a bench: did it work, why, where does it fail, how to repeat it.

    Example: biwaa report run

    Args:
        folder: of a run or of a bench.
        out: the HTML file; unset: report.html in the folder.
        data_root: folder of catalogued benchmarks; unset: $BIWAA_DATA or ./data.
    """
    from biwaa.report.command import write_report

    print(f"the report is {write_report(folder, out, data_root)}")


def explain(
    run: Positional[Path],
    paths: Positional[tuple[str, ...]],
    out: Path = Path("explain.png"),
    beside: Path | None = None,
    rows: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Draw where in images the features come from that are aligned, without the weighting and with it.

    Example: biwaa explain run sketches --beside dann_run --out explain.png

    Args:
        run: a run folder.
        paths: images, folders of images, list files or FILE.npz:NAME.
        out: the PNG file to write.
        beside: another run, such as one by DANN, to stand beside.
        rows: images to show; of more, so many are drawn.
        seed: of that draw.
        device: auto, cpu, cuda or mps.
    """
    from biwaa.report.explain import explain_paths

    shown, every = explain_paths(run, paths, out, beside, rows, seed, device)
    print(f"{shown} of {every} images in {out}" + (f", drawn by seed {seed}" if shown < every else ""))


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo, "train": train, "check": check, "evaluate": evaluate, "predict": predict, "bench": bench,
    "report": report, "explain": explain, "export": export, "push": push,
}  # fmt: skip

AFTER_INTERRUPT = {"train": "; `--resume` goes on from the last checkpoint", "bench": "; the same command goes on"}

USAGE = f"""biwaa {__version__}: adapt a classifier from labelled images of one place to unlabelled images of another

  biwaa demo                                              adapt digits to digits on photographs, offline
  biwaa train --source SPEC --target SPEC --out RUN       adapt; recipes: {", ".join(NAMED)}
  biwaa check SPEC [SPEC]                                 what is in a domain, and would training work
  biwaa evaluate RUN SPEC                                 score a run's model on labelled images
  biwaa predict RUN PATH... --out predictions.csv         classes of new images
  biwaa export RUN --out model.onnx                       the model for other programs; --format pt2
  biwaa push RUN OWNER/NAME                               the model and its card to the Hugging Face hub
  biwaa bench SUITE --out DIR                             a benchmark's whole table, resumable; DIR --show prints it
  biwaa report RUN                                        the page of a run or a bench: did it work, why, where not
  biwaa explain RUN PATH... --out explain.png             where in images the features come from that are aligned

SPEC is a folder of class folders, a folder of images (a target), LIST.txt[@ROOT], FILE.npz:NAME,
BENCHMARK:DOMAIN below --data-root (office31:amazon, pacs:photo, digits:plain ..), or hf:DATASET[?column=value].
`biwaa --completion bash` (or zsh) prints what a shell needs to complete commands and flags.
--quiet before or after COMMAND's words leaves out all but errors and results.
`biwaa COMMAND --help` tells the rest. Exit codes: 0 done, 2 something to mend, 130 interrupted, 143 asked to end."""


class _Ended(KeyboardInterrupt):
    """Another process asked this one to end (SIGTERM)."""


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """SIGTERM unwinds as an interrupt does: drafts are removed, processes ended."""

    def end(*_: object) -> None:
        raise _Ended

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if words[0] == "--version":
        print(f"biwaa {__version__}")
        return 0
    if words[0] == "--completion":
        shell = words[1] if len(words) > 1 else "bash"
        whole: dict[str, Callable[..., object]] = {**COMMANDS, "train": Train, "bench": Bench}
        tyro.extras.subcommand_cli_from_dict(whole, prog="biwaa", args=["--tyro-print-completion", shell])
    silent = "--quiet" in words
    words = [word for word in words if word != "--quiet"]
    name, rest = words[0] if words else "", words[1:]
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))  # its fonts' list, too, stays in our cache
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # such an image is unreadable: said once
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    try:
        with quiet(silent), _ending_cleanly():
            if name not in COMMANDS:
                raise BiwaaError(f"no command {name!r}: there are {', '.join(COMMANDS)}.")
            if name in ("train", "bench"):
                COMMANDS[name](rest)  # their defaults depend on the recipe: they read the flags themselves
            else:
                tyro.cli(COMMANDS[name], args=rest, prog=f"biwaa {name}")
    except BiwaaError as error:
        return _say(f"error: {error}", 2)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - whoever read the output has gone; nothing to flush
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = AFTER_INTERRUPT.get(name, "") if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        return _say(f"error: {where}{error.strerror or error}{full}.", 2)
    except _Ended:
        return _say(f"asked to end{AFTER_INTERRUPT.get(name, '')}", 143)
    except KeyboardInterrupt:
        return _say(f"interrupted{AFTER_INTERRUPT.get(name, '')}", 130)
    return 0


def _say(text: str, code: int) -> int:
    print(f"biwaa: {printable(text)}", file=sys.stderr)
    return code


def entry() -> None:
    """The installed command."""
    sys.exit(main())
