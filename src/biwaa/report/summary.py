"""A run's result in a few lines for the terminal: what was measured first, then what can be said without labels."""

from collections.abc import Iterable, Sequence

import msgspec

from biwaa.evaluations import Evaluation
from biwaa.files import json_text
from biwaa.judging.metrics import share_interval
from biwaa.recipe import Recipe
from biwaa.report.estimate import doubt, estimate_error, estimate_text
from biwaa.report.sentences import backbones_text, in_percent, selected_text, stage_name, unseen_images, warning_texts
from biwaa.report.sources import SOURCE_COLUMNS, source_columns, source_words
from biwaa.result import SOURCE_ONLY, TEACHER, Accuracy, Result

WIDTH = 44  # Letters of a row's name


def summarise(result: Result, recipe: Recipe) -> str:
    """What was measured where there are labels, then the estimate, the selected model and the warnings."""
    measured = [*_measured(result), *_held_out(result)]
    if result.accuracy is None:
        given = result.target.labels_given
        which = f"the {result.target.images - given} {'other ' if given else ''}target images"
        measured.append(f"{which} have no labels: accuracy on them was not measured")
    chosen = [selected_text(result)]
    share = result.label_free.agreement_with_source_only
    if share is not None and result.model.stage != SOURCE_ONLY:
        chosen.append(f"  it agrees with source-only on {in_percent(share)} of the target images")
    share = result.label_free.agreement_with_teacher
    if share is not None and result.model.stage != TEACHER:
        chosen.append(f"  it agrees with the teacher on {in_percent(share)} of the target images")
    if found := backbones_text(result):
        chosen.append(f"  the {found}")
    chosen += _shares(result)
    chosen += _sources(result)
    if not result.finished:
        chosen.append(f"the run is not finished, {len(result.rounds)} rounds are: --resume goes on")
    parts = {
        "Measured": measured,
        "Estimated without labels": _estimate(result, recipe),
        "Selected model": chosen,
        "Warnings": [f"warning: {text}" for text in warning_texts(result, recipe)],
    }
    return _under_headings(parts)


def evaluated(found: Evaluation, result: Result | None) -> str:
    """What `biwaa evaluate` measured, beside the run's estimate."""
    low, high = share_interval(found.accuracy.over_images, found.images)
    model = result.model.stage if result else "the model"
    title = f"accuracy in percent on {found.images} labelled images of {found.spec}:"
    measured = [title, *_accuracies([(model, found.accuracy)], "model")]
    measured.append(f"  90 % interval: {100 * low:.0f} to {100 * high:.0f} %, if these images were drawn at random")
    if found.left_out:
        measured.append(f"  {found.left_out} images could not be read and are left out")
    if found.trained_on:
        measured.append(f"  {found.trained_on} images are left out whose labels the run was trained on")
    parts = {"Measured": measured}
    if found.of_source:
        measured.append("  these are images of the run's source: this says nothing about the target")
    elif result:
        parts["Estimated without labels"] = [f"accuracy on the target {result.target.spec}: {estimate_text(result)}",
                                             "  go by what was measured"]  # fmt: skip
    by_class = [
        (name, (str(found.images_by_class[name]), *_percent(share)))
        for name, share in found.by_class.items()
        if share is not None
    ]
    parts["By class"] = _table(("class", "images", "right, %"), by_class)
    return _under_headings(parts)


def figures_json(found: Evaluation, result: Result | None) -> str:
    """The same as JSON; the estimate is null where it is not believed."""
    figures = msgspec.to_builtins(found)
    believed = result is not None and not doubt(result)
    figures["estimated_accuracy"] = msgspec.to_builtins(result.estimated_accuracy) if result and believed else None
    return json_text(figures)


def _under_headings(parts: dict[str, list[str]]) -> str:
    return "\n\n".join("\n".join([heading, *lines]) for heading, lines in parts.items() if lines)


def _measured(result: Result) -> list[str]:
    images, accuracy = unseen_images(result), result.accuracy
    if accuracy is None:
        return []
    rows = [(stage_name(result, stage.name), stage.accuracy) for stage in result.stages]
    if len(result.rounds) > 1:
        rows.append(("average of the rounds' predictions", accuracy.average_of_rounds))
    title = f"target accuracy in percent ({images} images; their labels were not used in training; seed {result.seed}):"
    return [title, *_accuracies(rows)]


def _held_out(result: Result) -> list[str]:
    if result.held_out is None:
        return []
    rows = [(stage_name(result, stage.name), stage.held_out) for stage in result.stages]
    what = f"{result.held_out.images} held-out images of {result.held_out.spec}"
    return [f"accuracy in percent on {what} (not used in training):", *_accuracies(rows)]


def _accuracies(rows: Sequence[tuple[str, Accuracy | None]], first: str = "stage") -> list[str]:
    measured = [(name, _percent(found.over_images, found.over_classes)) for name, found in rows if found]
    return _table((first, "over images", "over classes"), measured)


def _estimate(result: Result, recipe: Recipe) -> list[str]:
    lines = [f"target accuracy: {estimate_text(result)}"]
    return lines if doubt(result) else [*lines, f"  {estimate_error(result, recipe)}"]


def _shares(result: Result) -> list[str]:
    """How the classes' shares differ: as predicted, in the source and, where it is known, in truth."""
    shares, selected = result.label_shares, result.selected
    if selected.distance_to_source is None:
        return []
    apart = in_percent(selected.distance_to_source)
    lines = [f"predicted class shares differ from the source's by {apart} (total variation)"]
    if shares.source_to_true is not None and selected.distance_to_true is not None:
        lines.append(
            f"  the target's true shares differ from the source's by {in_percent(shares.source_to_true)}, and from the "
            f"predicted ones by {in_percent(selected.distance_to_true)}"
        )
    if result.source.shift == result.target.shift == "none":
        return lines
    columns = {"source": shares.source, "predicted": selected.predicted_shares}
    if shares.true_target is not None:
        columns["true"] = shares.true_target
    rows = [(label, _percent(*(of[label] for of in columns.values()))) for label in result.classes]
    return [*lines, *_table(("share of each class in percent", *columns), rows)]


def _sources(result: Result) -> list[str]:
    """What each of several sources contributes, or that a model stands in the source's place."""
    if result.remembered:
        return [f"source: {source_words(result)}"]
    if not result.sources:
        return []
    columns = source_columns(result)
    rows = [(one.spec, [values[row] for values in columns.values()]) for row, one in enumerate(result.sources)]
    return [f"sources, {SOURCE_COLUMNS}:", *_table(("source", *columns), rows)]


def _table(header: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Cells below their headings, the first of a line to the left."""
    return [
        f"  {name:{WIDTH}}" + "".join(f"{cell:>14}" for cell in cells)
        for name, cells in [(header[0], header[1:]), *rows]
    ]


def _percent(*shares: float) -> list[str]:
    return [f"{100 * share:.1f}" for share in shares]
