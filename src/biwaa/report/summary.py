"""A run's result in a few lines for the terminal: what was measured first, then what can be said without labels."""

from collections.abc import Sequence

from biwaa.recipe import Recipe
from biwaa.report.estimate import doubt, estimate_error, interval_text, shown_estimate
from biwaa.report.sentences import in_percent, selected_text, stage_name, warning_texts
from biwaa.result import SOURCE_ONLY, TEACHER, Accuracy, Result

WIDTH = 44  # Letters of a row's name


def summarise(result: Result, recipe: Recipe) -> str:
    """Accuracies where there are labels, then how the model was selected, its estimate and the warnings."""
    lines = [*_measured(result), *_held_out(result)]
    if result.accuracy is None:
        lines.append(f"the {result.target.images} target images have no labels: accuracy on them was not measured")
    lines.append(selected_text(result))
    share = result.label_free.agreement_with_source_only
    if share is not None and result.model.stage != SOURCE_ONLY:
        lines.append(f"  it agrees with source-only on {in_percent(share)} of the target images")
    share = result.label_free.agreement_with_teacher
    if share is not None and result.model.stage != TEACHER:
        lines.append(f"  it agrees with the teacher on {in_percent(share)} of the target images")
    lines += [*_estimate(result, recipe), *_shares(result)]
    if not result.finished:
        lines.append(f"the run is not finished, {len(result.rounds)} rounds are: --resume goes on")
    return "\n".join([*lines, *(f"warning: {text}" for text in warning_texts(result, recipe))])


def _measured(result: Result) -> list[str]:
    images, accuracy = result.target.images, result.accuracy
    if accuracy is None:
        return []
    rows = [(stage_name(result, stage.name), stage.accuracy) for stage in result.stages]
    rows.append(("average of the rounds' predictions", accuracy.average_of_rounds))
    title = f"target accuracy in percent ({images} images; their labels were not used in training; seed {result.seed}):"
    return [title, *_accuracies(rows)]


def _held_out(result: Result) -> list[str]:
    if result.held_out is None:
        return []
    rows = [(stage_name(result, stage.name), stage.held_out) for stage in result.stages]
    what = f"{result.held_out.images} held-out images of {result.held_out.spec}"
    return [f"accuracy in percent on {what} (not used in training):", *_accuracies(rows)]


def _accuracies(rows: Sequence[tuple[str, Accuracy | None]]) -> list[str]:
    return _table(
        ("stage, its last step", "over images", "over classes"),
        [(name, (found.over_images, found.over_classes)) for name, found in rows if found],
    )


def _estimate(result: Result, recipe: Recipe) -> list[str]:
    what, share = "estimated target accuracy, without labels", shown_estimate(result)
    if share is None:
        return [f"{what}: unknown, since {doubt(result)}"]
    return [f"{what}: {100 * share:.0f} %{interval_text(result)}", f"  {estimate_error(result, recipe)}"]


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
    rows = [(label, tuple(of[label] for of in columns.values())) for label in result.classes]
    return [*lines, *_table(("share of each class in percent", *columns), rows)]


def _table(header: Sequence[str], rows: Sequence[tuple[str, tuple[float, ...]]]) -> list[str]:
    """Shares in percent below their headings."""
    lines = [f"  {header[0]:{WIDTH}}" + "".join(f"{title:>14}" for title in header[1:])]
    return lines + [f"  {name:{WIDTH}}" + "".join(f"{100 * value:14.1f}" for value in values) for name, values in rows]
