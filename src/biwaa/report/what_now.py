"""What now: measure, try what helped elsewhere, use; each with a command and what to expect of it."""

import math
import shlex
from pathlib import Path

from biwaa.errors import listed
from biwaa.judging.metrics import share_interval
from biwaa.recipe import load_recipe
from biwaa.report.advice import OF_THE_USER, Advice, as_words
from biwaa.report.estimate import doubt
from biwaa.report.read import Reading
from biwaa.report.remedies import remedies
from biwaa.report.repeat import train_again
from biwaa.report.section import Section, Step
from biwaa.result import warnings
from biwaa.training.folder import CLASSES

IMAGES = 50  # Of so many, the share that is right is within 12 points of that of all, in 90 of 100 cases
LISTED = 12  # Names of classes that are listed
OF_THE_IMAGES = (warnings.SourceNotLearned, warnings.FarFromSource, warnings.LikeNoClass)
"""Warnings whose cause is seen in the images."""


def what_now(run: Reading) -> Section:
    """The last section of the page."""
    page = Section("next", "What now?")
    if not run.result.finished:
        page.steps.append(_finish(run))
    again = train_again(run.result, run.folder.path)
    if again and run.result.source_specs and isinstance(run.result.contradiction, OF_THE_IMAGES):
        page.steps.append(_check(run))
    if not run.measured:
        files = sum(Path(name).is_file() for name in run.predictions.names)
        page.steps.append(_label(run, min(files, IMAGES)) if files else _measure(run))
    if again and (advice := _advice(run)):
        page.steps.append(_try(run, again, advice))
    if run.selected in run.evidence and run.evidence[run.selected].features is not None:
        page.steps.append(_learn(run))
    page.steps.append(_use(run))
    return page


def _finish(run: Reading) -> Step:
    command = shlex.join(["biwaa", "train", "--resume", "--out", str(run.folder.path)])
    if not train_again(run.result, run.folder.path):
        command = f"biwaa.adapt(source, target, .., out={str(run.folder.path)!r}, resume=True)"
    return Step("Finish the run", "", command, "the rounds that are missing; what is finished is kept")


def _check(run: Reading) -> Step:
    result = run.result
    text = f"No estimate is believed here, since {doubt(result)}. Look at some images of each class first."
    classes = run.folder.path / CLASSES
    named = ["--classes", str(classes)] if result.remembered and classes.is_file() else []
    command = shlex.join(["biwaa", "check", *result.source_specs, result.target.spec, *named])
    return Step("Check the images", text, command, "how many images and which classes both domains hold")


def _label(run: Reading, images: int) -> Step:
    low, high = share_interval(0.5, images)
    text = (
        f"This command draws {images} target images at random, and writes a table of them and a page on which you give "
        "each its class. The command that it prints measures by them."
    )
    expected = (
        f"the share that is right. With {images} labels it is within {math.ceil(50 * (high - low))} points of the "
        "accuracy on all images in 90 of 100 cases. This page then shows it before the estimate. Training never sees "
        "these labels"
    )
    command = _words("suggest", run, "--measure", "--count", str(images), "--out", "to_measure.csv")
    return Step(f"Measure it: label {images} images", text, command, expected)


def _measure(run: Reading) -> Step:
    text = (
        f"Sort about {IMAGES} images of the target's place, drawn at random, into one folder per class, here "
        f"LABELLED: {listed(list(run.classes), LISTED)}."
    )
    expected = "the share that is right. This page then shows it before the estimate"
    return Step("Measure it: label some images", text, _words("evaluate", run, "LABELLED"), expected)


def _advice(run: Reading) -> Advice | None:
    """The first remedy of the gravest warning that has one.

    More images for calibration were not measured to help the accuracy.
    """
    told = [one for one in run.result.warnings if not isinstance(one, warnings.FewHeldOut)]
    return next((way for one in told for way in remedies(one, run.result, run.recipe)), None)


def _try(run: Reading, again: list[str], advice: Advice) -> Step:
    if advice.recipe:
        start, here = load_recipe(advice.recipe).flat(), run.recipe.flat()
        kept = {name: here[name] for name in OF_THE_USER if here[name] != start[name]}
        words = ["--recipe", advice.recipe, *as_words(kept)]
    else:
        words = ["--recipe", str(run.folder.path / "recipe.yaml"), *as_words(advice.settings)]
    text = f"A warning above suggests {advice.text}."
    expected = "a second run, to be compared with this one on labelled images; take the better one"
    return Step(
        "Try another setting", text, shlex.join(["biwaa", "train", *words, *again, "--out", "second"]), expected
    )


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
