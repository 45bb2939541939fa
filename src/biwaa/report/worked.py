"""Did it work: figures, the estimate without labels and its error, warnings."""

from biwaa.recipe import NAMED
from biwaa.report.cells import Cell, PageTable, percent
from biwaa.report.read import Reading
from biwaa.report.section import Figure, Section, points
from biwaa.report.summary import ESTIMATE_ERROR, ESTIMATE_WORST
from biwaa.training.rounds import BASELINE

READINGS = {
    "estimate": "the estimate: mean of the agreements",
    "agreement_of_rounds": "rounds agree with each other",
    "agreement_with_source_only": "the model agrees with source-only",
    "agreement_of_neighbours": "nearest neighbours are called alike",
    "agreement_of_neighbours_source_only": "the same under source-only, for its accuracy",
    "confidence": "mean confidence, calibrated",
    "difference_of_confidences": "held-out source accuracy less the loss of confidence",
    "thresholded_confidence": "confidence above a threshold of the source",
    "thresholded_entropy": "entropy below a threshold of the source",
}
"""How the page calls the label-free estimates of accuracy."""


def worked(run: Reading) -> Section:
    """The figures that count, source-only beside them."""
    page = Section("worked", "Did it work?", warnings=list(run.result["warnings"]))
    if not run.result.get("finished"):
        page.warnings = [
            f"The run is not finished, after {run.rounds[-1]}: --resume goes on.",
            *run.result["warnings"],
        ]
    if "accuracy" in run.result:
        _with_labels(page, run)
    else:
        _without_labels(page, run)
    _estimate(page, run)
    page.tables += [table for table in (_choices(run), _readings(run)) if table]
    return page


def _with_labels(page: Section, run: Reading) -> None:
    accuracy, images = run.result["accuracy"], run.result["target"]["images"]
    share = accuracy["adapted"]["over_images"]
    page.lead = f"{round(share * images)} of {images} target images are classified right, {points(share)}."
    page.figures.append(Figure(points(share), "of the target images right", f"by {run.chosen}, the model handed out"))
    base = accuracy["legs"].get(BASELINE)
    if base and run.chosen != BASELINE:
        gain = 100 * (share - base["over_images"])
        page.figures.append(Figure(points(base["over_images"]), "with source-only", "trained on the source alone"))
        page.figures.append(Figure(f"{gain:+.1f}", "points by adapting"))
        word = "gained" if gain >= 0 else "lost"
        page.lead += (
            f" Trained on the source alone it would be {points(base['over_images'])}: adapting {word} "
            f"{abs(gain):.1f} points."
        )
    elif run.chosen == BASELINE:
        page.lead += " Adapting was judged no better than source-only, so that is what was handed out."


def _without_labels(page: Section, run: Reading) -> None:
    page.lead = (
        f"The {run.result['target']['images']} target images have no labels, so nobody can say how many are right."
    )
    estimate = run.result["estimated_accuracy"].get("estimate")
    if estimate is not None:
        page.lead += f" By how far models and neighbours agree, about {100 * estimate:.0f} % are."


def _estimate(page: Section, run: Reading) -> None:
    """The label-free estimate, always with its error; source-only's beside it where nothing better is known."""
    found = run.result["estimated_accuracy"]
    if "estimate" not in found:
        page.notes.append("This run has no evidence for an estimate without labels.")
        return
    note = f"on benchmarks off by {ESTIMATE_ERROR} points on average and {ESTIMATE_WORST} at worst, rather too high"
    page.figures.append(Figure(f"≈ {100 * found['estimate']:.0f} %", "right, estimated without labels", note))
    alone = found.get("agreement_of_neighbours_source_only")
    if alone is not None and "accuracy" not in run.result:
        page.figures.append(
            Figure(f"≈ {100 * alone:.0f} %", "source-only, by its neighbours", "without labels as well")
        )
    if "agreement_with_source_only" in found and "accuracy" not in run.result:
        share = points(found["agreement_with_source_only"])
        page.figures.append(Figure(share, "called alike by source-only", "the rest is what adapting changed"))
    text = (
        "The estimate is a mean of agreements (docs/robust.md). Over 54 benchmark runs of the recipe robust it was off "
        f"by {ESTIMATE_ERROR} points on average and by {ESTIMATE_WORST} at worst. To be sure, label some target images "
        "and pass them with --held-out."
    )
    other = [key for key, value in NAMED["robust"].items() if getattr(run.recipe, key) != value]
    if other:
        named = f"{', '.join(other[:3])}{' ..' if len(other) > 3 else ''}"
        text += f" This run has other settings than robust ({named}): how wrong its estimate is was not measured."
    page.notes.append(text)


def _choices(run: Reading) -> PageTable | None:
    accuracy = run.result.get("accuracy")
    if not accuracy:
        return None
    best = accuracy["oracle_best_round"]
    rows = [(f"handed out: {run.chosen}", accuracy["adapted"], run.result["model"]["chosen_by"])]
    if BASELINE in accuracy["legs"] and run.chosen != BASELINE:
        rows.append((BASELINE, accuracy["legs"][BASELINE], "nothing: trained on the source alone"))
    rows.append(("average of the rounds", accuracy["average_of_rounds"], "nothing: all of them"))
    name = best["checkpoint"].removeprefix("last step of ")
    rows.append((f"oracle: {name}", best, "target labels, which nobody without labels can"))
    held = run.result.get("held_out")
    if held and run.chosen in held["legs"]:
        rows.append((f"{run.chosen}, held-out images", held["legs"][run.chosen], f"{held['images']} {held['split']}"))
    cells = tuple(
        (Cell(name), percent(figures["over_images"]), percent(figures["over_classes"]), Cell(by))
        for name, figures, by in rows
    )
    caption = f"Target accuracy in percent: {accuracy['split']}; seed {run.result['seed']}"
    return PageTable(caption, ("model", "over images", "over classes", "chosen by"), cells, sortable=False)


def _readings(run: Reading) -> PageTable | None:
    found = run.result["estimated_accuracy"]
    rows = tuple((Cell(text), percent(found[name])) for name, text in READINGS.items() if name in found)
    if not rows:
        return None
    calibration = run.result["calibration"]
    note = f"Temperature {calibration['temperature']:.2f}."
    for where, of in (("held_out_source", "held-out source images"), ("target", "the target")):
        if where in calibration:
            before, after = (100 * calibration[where][when] for when in ("before", "after"))
            note += f" Expected calibration error on {of}: {before:.1f} points before, {after:.1f} after."
    return PageTable("Target accuracy read without labels, in percent", ("reading", "percent"), rows, note)
