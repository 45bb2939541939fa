"""Predictions as a table: CSV, JSON lines or Parquet by the file's suffix, written batch by batch.

- columns: path, label, confidence; if requested label_2, confidence_2, .. of the next classes; unknown, the probability
  of no known class, if the model has such a class; and error, the reason why an image could not be read
- confidences have four digits
- paths are written unchanged. A spreadsheet may read one that starts with =, +, - or @ as a formula: import that
  column as text
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from biwaa.domains.labels import UNKNOWN
from biwaa.errors import BiwaaError
from biwaa.files import csv_line, replacing

Row = tuple[str | float | None, ...]
Write = Callable[[Sequence[Row]], None]

ROW_GROUP = 8192  # Rows of a Parquet row group; so many are in memory until they are written


def columns(classes: Sequence[str], top: int) -> list[str]:
    """Names of the columns for the `top` likeliest of K classes."""
    more = [name for rank in range(2, top + 1) for name in (f"label_{rank}", f"confidence_{rank}")]
    return ["path", "label", "confidence", *more, *_scored(classes), "error"]


def _scored(classes: Sequence[str]) -> list[str]:
    """The class of images of no known class, if there is one."""
    return [UNKNOWN] if classes[-1] == UNKNOWN else []


def rows(
    names: Sequence[str], probabilities: Tensor, bad: dict[int, str], classes: tuple[str, ...], top: int
) -> list[Row]:
    """A row for each image of a batch.

    Args:
        names: of B images.
        probabilities: (B, K).
        bad: number in the batch -> why the image could not be read.
        classes: K names.
        top: how many of the likeliest classes.
    """
    confidences, labels = probabilities.topk(top, dim=1)
    scores = probabilities[:, len(classes) - len(_scored(classes)) :]
    found: list[Row] = []
    for row, name in enumerate(names):
        if row in bad:
            found.append((name, *(None,) * (2 * top + scores.shape[1]), bad[row]))
            continue
        pairs = zip(labels[row].tolist(), confidences[row].tolist(), strict=True)
        cells = (cell for k, p in pairs for cell in (classes[k], round(p, 4)))
        found.append((name, *cells, *(round(p, 4) for p in scores[row].tolist()), None))
    return found


@contextmanager
def writing(out: Path, classes: Sequence[str], top: int) -> Iterator[Write]:
    """Open a table; the complete file appears once the block has ended without an error.

    Args:
        out: the file; what is not a regular file, such as a pipe, gets CSV.
        classes: K names.
        top: how many of the likeliest classes.

    Raises:
        BiwaaError: another suffix, or a missing library.
    """
    regular = not out.exists() or out.is_file()
    kind = out.suffix.lower() if regular else ".csv"
    if kind not in WRITERS:
        raise BiwaaError(
            f"{out}: predictions are written as {', '.join(WRITERS)}; end the file's name in one of these."
        )
    with replacing(out) as draft, WRITERS[kind](draft, columns(classes, top)) as write:
        yield write


def _text(draft: Path) -> TextIO:
    # Bytes of a name that are not UTF-8 are written unchanged.
    return draft.open("w", newline="\n", encoding="utf-8", errors="surrogateescape")


@contextmanager
def _csv(draft: Path, names: list[str]) -> Iterator[Write]:
    with _text(draft) as file:
        file.write(csv_line(*names))
        file.flush()

        def write(batch: Sequence[Row]) -> None:
            file.writelines(csv_line(*map(_cell, row)) for row in batch)
            file.flush()

        yield write


def _cell(cell: str | float | None) -> str:
    return f"{cell:.4f}" if isinstance(cell, float) else cell or ""


@contextmanager
def _json_lines(draft: Path, names: list[str]) -> Iterator[Write]:
    with _text(draft) as file:

        def write(batch: Sequence[Row]) -> None:
            file.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in batch)
            file.flush()

        yield write


@contextmanager
def _parquet(draft: Path, names: list[str]) -> Iterator[Write]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BiwaaError("Parquet needs the library pyarrow: pip install 'biwaa[parquet]', or write .csv.") from None
    shares = [name.startswith("confidence") or name == UNKNOWN for name in names]
    kinds = [pyarrow.float32() if share else pyarrow.string() for share in shares]
    schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
    waiting: list[Row] = []

    def flush(writer: Any, least: int) -> None:
        while len(waiting) >= least and waiting:
            group, waiting[:] = waiting[:ROW_GROUP], waiting[ROW_GROUP:]
            arrays = [
                pyarrow.array([_utf8(cell) for cell in column], kind)
                for column, kind in zip(zip(*group, strict=True), kinds, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

    with pyarrow.parquet.ParquetWriter(draft, schema) as writer:

        def write(batch: Sequence[Row]) -> None:
            waiting.extend(batch)
            flush(writer, ROW_GROUP)

        yield write
        flush(writer, 1)


def _utf8(cell: str | float | None) -> str | float | None:
    """Parquet's text is UTF-8: other bytes of a name are written as escapes."""
    if not isinstance(cell, str):
        return cell
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


WRITERS = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
