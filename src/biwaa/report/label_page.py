"""What `biwaa suggest` writes: a CSV file with an empty column for classes, and a page on which to fill it in.

The page is one file without a server: its script saves the CSV file, with the labels that the run had already.
"""

import shlex
from pathlib import Path

from biwaa.errors import BiwaaError
from biwaa.files import check_new, csv_line, write_text
from biwaa.methods import METHODS
from biwaa.models.backbone import FEATURES
from biwaa.report.page import filled
from biwaa.report.read import TargetImages
from biwaa.report.repeat import train_again
from biwaa.report.thumbnails import Thumbnail, thumbnail
from biwaa.training.suggest import Suggestion, suggest


def write_suggestions(
    run: Path, count: int, out: Path, measure: bool, overwrite: bool, data_root: Path | None = None
) -> str:
    """Write both files; what to do with them, in words.

    Raises:
        BiwaaError: as of `suggest`; a file is there already, or `out` is no .csv.
    """
    if out.suffix.lower() != ".csv":
        raise BiwaaError(f"{out} is no .csv file: name one with --out.")
    page = out.with_suffix(".html")
    for file in (out, page):
        check_new(file, overwrite)
    found = suggest(run, count, measure)
    known = {} if measure else found.labelled
    rows = [(_address(name), label) for name, label in [*known.items(), *((name, "") for name in found.names)]]
    write_text(out, "".join(csv_line(*row) for row in [("path", "label"), *rows]))
    images = TargetImages(found.result, data_root)
    pictured = found.result.model.backbone != FEATURES  # rows of features are not opened only to find no image
    shown = [thumbnail(images, name, "") for name in found.names] if pictured else []
    command = _command(run, found, out, measure)
    told = [f"{len(found.names)} {'images' if pictured else 'rows'} to label are in {out}"]
    if len(found.names) < count:
        none_left = "" if measure else ": leave some without one, since training needs images to adapt to"
        told.append(f"there are no more than {len(found.names)} without a label{none_left}")
    if any(one.uri for one in shown):
        write_text(page, _page(out, found, shown, known, command, measure))
        told.append(f"open {page} in a browser, label the images, and save the file that it offers as {out}")
    return "\n".join([*told, f"then: {command}"])


def _command(run: Path, found: Suggestion, out: Path, measure: bool) -> str:
    """What takes the labels."""
    result = found.result
    if measure and not all(Path(name).is_file() for name in found.names):
        spec = result.target.spec
        return f"give these rows their labels in {spec} itself, -1 for all others, and evaluate {run} on it"
    if measure:
        return shlex.join(["biwaa", "evaluate", str(run), str(out)])
    recipe, words = str(run / "recipe.yaml"), train_again(result, run, labels=False)
    if words is None:
        return f"biwaa.adapt(source, target, .., recipe={recipe!r}, target_labels={str(out)!r})"
    words += [] if METHODS[result.method].sees_target else ["--method", "auto"]  # it would not look at them
    labelled = ["--target-labels", str(out), "--out", f"{run}-labelled"]
    return shlex.join(["biwaa", "train", "--recipe", recipe, *words, *labelled])


def _page(
    out: Path, found: Suggestion, shown: list[Thumbnail], known: dict[str, str], command: str, measure: bool
) -> str:
    about = (
        "Drawn at random, so that the share that is right holds for all images."
        if measure
        else "The images that the model is unsure of, and that are unlike each other."
    )
    hidden = [(Thumbnail(_address(name), ""), label) for name, label in known.items()]
    rows = [*hidden, *((Thumbnail(**{**vars(one), "name": _address(one.name)}), "") for one in shown)]
    return filled(
        "labels.html", "labels.js", f"{len(shown)} images of {found.result.target.spec} to label",
        about=f"{about} Leave out what you cannot tell. Save, and put the file in the place of {out.absolute()}.",
        file=out.name, rows=rows, shown=shown, classes=found.result.classes, command=command,
    )  # fmt: skip


def _address(name: str) -> str:
    """Files by their whole path, so that the CSV file can lie anywhere."""
    return str(Path(name).absolute()) if Path(name).is_file() else name
