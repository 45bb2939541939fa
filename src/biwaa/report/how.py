"""How it got there: losses, label-free scores and accuracy by stage, class shares."""

from collections.abc import Callable, Sequence

from biwaa.report import pictures
from biwaa.report.cells import Cell, PageTable, number, percent, shaded
from biwaa.report.pictures import ACCENT, INK, MUTED, SOURCE, Picture
from biwaa.report.read import Reading
from biwaa.report.section import Group, Section, Swatch
from biwaa.report.sentences import in_percent, selected_text, stage_name
from biwaa.report.sources import sources_table
from biwaa.result import LAST, SOURCE_ONLY, Stage

ROWS = 20  # Classes that a figure of shares shows
POINTS = 200  # Points of a curve
USUAL = "nuclear_norm"  # The label-free score that is drawn where none chose
TITLES = {
    "classification": "Source classification loss", "domain": "Discriminator's loss",
    "domain_accuracy": "Discriminator's accuracy", "alignment": "Alignment loss", "separation": "Separation loss",
    "confusion": "Class confusion", "pseudo_label": "Loss on pseudo-labels",
}  # fmt: skip
SHORT = {"ami": "AMI", "snd": "SND", "dev": "DEV", "ensv": "EnsV", "mixval": "MixVal", "v_measure": "V-measure"}
NOT_A_LOSS = ("stage", "step", "steps_per_second")  # What else a line of log.jsonl holds.


def how(run: Reading) -> Section:
    """Pictures by stage, the losses, and the figures behind them."""
    page = Section("how", "How did it get there?")
    selected = selected_text(run.result)
    trained = len(run.stages) - (run.result.teacher is not None)
    s = "s" * (trained > 1)
    stepwise = run.result.cost.steps
    what = f"training{s}, each from scratch" if stepwise else f"classifier{s}, solved for without training steps"
    page.lead = f"{trained} {what}; {selected}."
    page.groups.append(Group([*_accuracy(run), *_scores(run), _class_shares(run)]))
    losses = _losses(run)
    if losses:
        shades = zip(run.stages, pictures.shades(run.stages), strict=True)
        legend = [Swatch(stage, colour, strength) for stage, (colour, strength) in shades]
        page.groups.append(Group(losses, "small", "Training", legend))
    page.tables += [*sources_table(run.result), _by_stage(run), *_distances(run), *_prompts(run)]
    return page


def _title(score: str) -> str:
    return SHORT.get(score, score.replace("_", " "))


def _accuracy(run: Reading) -> list[Picture]:
    found = [stage.accuracy for stage in run.result.stages]
    if not any(found):
        return []
    images = [100 * one.over_images if one else None for one in found]
    classes = [100 * one.over_classes if one else None for one in found]
    words = f"Target accuracy over images in percent: {_by_name(run, images, '.1f')}. Selected: {run.selected}."
    lines = [("over images", images, ACCENT, "-"), ("over classes", classes, MUTED, "--")]
    return [pictures.by_stage(run.stages, lines, run.selected, "percent right", "Accuracy by round", words)]


def _scores(run: Reading) -> list[Picture]:
    """The label-free score that chose, or would by default."""
    by = run.result.model.chosen_by
    shown = USUAL if by == LAST else by
    values = [stage.validators.get(shown) for stage in run.result.stages]
    if all(value is None for value in values):
        return []
    name = _title(shown)
    title = f"A score without labels: {name}" if by == LAST else f"The score that selected: {name}"
    words = _by_name(run, values, ".4g")
    lines = [(name, values, ACCENT, "-")]
    return [pictures.by_stage(run.stages, lines, run.selected, name, title, f"{title}, higher is better: {words}.")]


def _by_name(run: Reading, values: Sequence[float | None], form: str) -> str:
    """A value a stage, in words."""
    pairs = zip(run.stages, values, strict=True)
    return ", ".join(f"{stage} {value:{form}}" for stage, value in pairs if value is not None)


def _losses(run: Reading) -> list[Picture]:
    found = []
    for name in dict.fromkeys(key for entry in run.log for key in entry if key not in NOT_A_LOSS):
        lines = []
        for stage in run.stages:
            entries = [entry for entry in run.log if entry["stage"] == stage and name in entry]
            entries = entries[:: max(1, -(-len(entries) // POINTS))]
            if entries:
                lines.append((stage, [entry["step"] for entry in entries], [entry[name] for entry in entries]))
        if lines:
            title = TITLES.get(name, name.replace("_", " ").capitalize())
            ends = ", ".join(f"{stage} from {y[0]:.3g} to {y[-1]:.3g}" for stage, _, y in lines)
            level = 0.5 if name == "domain_accuracy" else None
            note = "Dashed: it cannot tell the domains apart." if level else ""
            found.append(pictures.curves(lines, title, f"{title} over the steps: {ends}.", level, note))
    return found


def _class_shares(run: Reading) -> Picture:
    result, selected = run.result, run.result.selected
    source, true = result.label_shares.source, result.label_shares.true_target
    reference = true or source or {name: 1 / len(run.classes) for name in run.classes}

    def gap(name: str) -> float:
        return abs(selected.predicted_shares[name] - reference[name])

    widest = sorted(run.classes, key=gap, reverse=True)[:ROWS]
    names = [name for name in run.classes if name in widest]

    def shares(of: dict[str, float]) -> list[float]:
        return [100 * of[name] for name in names]

    lines = [("source", shares(source), SOURCE, 1.0, "o")] if source else []
    others = [stage for stage in result.rounds if stage.name != selected.name]
    for place, stage in enumerate(others):
        lines.append(("" if place else "other rounds", shares(stage.predicted_shares), ACCENT, 0.35, "."))
    if result.baseline and selected.name != SOURCE_ONLY:
        lines.append((SOURCE_ONLY, shares(result.baseline.predicted_shares), SOURCE, 1.0, "x"))
    lines.append((selected.name, shares(selected.predicted_shares), ACCENT, 1.0, "o"))
    if true:
        lines.append(("true", shares(true), INK, 1.0, "|"))
    worst = widest[0]
    words = (
        f"Class shares. The widest gap is at {worst}: {in_percent(selected.predicted_shares[worst])} predicted by "
        f"{selected.name}"
        + (f", {in_percent(source[worst])} of the source" if source else "")
        + (f", {in_percent(true[worst])} in truth." if true else ".")
    )
    note = f"The {ROWS} classes with the widest gaps, of {len(run.classes)}." if len(names) < len(run.classes) else ""
    return pictures.dots(names, lines, "Class shares, of the source and as predicted of the target", words, note)


def _by_stage(run: Reading) -> PageTable:
    stages = run.result.stages
    header, columns = ["stage"], []
    means: dict[str, Callable[[Stage], float | None]] = {
        "right, over images": lambda stage: stage.accuracy.over_images if stage.accuracy else None,
        "over classes": lambda stage: stage.accuracy.over_classes if stage.accuracy else None,
    }
    measured = any(stage.accuracy for stage in stages)
    if measured:
        header += list(means)
        columns = [shaded([percent(read(stage)) for stage in stages]) for read in means.values()]
    for name in stages[0].validators:
        header.append(_title(name))
        columns.append(shaded([number(stage.validators.get(name)) for stage in stages]))
    names = [Cell(stage_name(run.result, stage.name)) for stage in stages]
    what = "Accuracy in percent, and scores without labels" if measured else "Scores without labels"
    caption = f"{what}; higher is better, shaded from a column's lowest to its highest"
    return PageTable(caption, tuple(header), tuple(zip(names, *columns, strict=True)))


def _prompts(run: Reading) -> list[PageTable]:
    """What a zero-shot teacher was given to read."""
    prompts = run.result.teacher.prompts if run.result.teacher else {}
    rows = tuple((Cell(name), Cell(" / ".join(texts))) for name, texts in prompts.items())
    return [PageTable("What the teacher compared images with", ("class", "texts"), rows, tall=True)] if rows else []


def _distances(run: Reading) -> list[PageTable]:
    if not run.result.label_shares.source:
        return []
    apart = run.result.label_shares.source_to_true
    rows = tuple(
        (
            Cell(stage.name),
            percent(stage.distance_to_source),
            *([] if apart is None else [percent(stage.distance_to_true)]),
        )
        for stage in run.result.stages
    )
    note = "" if apart is None else f"The target's true shares differ from the source's by {in_percent(apart)}."
    header = ("stage", "from the source's", *([] if apart is None else ["from the target's true ones"]))
    caption = "How far predicted class shares differ from others (total variation, percent)"
    return [PageTable(caption, header, rows, note)]
