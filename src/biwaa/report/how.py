"""How it got there: losses, validators and accuracy by training, label distributions."""

from typing import Any

from biwaa.report import pictures
from biwaa.report.cells import Cell, PageTable, number, percent, shaded
from biwaa.report.pictures import ACCENT, INK, MUTED, SOURCE, Picture
from biwaa.report.read import Reading
from biwaa.report.section import Group, Section, Swatch, points
from biwaa.training.rounds import BASELINE

ROWS = 20
"""Classes that a figure of shares shows."""
POINTS = 200
"""Points of a curve."""
TITLES = {
    "classification": "Source classification loss", "domain": "Discriminator's loss",
    "domain_accuracy": "Discriminator's accuracy", "alignment": "Alignment loss", "separation": "Separation loss",
    "confusion": "Class confusion", "pseudo_label": "Loss on pseudo-labels",
}  # fmt: skip
SHORT = {"ami": "AMI", "snd": "SND", "dev": "DEV", "ensv": "EnsV", "mixval": "MixVal", "v_measure": "V-measure"}


def how(run: Reading) -> Section:
    """Pictures by round, the losses, and the figures behind them."""
    page = Section("how", "How did it get there?")
    by = run.result["model"]["chosen_by"]
    page.lead = f"{len(run.rounds)} trainings, each from afresh. Handed out: {run.chosen}, chosen by {by}."
    page.groups.append(Group([*_accuracy(run), *_scores(run), _distribution(run)]))
    losses = _losses(run)
    if losses:
        shades = zip(run.rounds, pictures.shades(run.rounds), strict=True)
        legend = [Swatch(leg, colour, strength) for leg, (colour, strength) in shades]
        page.groups.append(Group(losses, "small", "Training", legend))
    page.tables += [_legs(run), _distances(run)]
    return page


def _accuracy(run: Reading) -> list[Picture]:
    if "accuracy" not in run.result:
        return []
    legs = run.result["accuracy"]["legs"]
    images, classes = ([100 * legs[leg][mean] for leg in run.rounds] for mean in ("over_images", "over_classes"))
    said = ", ".join(f"{leg} {value:.1f}" for leg, value in zip(run.rounds, images, strict=True))
    said = f"Target accuracy over images in percent: {said}. Handed out: {run.chosen}."
    lines = [("over images", images, ACCENT, "-"), ("over classes", classes, MUTED, "--")]
    return [pictures.by_leg(run.rounds, lines, run.chosen, "percent right", "Accuracy by round", said)]


def _scores(run: Reading) -> list[Picture]:
    """The label-free score that chose, or would by default."""
    scores = run.result["label_free"].get("validators", {})
    known: dict[str, Any] = next(iter(scores.values()), {})
    choice = run.recipe.schedule.choice if run.recipe.schedule.choice in known else "nuclear_norm"
    values = [scores.get(leg, {}).get(choice) for leg in run.rounds]
    if all(value is None for value in values):
        return []
    name = SHORT.get(choice, choice.replace("_", " "))
    title = f"What chose: {name}" if run.recipe.schedule.choice == choice else f"A score without labels: {name}"
    said = ", ".join(f"{leg} {value:.4g}" for leg, value in zip(run.rounds, values, strict=True) if value is not None)
    lines = [(name, values, ACCENT, "-")]
    return [pictures.by_leg(run.rounds, lines, run.chosen, name, title, f"{title}, higher is better: {said}.")]


def _losses(run: Reading) -> list[Picture]:
    aside = ("leg", "step", "steps_per_second")
    found = []
    for name in dict.fromkeys(key for entry in run.log for key in entry if key not in aside):
        lines = []
        for leg in run.rounds:
            entries = [entry for entry in run.log if entry.get("leg") == leg and name in entry]
            entries = entries[:: max(1, -(-len(entries) // POINTS))]
            if entries:
                lines.append((leg, [entry["step"] for entry in entries], [entry[name] for entry in entries]))
        if lines:
            title = TITLES.get(name, name.replace("_", " ").capitalize())
            ends = ", ".join(f"{leg} from {y[0]:.3g} to {y[-1]:.3g}" for leg, _, y in lines)
            level = 0.5 if name == "domain_accuracy" else None
            note = "Dashed: it cannot tell the domains apart." if level else ""
            found.append(pictures.curves(lines, title, f"{title} over the steps: {ends}.", level, note))
    return found


def _distribution(run: Reading) -> Picture:
    found = run.result["label_distribution"]
    true, source, estimated = found.get("true_target"), found["source"], found["estimated_target"]
    handed, reference = estimated[run.chosen], true or source

    def gap(name: str) -> float:
        return abs(float(handed[name]) - float(reference[name]))

    widest = sorted(run.classes, key=gap, reverse=True)[:ROWS]
    names = [name for name in run.classes if name in widest]

    def shares(of: dict[str, float]) -> list[float]:
        return [100 * of[name] for name in names]

    lines = [("source", shares(source), SOURCE, 1.0, "o")]
    others = [leg for leg in run.rounds if leg not in (run.chosen, BASELINE)]
    lines += [("" if leg != others[0] else "other rounds", shares(estimated[leg]), ACCENT, 0.35, ".") for leg in others]
    if run.chosen != BASELINE and BASELINE in estimated:
        lines.append((BASELINE, shares(estimated[BASELINE]), SOURCE, 1.0, "x"))
    lines.append((run.chosen, shares(handed), ACCENT, 1.0, "o"))
    if true:
        lines.append(("true", shares(true), INK, 1.0, "|"))
    worst = widest[0]
    said = (
        f"Label distributions. The widest gap is at {worst}: {100 * handed[worst]:.1f} % predicted by {run.chosen}, "
        f"{100 * source[worst]:.1f} % of the source" + (f", {100 * true[worst]:.1f} % in truth." if true else ".")
    )
    note = f"The {ROWS} classes with the widest gaps, of {len(run.classes)}." if len(names) < len(run.classes) else ""
    return pictures.dots(names, lines, "Label distribution, source and as predicted of the target", said, note)


def _legs(run: Reading) -> PageTable:
    scores = run.result["label_free"].get("validators", {})
    accuracy = run.result.get("accuracy", {}).get("legs")
    header, columns = ["training"], []
    if accuracy:
        header += ["right, over images", "over classes"]
        columns = [
            shaded([percent(accuracy[leg][mean]) for leg in run.rounds]) for mean in ("over_images", "over_classes")
        ]
    for name in next(iter(scores.values()), {}):
        header.append(SHORT.get(name, name.replace("_", " ")))
        columns.append(shaded([number(scores.get(leg, {}).get(name)) for leg in run.rounds]))
    names = [Cell(leg + ", handed out" * (leg == run.chosen)) for leg in run.rounds]
    what = "Accuracy in percent, and scores without labels" if accuracy else "Scores without labels"
    caption = f"{what}; higher is better, shaded from a column's lowest to its highest"
    return PageTable(caption, tuple(header), tuple(zip(names, *columns, strict=True)))


def _distances(run: Reading) -> PageTable:
    apart = run.result["label_distribution"]["total_variation"]
    true = apart.get("estimated_to_true")
    rows = tuple(
        (Cell(leg), percent(apart["estimated_to_source"][leg]), *([percent(true[leg])] if true else []))
        for leg in run.rounds
    )
    note = f"The target's true distribution is {points(apart['source_to_true'])} from the source's." if true else ""
    header = ("training", "from the source's", *(["from the target's true one"] if true else []))
    caption = "How far the predicted label distribution lies from others (total variation, percent)"
    return PageTable(caption, header, rows, note)
