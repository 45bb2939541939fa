"""What now: measure, try what helped elsewhere, use; each with a command and what to expect of it."""

import math
import shlex
from pathlib import Path

from biwaa.errors import listed
from biwaa.files import expanded
from biwaa.judging.metrics import share_interval
from biwaa.recipe import load_recipe
from biwaa.report.advice import OF_THE_USER, Advice, as_words
from biwaa.report.estimate import doubt
from biwaa.report.label_sheet import IMAGES, Sheet
from biwaa.report.read import Reading
from biwaa.report.section import Section, Step
from biwaa.report.sentences import remedies
from biwaa.result import FarFromSource, FewHeldOut, SourceNotLearned

CLASSES = 12  # Names of classes that are listed


def what_now(run: Reading, sheet: Sheet | None) -> Section:
    """The last section of the page."""
    page = Section("next", "What now?")
    if not run.result.finished:
        page.steps.append(_finish(run))
    named = all(map(_is_spec, (*run.result.source_specs, run.result.target.spec)))
    if named and isinstance(run.result.contradiction, SourceNotLearned | FarFromSource):
        page.steps.append(_check(run))
    if not run.measured:
        page.steps.append(_label(run, sheet) if sheet else _measure(run))
    if named and (advice := _advice(run)):
        page.steps.append(_try(run, advice))
    if run.selected in run.evidence and run.evidence[run.selected].features is not None:
        page.steps.append(_learn(run))
    page.steps.append(_use(run))
    return page


def _finish(run: Reading) -> Step:
    command = _train(run, ["--recipe", str(run.folder.path / "recipe.yaml"), "--resume"], run.folder.path)
    return Step("Finish the run", "", command, "the rounds that are missing; what is finished is kept")


def _check(run: Reading) -> Step:
    result = run.result
    text = f"No estimate is believed here, since {doubt(result)}. Look at some images of each class first."
    command = shlex.join(["biwaa", "check", *result.source_specs, result.target.spec])
    return Step("Check the images", text, command, "how many images and which classes both domains hold")


def _label(run: Reading, sheet: Sheet) -> Step:
    text = f"{sheet.path} lists {sheet.images} target images, drawn at random. "
    if sheet.filled:
        title = f"Measure it: {sheet.filled} of {sheet.images} labels are filled in"
        text += "Fill in the others, or delete their rows."
    else:
        title = f"Measure it: label {sheet.images} images"
        text += (
            "Open it in a spreadsheet or an editor and write the class of each image into the column label: "
            f"{listed(list(run.classes), CLASSES)}. Delete the rows that you leave out."
        )
    return Step(title, text, shlex.join(["biwaa", "evaluate", str(run.folder.path), str(sheet.path)]), _exact(sheet))


def _exact(sheet: Sheet) -> str:
    images = sheet.filled or sheet.images
    low, high = share_interval(0.5, images)
    points = math.ceil(50 * (high - low))
    return (
        f"the share that is right. With {images} labels it is within {points} points of the accuracy on all images in "
        "90 of 100 cases. This page then shows it before the estimate. Training never sees these labels"
    )


def _measure(run: Reading) -> Step:
    text = (
        f"Sort about {IMAGES} images of the target's place, drawn at random, into one folder per class, here "
        f"LABELLED: {listed(list(run.classes), CLASSES)}."
    )
    expected = "the share that is right. This page then shows it before the estimate"
    return Step("Measure it: label some images", text, _words("evaluate", run, "LABELLED"), expected)


def _advice(run: Reading) -> Advice | None:
    """The first remedy of the gravest warning that has one.

    More images for calibration were not measured to help the accuracy.
    """
    warnings = [one for one in run.result.warnings if not isinstance(one, FewHeldOut)]
    return next((way for one in warnings for way in remedies(one, run.result, run.recipe)), None)


def _try(run: Reading, advice: Advice) -> Step:
    if advice.recipe:
        start, here = load_recipe(advice.recipe).flat(), run.recipe.flat()
        kept = {name: here[name] for name in OF_THE_USER if here[name] != start[name]}
        words = ["--recipe", advice.recipe, *as_words(kept)]
    else:
        words = ["--recipe", str(run.folder.path / "recipe.yaml"), *as_words(advice.settings)]
    text = f"A warning above suggests {advice.text}."
    expected = "a second run, to be compared with this one on labelled images; take the better one"
    return Step("Try another setting", text, _train(run, words, Path("second")), expected)


def _learn(run: Reading) -> Step:
    text = (
        "A few labels of images that the model is unsure of, and that are unlike each other, say more than as many at "
        "random. This command chooses them."
    )
    expected = (
        "a table, and a page that shows the images and saves your labels; the command that it prints trains on them, "
        "and leaves them out of every accuracy"
    )
    return Step("Label a few images to train on", text, _words("suggest", run, "--out", "to_label.csv"), expected)


def _use(run: Reading) -> Step:
    text = "NEW_IMAGES is a folder of images from the target's place."
    if not run.measured:
        text += " Measure first: nobody has checked one prediction of this model."
    return Step(
        "Use it", text, _words("predict", run, "NEW_IMAGES", "--out", "predictions.csv"),
        "a table with path, label and confidence of each image. Look at the least confident ones yourself",
    )  # fmt: skip


def _words(command: str, run: Reading, *more: str) -> str:
    return shlex.join(["biwaa", command, str(run.folder.path), *more])


def _train(run: Reading, words: list[str], out: Path) -> str:
    result = run.result
    held_out = ["--held-out", result.held_out.spec] if result.held_out else []
    sources = [word for spec in result.source_specs for word in ("--source", spec)]
    words = [*words, *sources, "--target", result.target.spec, *held_out, "--out", str(out)]
    return shlex.join(["biwaa", "train", *words])


def _is_spec(spec: str) -> bool:
    """Whether a command can name it: a domain that was handed over in Python has no SPEC."""
    return ":" in spec or expanded(spec.partition("@")[0]).exists()
