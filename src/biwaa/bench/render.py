"""Tables as Markdown, LaTeX and CSV, and all of a bench's files at once."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from biwaa.bench.figure import draw
from biwaa.bench.grid import Bench, Work
from biwaa.bench.rows import VALIDATOR, Row, collect, finished
from biwaa.bench.tables import Table, tables
from biwaa.files import write_text


def markdown(bench: Bench, found: list[Table], works: list[Work], results: dict[str, dict[str, Any]]) -> str:
    """The whole page."""
    lines = [f"# {bench.entry.title}: {bench.study}", "", *protocol(bench), ""]
    if measured := machines(results):
        lines += [f"Measured with: {'; or '.join(measured)}.", ""]
    if len(results) < len(works):
        lines += [f"{len(results)} of {len(works)} runs are finished.", ""]
    for table in found:
        lines += [f"## {table.title}", ""]
        lines += ["| " + " | ".join(table.header) + " |", "|" + " --- |" * len(table.header)]
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        lines.append("")
    failed = {work.name: why for work in works if work.name not in results and (why := work.failure())}
    if failed:
        here = f"{works[0].folder.absolute()}/"
        lines += ["## Failed runs", "", *(f"- {name}: {why.replace(here, '')}" for name, why in failed.items()), ""]
    return "\n".join(lines)


def machines(results: dict[str, dict[str, Any]]) -> list[str]:
    """Every kind of machine and set of versions that runs were measured with."""
    found = dict.fromkeys(
        ", ".join(f"{key} {value}" for key, value in {**result["hardware"], **result["versions"]}.items())
        for result in results.values()
    )
    return list(found)


def protocol(bench: Bench) -> list[str]:
    """How the figures were made, in sentences; empty lines part paragraphs."""
    settings = bench.settings
    how = "trained end to end"
    if settings["freeze_backbone"]:
        whose = "its own" if settings["statistics"] == "domain" else "the source's"
        how = f"frozen, the features of each domain standardised by {whose} statistics"
    special = "; ".join(
        f"{task}: {', '.join(f'{key} {value}' for key, value in changed.items())}"
        for task, changed in bench.task_settings.items()
    )
    lines = [
        f"Backbone {settings['backbone']}, {how}; {settings['steps']} steps a round, {settings['batch_size']} images a "
        f"domain and step. Percent, mean ± standard deviation over seeds {', '.join(map(str, bench.seeds))}. All "
        "target images, which were trained on without labels; held-out images where the benchmark has a test split.",
        "",
        f"The label-free choice takes, of a run's rounds and source-only, the highest "
        f"{VALIDATOR.replace('_', ' ')}; the oracle takes the best by target labels. Published rows are as their "
        "sources have them, each with its protocol.",
    ]
    lines += ["", f"Settings of single tasks: {special}."] if special else []
    return lines + [text for note in bench.notes for text in ("", f"**{note}.**")]


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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["benchmark", "study", "task", "variant", "seed", "figure", "over_images", "over_classes", "picked",
         "steps", "images", "seconds"]
    )  # fmt: skip
    for row in rows:
        figures = dict(row.accuracy)
        figures |= {f"round {n}": {"over_images": value} for n, value in enumerate(row.by_round)}
        for figure, means in figures.items():
            writer.writerow(
                [bench.benchmark, bench.study, row.task, row.variant, row.seed, figure, f"{means['over_images']:.4f}",
                 f"{means['over_classes']:.4f}" if "over_classes" in means else "",
                 row.picked if figure == "chosen" else "",
                 row.cost["steps"], row.cost["images"], row.cost["seconds"]]
            )  # fmt: skip
    return text.getvalue()


def write_tables(bench: Bench, folder: Path) -> str:
    """Write table.md, table.csv, table.tex, table.json and, with two runs or more, table.png; the Markdown text."""
    works = bench.works(folder, Path())
    results = finished(works)
    rows = collect(bench, results)
    found = tables(bench, rows) if rows else []
    text = markdown(bench, found, works, results)
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", long_csv(bench, rows))
    write_text(folder / "table.tex", latex(found))
    facts = {"measured_with": machines(results)}
    write_text(folder / "table.json", json.dumps(facts | {"rows": [vars(row) for row in rows]}, indent=1) + "\n")
    if rows:
        draw(bench, rows, folder / "table.png")
    return text
