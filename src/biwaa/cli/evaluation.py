"""Commands that use a trained model: evaluate, estimate, predict, export, push."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from biwaa.cli.metavars import Device, ImagePaths, RunFolder, Spec


def evaluate(
    run: Positional[RunFolder],
    spec: Positional[Spec],
    out: Path | None = None,
    device: Device = "auto",
    batch_size: int = 32,
    skip_unreadable: bool = False,
    data_root: Path | None = None,
    domain: Literal["target", "source"] = "target",
    json: bool = False,
    overwrite: bool = False,
) -> None:
    """Measure a run's model on labelled images.

    The run's report then shows the figure.

    Example: biwaa evaluate run more_sketches

    Args:
        run: a run folder.
        spec: labelled images, as for biwaa train.
        out: also write the figures as JSON here.
        device: where to compute.
        batch_size: images at a time.
        skip_unreadable: leave out images that cannot be decoded.
        data_root: folder of benchmarks; unset: $BIWAA_DATA or ./data.
        domain: which domain the images are from; its statistics are used.
        json: print the figures as JSON.
        overwrite: replace the file that --out names.
    """
    from biwaa.checks import not_below
    from biwaa.domains.spec import open_domain
    from biwaa.files import check_new, write_text
    from biwaa.inference.evaluate import evaluate_run
    from biwaa.report.summary import evaluated, figures_json
    from biwaa.report.write import report_on

    check_new(out, overwrite)
    not_below(1, batch_size=batch_size)  # before many images are listed
    found, result = evaluate_run(run, open_domain(spec, data_root), device, batch_size, skip_unreadable, domain)
    if out:
        write_text(out, figures_json(found, result))
    print(figures_json(found, result).rstrip() if json else evaluated(found, result))
    if result:
        report_on(run, data_root)


def estimate(
    run: Positional[RunFolder],
    spec: Positional[Spec],
    least_accuracy: float | None = None,
    least_bound: float | None = None,
    not_moved: bool = False,
    json: bool = False,
    prometheus: bool = False,
    update: bool = False,
    out: Path | None = None,
    device: Device = "auto",
    batch_size: int = 32,
    skip_unreadable: bool = False,
    data_root: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Estimate a model's accuracy on new images without labels.

    It also says whether they have moved away from the run's target. The exit code is 1 if a threshold is not met.

    Example: biwaa estimate run new_images --least-bound 0.7

    Args:
        run: a run folder; with a model.safetensors alone, less can be said.
        spec: new images, as for biwaa train; labels are not looked at.
        least_accuracy: least estimate, as a share such as 0.7.
        least_bound: least lower bound of the estimate, as a share.
        not_moved: require that the images look like the run's target.
        json: print one line of JSON.
        prometheus: print Prometheus' text format.
        update: then adapt to the new images, in a new run folder (RUN-2, ..).
        out: also write what is printed here.
        device: where to compute.
        batch_size: images at a time.
        skip_unreadable: leave out images that cannot be decoded.
        data_root: folder of benchmarks; unset: $BIWAA_DATA or ./data.
        overwrite: replace the file that --out names.
    """
    from msgspec.structs import replace

    from biwaa.api import Run
    from biwaa.domains.spec import open_domain
    from biwaa.errors import BiwaaError
    from biwaa.files import check_new, write_text
    from biwaa.report.later import Thresholds, later_json, later_prometheus, later_words
    from biwaa.report.write import report_on
    from biwaa.training.later import estimate_later, run_result

    if json and prometheus:
        raise BiwaaError("--json and --prometheus are two formats: give one.")
    thresholds = Thresholds(least_accuracy, least_bound, not_moved)
    check_new(out, overwrite)
    domain = open_domain(spec, data_root)
    old = Run(run) if update else None  # before anything is computed
    found = estimate_later(run, domain, device, batch_size, skip_unreadable)
    new = old.update(domain, skip_unreadable=skip_unreadable) if old else None
    if new:
        found = replace(found, updated=str(new.folder))
        report_on(new.folder, data_root, new.predictions)
    text = (
        later_json(found, thresholds) if json
        else later_prometheus(found, thresholds) if prometheus
        else later_words(found, run_result(run), thresholds, new.result if new else None)
    )  # fmt: skip
    if out:
        write_text(out, text + "\n")
    print(text)
    if thresholds.unmet(found):
        raise SystemExit(1)


def predict(
    run: Positional[RunFolder],
    paths: ImagePaths,
    out: Path = Path("predictions.csv"),
    top_k: int = 1,
    device: Device = "auto",
    batch_size: int = 32,
    domain: Literal["target", "source"] = "target",
    overwrite: bool = False,
) -> None:
    """Predict the classes of new images.

    The table has path, label, confidence, unknown if the model has such a class, and error where an image
    cannot be read.

    Example: biwaa predict run new_images sketch.jpg --out predictions.csv

    Args:
        run: a run folder, or a model.safetensors.
        paths: images, folders of images, globs, list files, - for a list on standard input, or FILE.npz:NAME.
        out: the table to write: .csv, .jsonl or .parquet.
        top_k: how many of the likeliest classes.
        device: where to compute.
        batch_size: images at a time.
        domain: which domain the images are from; its statistics are used.
        overwrite: replace the table if there is one.
    """
    from biwaa.errors import BiwaaError
    from biwaa.files import check_new
    from biwaa.inference.predict_paths import predict_paths

    check_new(out, overwrite)
    read, unreadable = predict_paths(run, paths, out, device, batch_size, top_k, domain)
    if unreadable and not read:
        raise BiwaaError(f"none of the {unreadable} images could be read: {out} says of each why.")
    count = "1 image" if unreadable == 1 else f"{unreadable} images"
    print(f"{read} prediction{'s' * (read != 1)} in {out}" + (f"; {count} could not be read" if unreadable else ""))


def export(
    run: Positional[RunFolder],
    out: Path,
    format: Literal["onnx", "pt2"] = "onnx",
    crops: Literal[1, 10] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a run's model as one file for other programs.

    It takes resized 8-bit images and gives calibrated probabilities.

    Example: biwaa export run --format onnx --out model.onnx

    Args:
        run: a run folder, or a model.safetensors.
        out: the file to write.
        format: ONNX, or torch.export's.
        crops: views that are averaged (unset: as the model does; 1: the centre alone).
        overwrite: replace the file if there is one.
    """
    from biwaa.files import check_new
    from biwaa.inference.export import export_run

    check_new(out, overwrite)
    difference = export_run(run, out, format, crops)
    print(f"{out}: its probabilities differ from PyTorch's by {difference:.1g} at most")


def push(
    run: Positional[RunFolder],
    repo_id: Positional[Annotated[str, arg(metavar="OWNER/NAME")]],
    public: bool = False,
    licence: str | None = None,
) -> None:
    """Publish a run's model and its card on the Hugging Face hub.

    Log in with `hf auth login` before.

    Example: biwaa push run me/sketches --licence apache-2.0

    Args:
        run: a run folder.
        repo_id: made where there is none.
        public: a repository that is made is for all to see.
        licence: licence of the model, by the hub's identifier, such as apache-2.0; the data's terms may bind you.
    """
    from biwaa.share import push_to_hub

    print(push_to_hub(run, repo_id, private=not public, licence=licence))
