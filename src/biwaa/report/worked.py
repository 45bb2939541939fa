"""Did it work: what was measured, the estimate without labels and its error, warnings."""

from biwaa.judging.metrics import share_interval
from biwaa.report.cells import Cell, PageTable, count, percent
from biwaa.report.estimate import READINGS, doubt, estimate_error, interval_text, shown_estimate
from biwaa.report.read import Reading
from biwaa.report.section import Figure, Section
from biwaa.report.sentences import backbones_text, in_percent, stage_name, unseen_images, warning_texts
from biwaa.result import LAST, REFERENCES, SOURCE_ONLY, TEACHER, Accuracy

EVALUATIONS = 3  # Of so many the figures stand on top; the table has all
BY_TEACHER = "nothing: another model's word"
BY_NOTHING = "nothing: trained on the source alone"


def worked(run: Reading) -> Section:
    """The figures that count, source-only with them; what was measured stands before what was estimated."""
    result = run.result
    page = Section("worked", "Did it work?", warnings=warning_texts(result, run.recipe))
    if not result.finished:
        page.warnings = [
            f"The run is not finished, its last stage is {result.stages[-1].name}: --resume goes on.",
            *(page.warnings or ()),
        ]
    measured = [text for text in (_accuracy(page, run), _held_out(page, run), *_evaluations(page, run)) if text]
    page.lead = " ".join([*measured, *_estimate(page, run)])
    if apart := backbones_text(result):
        page.notes.append(f"The {apart}.")
    tables = (_choices(run), _held_out_table(run), _evaluations_table(run), _readings(run))
    page.tables += [table for table in tables if table]
    return page


def _accuracy(page: Section, run: Reading) -> str:
    """Figures of all target images, where they have labels; a sentence."""
    accuracy, images = run.result.accuracy, run.result.target.images
    if accuracy is None:
        return ""
    share = accuracy.adapted.over_images
    text = f"{round(share * images)} of {images} target images are classified right, {in_percent(share)}."
    page.figures.append(Figure(in_percent(share), "of the target images right", f"by {run.selected}, selected"))
    baseline = run.result.baseline
    if run.selected in REFERENCES:
        whose = (
            "source-only, so the source-only model" if run.selected == SOURCE_ONLY else "the teacher, so its student"
        )
        return f"{text} Adapting was judged no better than {whose} was selected."
    taught = run.result.stage(TEACHER)
    if taught and taught.accuracy:
        page.figures.append(Figure(in_percent(taught.accuracy.over_images), "by the teacher", _teacher(run)))
    if baseline is None or baseline.accuracy is None:
        return text
    base = baseline.accuracy.over_images
    gain = 100 * (share - base)
    page.figures.append(Figure(in_percent(base), "with source-only", "trained on the source alone"))
    page.figures.append(Figure(f"{gain:+.1f}", "points by adapting"))
    word = "gained" if gain >= 0 else "lost"
    return f"{text} Trained on the source alone it is {in_percent(base)}: adapting {word} {abs(gain):.1f} points."


def _teacher(run: Reading) -> str:
    return run.result.teacher.where if run.result.teacher else ""


def _held_out(page: Section, run: Reading) -> str:
    """The figure of the held-out images, where there are any; a sentence."""
    held_out, accuracy = run.result.held_out, run.result.selected.held_out
    if held_out is None or accuracy is None:
        return ""
    share, baseline = in_percent(accuracy.over_images), run.result.baseline
    about = f"{held_out.images} labelled images, not used in training; {_interval(accuracy, held_out.images)}"
    page.figures.append(Figure(share, "of the held-out images right", about))
    text = f"Of {held_out.images} held-out images, which were not used in training, {share} are classified right"
    if baseline and baseline.held_out and run.selected != SOURCE_ONLY and not run.result.accuracy:
        base = in_percent(baseline.held_out.over_images)
        page.figures.append(Figure(base, "with source-only", "of the same images, trained on the source alone"))
        text += f", and {base} by training on the source alone"
    return f"{text}."


def _interval(accuracy: Accuracy, images: int) -> str:
    low, high = share_interval(accuracy.over_images, images)
    return f"90 % interval {100 * low:.0f} to {100 * high:.0f} %"


def _evaluations(page: Section, run: Reading) -> list[str]:
    """The figures of the newest evaluations; sentences."""
    newest = [one for one in run.evaluations if not one.of_source][-EVALUATIONS:]
    for one in newest:
        about = f"{one.images} labelled images, by biwaa evaluate; {_interval(one.accuracy, one.images)}"
        page.figures.append(Figure(in_percent(one.accuracy.over_images), f"of the images of {one.spec} right", about))
    return [
        f"Of {one.images} labelled images of {one.spec}, {in_percent(one.accuracy.over_images)} are classified right."
        for one in newest
    ]


def _estimate(page: Section, run: Reading) -> list[str]:
    """The label-free estimate with its error, or why there is none; sentences for the lead if nothing was measured."""
    result, found = run.result, run.result.estimated_accuracy.readings
    share, why, known = shown_estimate(result), doubt(result), run.measured
    interval = interval_text(result.estimated_accuracy)
    given, images = result.target.labels_given, result.target.images
    which = f"The other {images - given}" if given else f"The {images}"
    unmeasured = f"{which} target images have no labels, so accuracy was not measured."
    if share is None:
        page.figures.append(Figure("unknown", "accuracy, estimated without labels", f"since {why}", estimated=True))
        page.notes.append(f"No estimate of the accuracy is shown, since {why}.")
        return [] if known else [unmeasured, f"It cannot be estimated either, since {why}."]
    page.figures.append(
        Figure(
            f"≈ {100 * share:.0f} %",
            "right, estimated without labels",
            ("go by what was measured; " if known else "") + (interval[2:] or "its error: see below"),
            estimated=True,
        )
    )
    alone, agreed = found.get("agreement_of_neighbours_source_only"), result.label_free.agreement_with_source_only
    if alone is not None and not known:
        page.figures.append(
            Figure(f"≈ {100 * alone:.0f} %", "source-only, by its neighbours", "estimated too", estimated=True)
        )
    taught = result.label_free.agreement_with_teacher
    if taught is not None and not known and run.selected != TEACHER:
        page.figures.append(Figure(in_percent(taught), "agreement with the teacher", _teacher(run)))
    if agreed is not None and not known:
        text = "adapting changed the rest"
        page.figures.append(Figure(in_percent(agreed), "agreement with source-only", text, estimated=True))
    text = f"The estimate pools several of these readings. {estimate_error(result, run.recipe)}"
    if not known:
        text += " To be sure, label some target images and pass them with --held-out."
    page.notes.append(text)
    return [] if known else [unmeasured, f"About {100 * share:.0f} % are estimated to be right{interval}."]


def _choices(run: Reading) -> PageTable | None:
    result, accuracy = run.result, run.result.accuracy
    if accuracy is None:
        return None
    best, by = accuracy.oracle_best_round, result.model.chosen_by
    several = len(result.rounds) > 1
    last = "being the last round" if several else "being the only round"
    how = last if by == LAST else f"{by}, without labels"
    rows: list[tuple[str, Accuracy, str]] = [(f"selected: {run.selected}", accuracy.adapted, how)]
    baseline = result.baseline
    if baseline and baseline.accuracy and run.selected != SOURCE_ONLY:
        rows.append((SOURCE_ONLY, baseline.accuracy, BY_NOTHING))
    taught = result.stage(TEACHER)
    if taught and taught.accuracy and run.selected != TEACHER:
        rows.append((TEACHER, taught.accuracy, BY_TEACHER))
    if several:
        rows.append(("average of the rounds", accuracy.average_of_rounds, "nothing: all of them"))
        rows.append((f"oracle: {best.stage}", best, "target labels, which are not available in practice"))
    cells = tuple(
        (Cell(name), percent(found.over_images), percent(found.over_classes), Cell(how)) for name, found, how in rows
    )
    caption = (
        f"Target accuracy in percent: {unseen_images(result)} images, whose labels were not used in training; seed "
        f"{result.seed}"
    )
    return PageTable(caption, ("model", "over images", "over classes", "selected by"), cells, sortable=False)


def _held_out_table(run: Reading) -> PageTable | None:
    held_out = run.result.held_out
    if held_out is None:
        return None
    cells = tuple(
        (
            Cell(stage_name(run.result, stage.name)),
            percent(stage.held_out.over_images),
            percent(stage.held_out.over_classes),
        )
        for stage in run.result.stages
        if stage.held_out
    )
    caption = f"Accuracy in percent on {held_out.images} held-out images of {held_out.spec}, not used in training"
    return PageTable(caption, ("stage", "over images", "over classes"), cells, sortable=False)


def _evaluations_table(run: Reading) -> PageTable | None:
    rows = tuple(
        (
            Cell(f"{one.spec} (the source)" if one.of_source else one.spec),
            count(one.images),
            percent(one.accuracy.over_images),
            percent(one.accuracy.over_classes),
        )
        for one in run.evaluations
    )
    header = ("images of", "images", "over images", "over classes")
    caption = f"Accuracy in percent by biwaa evaluate, {run.selected}"
    return PageTable(caption, header, rows, sortable=False) if rows else None


def _readings(run: Reading) -> PageTable | None:
    found = run.result.estimated_accuracy.readings
    rows = tuple((Cell(text), percent(found[name])) for name, text in READINGS.items() if name in found)
    if not rows:
        return None
    calibration, believed = run.result.calibration, not doubt(run.result)
    matched = calibration.matched_to_estimate
    estimated = "at which their mean is the estimate" + ("" if believed else " that is not believed here")
    how = estimated if matched else "fitted on held-out source images"
    note = f"Confidences are those at the temperature {calibration.temperature:.2f}, {how}."
    for error, of in ((calibration.held_out_source, "held-out source images"), (calibration.target, "the target")):
        if error and not (matched and error is calibration.held_out_source):  # it is not meant for the source
            note += (
                f" Expected calibration error on {of}: {100 * error.before:.1f} points before, {100 * error.after:.1f} "
                "after."
            )
    if not matched and run.result.selected.validators.get("source_accuracy") == 1:
        note += " All held-out source images are right, so the temperature counts one error as possible."
    header = ("estimate by", "percent")
    caption = "Target accuracy as estimated without labels, in percent"
    caption = caption if believed else "Single estimates in percent, which are not believed here"
    return PageTable(caption, header, rows, note, folded=True)
