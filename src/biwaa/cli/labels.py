"""`biwaa suggest`: which target images to label."""

from pathlib import Path

from tyro.conf import Positional

from biwaa.cli.metavars import RunFolder


def suggest(
    run: Positional[RunFolder],
    count: int = 50,
    out: Path | None = None,
    measure: bool = False,
    data_root: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Choose target images that are worth a label.

    A page beside the table shows them and saves your labels. The command that trains on them is printed.

    Example: biwaa suggest run --count 50 --out to_label.csv

    Args:
        run: a run folder.
        count: how many images.
        out: the table to write, .csv; the page is .html. Unset: to_label.csv, or to_measure.csv with --measure.
        measure: draw them at random, to measure with biwaa evaluate.
        data_root: folder of benchmarks; unset: $BIWAA_DATA or ./data.
        overwrite: replace the files if they are there.
    """
    from biwaa.report.label_page import write_suggestions

    out = out or Path("to_measure.csv" if measure else "to_label.csv")
    print(write_suggestions(run, count, out, measure, overwrite, data_root))
