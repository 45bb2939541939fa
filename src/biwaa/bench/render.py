"""Tables as Markdown, LaTeX and CSV, and all of a bench's files at once."""

import json
from pathlib import Path

import msgspec

from biwaa.bench.figure import draw
from biwaa.bench.grid import Bench, Work
from biwaa.bench.rows import VALIDATOR, Row, Runs, read_runs
from biwaa.bench.tables import Table, tables
from biwaa.files import csv_line, write_text
from biwaa.methods import METHODS
from biwaa.recipe import Recipe
from biwaa.result import Result


def markdown(bench: Bench, found: list[Table], works: list[Work], results: dict[str, Result]) -> str:
    """The whole page."""
    lines = [f"# {bench.entry.title}: {bench.study}", "", *protocol(bench), ""]
    if measured := machines(results):
        lines += [f"Measured with: {'; or '.join(measured)}.", ""]
    if len(results) < len(works):
        lines += [f"{len(results)} of {len(works)} runs are finished.", ""]
    for table in found:
        lines += table_lines(table)
    failed = {work.name: why for work in works if work.name not in results and (why := work.failure())}
    if failed:
        here = f"{works[0].folder.absolute()}/"
        lines += ["## Failed runs", "", *(f"- {name}: {why.replace(here, '')}" for name, why in failed.items()), ""]
    return "\n".join(lines)


def table_lines(table: Table) -> list[str]:
    """A table with its title, as lines of Markdown."""
    rule = "|" + " --- |" * len(table.header)
    rows = ["| " + " | ".join(row) + " |" for row in (table.header, *table.rows)]
    return [f"## {table.title}", "", rows[0], rule, *rows[1:], ""]


def machines(results: dict[str, Result]) -> list[str]:
    """Every kind of machine and set of versions that runs were measured with."""
    found = dict.fromkeys(
        ", ".join(f"{key} {value}" for key, value in {**result.hardware, **result.versions}.items())
        for result in results.values()
    )
    return list(found)


def protocol(bench: Bench) -> list[str]:
    """How the figures were made, in sentences; empty lines part paragraphs."""
    recipe = bench.recipe
    special = "; ".join(
        f"{task}: {', '.join(f'{key} {value}' for key, value in changed.items())}"
        for task, changed in bench.task_settings.items()
    )
    seeds = ", ".join(map(str, bench.seeds))
    lines = [
        f"{backbone_text(recipe, bench.entry.features)}; {recipe.schedule.steps} steps a round, "
        f"{recipe.data.batch_size} images a domain and step.{_own_ways(bench, recipe)} Percent, mean ± standard "
        f"deviation over seeds {seeds}. All target images, whose labels were not used in training; held-out images "
        "where the benchmark has a test split.",
        "",
        "The label-free choice takes, of a run's rounds and source-only, the highest "
        f"{VALIDATOR.replace('_', ' ')}; the oracle takes the best by target labels. Published rows are as their "
        "sources have them, each with its protocol.",
    ]
    lines += ["", f"Settings of single tasks: {special}."] if special else []
    return lines + [text for note in bench.notes for text in ("", f"**{note}.**")]


STATISTICS = {
    "domain": "the features of each domain standardised by its own mean and deviation",
    "source": "the features of both domains standardised by the source's mean and deviation",
    "coral": "the features of each domain standardised by its own mean and deviation, the source's then given the "
    "target's covariance (CORAL)",
}  # What frozen features are standardised by
BATCH_NORM = {
    "shared": "BatchNorm's running averages over both domains' batches",
    "target": "BatchNorm's running averages over the target's batches alone",
}


def backbone_text(recipe: Recipe, features: bool = False) -> str:
    """Which backbone, how it is trained, and by what features or batches are normalised."""
    network = recipe.network
    if features:
        return f"Features computed elsewhere, no backbone, {STATISTICS[network.statistics]}"
    if network.freeze_backbone:
        return f"Backbone {network.backbone}, frozen, {STATISTICS[network.statistics]}"
    return f"Backbone {network.backbone}, trained end to end, {BATCH_NORM[network.batch_norm]}"


def _own_ways(bench: Bench, recipe: Recipe) -> str:
    """Which methods freeze the backbone or standardise its features whatever the settings say."""
    found = []
    for variant in bench.variants:
        method = METHODS.find(variant.settings.get("method", recipe.method))
        if method and method.frozen and not recipe.network.freeze_backbone:
            statistics = STATISTICS[method.statistics or recipe.network.statistics]
            found.append(f" {variant.title}: backbone frozen, {statistics}.")
        elif method and method.statistics and method.statistics != recipe.network.statistics:
            found.append(f" {variant.title}: {STATISTICS[method.statistics]}.")
    return "".join(found)


def latex(found: list[Table]) -> str:
    """Every table as a tabular with booktabs' rules."""
    escapes = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", ">": "$>$"}

    def cell(text: str) -> str:
        return "".join(escapes.get(letter, letter) for letter in text)

    parts = []
    for table in found:
        lines = [
            f"% {table.title}",
            r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}", r"\toprule",
            " & ".join(map(cell, table.header)) + r" \\", r"\midrule",
            *(" & ".join(map(cell, row)) + r" \\" for row in table.rows),
            r"\bottomrule", r"\end{tabular}",
        ]  # fmt: skip
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def long_csv(bench: Bench, rows: list[Row]) -> str:
    """A line for each run and figure, in percent, with what it cost."""
    header = "benchmark study task variant seed figure over_images over_classes picked steps images seconds"
    lines: list[tuple[object, ...]] = [tuple(header.split())]
    for row in rows:
        figures: list[tuple[str, str, str, str]] = [
            (figure, f"{found.over_images:.4f}", f"{found.over_classes:.4f}", row.picked if figure == "chosen" else "")
            for figure, found in row.accuracy.items()
        ]
        figures += [(f"round {number}", f"{value:.4f}", "", "") for number, value in enumerate(row.by_round)]
        of, cost = (bench.benchmark, bench.study, row.task, row.variant, row.seed), row.cost
        lines += [(*of, *cells, cost.steps, cost.images, cost.seconds) for cells in figures]
    return "".join(csv_line(*map(str, line)) for line in lines)


def write_tables(bench: Bench, folder: Path, runs: Runs | None = None) -> str:
    """Write table.md, table.csv, table.tex, table.json and, with two runs or more, table.png; the Markdown text.

    Args:
        bench: what is compared.
        folder: of the bench.
        runs: those of the folder, if they were read already.
    """
    works, results, rows = runs or read_runs(bench, folder)
    found = tables(bench, rows) if rows else []
    text = markdown(bench, found, works, results)
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", long_csv(bench, rows))
    write_text(folder / "table.tex", latex(found))
    facts = {"measured_with": machines(results)}
    write_text(folder / "table.json", json.dumps(facts | {"rows": msgspec.to_builtins(rows)}, indent=1) + "\n")
    if rows:
        draw(bench, rows, folder / "table.png")
    return text
