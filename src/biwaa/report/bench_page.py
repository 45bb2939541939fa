"""The page of a bench: every task and method with source-only, the bench's tables, sortable."""

import statistics
from pathlib import Path

from biwaa.bench.figure import gains_figure
from biwaa.bench.grid import Bench, load_bench
from biwaa.bench.render import machines, protocol
from biwaa.bench.rows import FIGURES, Figure, Row, accuracy_of, gains, read_runs
from biwaa.bench.tables import Table, tables
from biwaa.report import pictures, section
from biwaa.report.cells import Cell, PageTable, count, number, percent
from biwaa.report.page import render
from biwaa.report.section import Group, Section

_OTHERS: tuple[Figure, ...] = ("chosen", "oracle", "held_out")  # Accuracies next to the last round's


def bench_page(folder: Path) -> str:
    """The HTML of a bench's page, of what is finished by now.

    Raises:
        BiwaaError: the folder holds no bench.
    """
    bench = load_bench(folder)
    works, results, rows = read_runs(bench, folder)
    failed = [f"{work.name}: {why}" for work in works if work.name not in results and (why := work.failure())]
    sections = [_worked(bench, rows, len(works), failed)]
    if rows:
        every = [_sortable(table) for table in tables(bench, rows)]
        sections.append(Section("tables", "By task, choice, round and cost", tables=every))
    sections.append(_repeat(bench, machines(results)))
    meta = f"{bench.study}: {len(bench.tasks)} tasks, {len(bench.variants)} methods, {len(bench.seeds)} seeds."
    return render(f"{bench.entry.title}, {bench.study}: biwaa", (bench.entry.title,), meta, sections)


def _worked(bench: Bench, rows: list[Row], planned: int, failed: list[str]) -> Section:
    page = Section(
        "worked", "What is each method worth?", warnings=[f"A run failed. {text}" for text in failed] or None
    )
    page.lead = f"{len(rows)} of {planned} runs are finished."
    titles = {variant.name: variant.title for variant in bench.variants}
    found = {name: statistics.mean(of.values()) for name, of in gains(bench, rows).items()}
    if found:
        best = max(found, key=lambda name: found[name])
        worst = min((gain, titles[name], task) for name, of in gains(bench, rows).items() for task, gain in of.items())
        page.lead += f" {titles[best]} gains most over source-only, on average over the tasks."
        page.figures = [
            section.Figure(
                f"{found[best]:+.1f}", f"points over source-only, {titles[best]}", "mean over the tasks, last round"
            ),
            section.Figure(f"{worst[0]:+.1f}", "points, the worst of all", f"{worst[1]} on {worst[2]}"),
        ]
        means = ", ".join(f"{titles[name]} {gain:+.1f}" for name, gain in sorted(found.items(), key=lambda it: -it[1]))
        with pictures.figure(8, 0.7 + 0.26 * len(found)) as drawn:
            gains_figure(bench, rows, drawn)
            shown = pictures.picture(
                drawn,
                "Points of target accuracy over source-only, a dot a task, a bar the mean",
                f"Mean gains: {means}.",
            )
        page.groups.append(Group([shown], "whole"))
    page.tables.append(_every(bench, rows, titles))
    return page


def _every(bench: Bench, rows: list[Row], titles: dict[str, str]) -> PageTable:
    """A row a task and method, means over the seeds that are there."""
    last = accuracy_of("last")
    value = {(row.task, row.variant, row.seed): last(row) for row in rows}
    lines = []
    for task in bench.tasks:
        for variant in bench.variants:
            mine = [row for row in rows if (row.task, row.variant) == (task, variant.name)]
            if not mine:
                continue
            pairs = [(last(row), value.get((task, variant.source_only, row.seed))) for row in mine]
            gain = [here - base for here, base in pairs if here is not None and base is not None]
            base = _mean([base for _, base in pairs])
            lines.append(
                (
                    Cell(task), Cell(titles[variant.name]), _mean([here for here, _ in pairs]), base,
                    Cell("-") if variant.name == variant.source_only or not gain
                    else percent(statistics.mean(gain) / 100, sign=True),
                    *(_mean([accuracy_of(figure)(row) for row in mine]) for figure in _OTHERS),
                    number(statistics.mean(row.cost.seconds for row in mine), digits=1),
                    count(len(mine)),
                )
            )  # fmt: skip
    others = [FIGURES[figure] for figure in _OTHERS]
    header = ("task", "method", FIGURES["last"], "source-only", "gain", *others, "seconds", "seeds")
    caption = "Every task and method: target accuracy over images in percent, mean over seeds"
    note = "The oracle chooses by target labels, which are not available in practice."
    kept = [k for k, name in enumerate(header) if name != FIGURES["held_out"] or any(line[k].value for line in lines)]
    cells = tuple(tuple(line[k] for k in kept) for line in lines)
    return PageTable(caption, tuple(header[k] for k in kept), cells, note, tall=len(cells) > 40)


def _mean(values: list[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    return percent(statistics.mean(known) / 100) if known else Cell("-")


def _sortable(table: Table) -> PageTable:
    """Cells of text, sorted by the number that they start with."""
    cells = tuple((Cell(row[0]), *(_cell(text) for text in row[1:])) for row in table.rows)
    return PageTable(table.title, (table.header[0] or "method", *table.header[1:]), cells, tall=len(cells) > 40)


def _cell(text: str) -> Cell:
    try:
        return Cell(text, float(text.split(" ")[0]))
    except ValueError:  # a dash, or nothing
        return Cell(text)


def _repeat(bench: Bench, measured: list[str]) -> Section:
    page = Section("repeat", "How do I repeat it?")
    settings = "\n".join(f"{name}: {value}" for name, value in bench.settings.items())
    suite = f"{bench.benchmark}/{bench.study}"
    words = f"biwaa bench {suite} --out again --tasks {' '.join(bench.tasks)} --seeds {' '.join(map(str, bench.seeds))}"
    words += f" --methods {' '.join(variant.name for variant in bench.variants)}"
    page.code = [("Command", f"{words} --recipe settings.yaml"), ("Settings, as settings.yaml", settings)]
    page.notes = [text for text in protocol(bench) if text]
    page.notes += [f"Measured with: {text}." for text in measured]
    return page
