"""Commands that read images and runs: check, report, explain."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from biwaa.cli.metavars import Classes, Device, ImagePaths, RunFolder


def check(
    specs: Positional[Annotated[tuple[str, ...], arg(metavar="SPEC..")]],
    batch_size: int | None = None,
    source_held_out: float = 0.1,
    classes: Classes | None = None,
    data_root: Path | None = None,
    json: bool = False,
) -> None:
    """Say what is in a domain, and whether one can be adapted to another.

    Example: biwaa check photos sketches

    Args:
        specs: one domain, one source or several and the target, or a benchmark of the catalogue.
        batch_size: batch size of the planned training; unset: what `biwaa train` would take here.
        source_held_out: share of the source that the planned training holds out.
        classes: classes of a timm classifier's outputs, as for `biwaa train`.
        data_root: folder of benchmarks; unset: $BIWAA_DATA or ./data.
        json: print images and classes of each domain as JSON.
    """
    from biwaa.checks import not_below
    from biwaa.domains.check import check_domains
    from biwaa.errors import BiwaaError
    from biwaa.models.classifiers import is_model, known_source
    from biwaa.models.known import check_known
    from biwaa.training.suited import least_images_here

    least = least_images_here("robust") if batch_size is None else batch_size
    not_below(2, batch_size=least)
    if model := next((spec for spec in specs[:-1] or specs if is_model(spec)), None):
        if len(specs) > 2:
            raise BiwaaError(f"{model} is a model, which is a source by itself: name it without other sources.")
        check_known(known_source(specs[0], classes), specs[1] if len(specs) > 1 else None, data_root, json)
        return
    if classes is not None:
        raise BiwaaError("--classes is of a timm classifier's outputs: name one as timm:MODEL, or leave it out.")
    check_domains(specs, least, data_root, as_json=json, source_held_out=source_held_out)


def report(
    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]],
    out: Path | None = None,
    data_root: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write the report of a run or a bench: did it work, why, where not.

    Example: biwaa report run

    Args:
        folder: a run folder, or the folder of a bench.
        out: the HTML file; unset: report.html in the folder.
        data_root: folder of benchmarks; unset: $BIWAA_DATA or ./data.
        overwrite: replace the file that --out names.
    """
    from biwaa.files import check_new
    from biwaa.report.write import write_report

    check_new(out, overwrite)
    print(f"the report is {write_report(folder, out, data_root)}")


def explain(
    run: Positional[RunFolder],
    paths: ImagePaths,
    out: Path = Path("explain.png"),
    beside: RunFolder | None = None,
    rows: int = 8,
    seed: int = 0,
    device: Device = "auto",
    overwrite: bool = False,
) -> None:
    """Draw where in an image the features come from.

    Each image is drawn with all features alike, and weighted for the predicted class, as BIWAA aligns them.

    Example: biwaa explain run sketches --beside dann_run --out explain.png

    Args:
        run: a run folder.
        paths: images, folders of images, list files or FILE.npz:NAME.
        out: the PNG file to write.
        beside: another run to compare with, such as one by DANN.
        rows: images to show; of more images, this many at random.
        seed: seed of that choice.
        device: where to compute.
        overwrite: replace the picture if there is one.
    """
    from biwaa.files import check_new
    from biwaa.report.explain import explain_paths

    check_new(out, overwrite)
    shown, every = explain_paths(run, paths, out, beside, rows, seed, device)
    print(f"{shown} of {every} images in {out}" + (f", drawn by seed {seed}" if shown < every else ""))
