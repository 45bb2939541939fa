"""What `biwaa report` does, and what every run does at its end."""

from pathlib import Path

from biwaa.errors import BiwaaError, one_line
from biwaa.files import write_text
from biwaa.predictions import Predictions
from biwaa.progress import say


def write_report(
    path: Path, out: Path | None = None, data_root: Path | None = None, predictions: Predictions | None = None
) -> Path:
    """Write the page of a run's or a bench's folder.

    Args:
        path: the folder.
        out: the HTML file; None for report.html in the folder.
        data_root: where catalogued benchmarks lie, for images that are rows of their archives.
        predictions: of a run that has just ended; None to read predictions.csv.

    Returns:
        The file.

    Raises:
        BiwaaError: the folder holds no finished round of a run and no bench.
    """
    if not path.is_dir():
        raise BiwaaError(f"no folder {path}: name the folder of a run or of a bench.")
    file = out or path / "report.html"
    if (path / "bench.json").exists():
        from biwaa.report.bench_page import bench_page

        write_text(file, bench_page(path))
    else:
        from biwaa.report.run_page import run_page

        write_text(file, run_page(path, data_root, predictions))
    return file


def report_on(path: Path, data_root: Path | None = None, predictions: Predictions | None = None) -> None:
    """Write a finished run's page; whatever goes wrong is a line on standard error, and the run stays a success."""
    try:
        say(f"the report is {write_report(path, data_root=data_root, predictions=predictions)}")
    except Exception as error:  # a page is not worth a finished run
        say(f"warning: no report could be written ({one_line(error)}); `biwaa report {path}` tries again")
