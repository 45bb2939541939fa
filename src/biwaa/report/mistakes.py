"""Where it fails: by class, confusions, mistakes; without labels, what to label next."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from biwaa.functional import with_temperature
from biwaa.judging.metrics import accuracy_by_class
from biwaa.report import pictures
from biwaa.report.cells import Cell, PageTable, count, percent
from biwaa.report.read import Reading, TargetImages
from biwaa.report.section import Group, Section
from biwaa.report.sentences import in_percent
from biwaa.report.thumbnails import thumbnail
from biwaa.result import REFERENCES

GALLERY = 24  # Images shown
MANY = 14  # Classes above which the confusion matrix is a picture and not a table
TALL = 20  # Rows above which a table scrolls by itself
PAIRS = 15  # Confusions listed

Counts = NDArray[np.int64]


def mistakes(run: Reading, images: TargetImages) -> Section:
    """With labels the mistakes, without them the least certain images."""
    page = Section("mistakes", "Where does it fail?")
    found = run.predictions
    rows = _without_labels(page, run) if run.truth is None else _with_labels(page, run, run.truth)
    for row in rows.tolist():
        predicted = f"{run.classes[found.labels[row]]}, {100 * found.confidence[row]:.0f} %"
        detail = "" if run.truth is None else f"is {run.classes[run.truth[row]]}"
        page.gallery.append(thumbnail(images, found.names[row], predicted, detail))
    missing = sum(bool(one.missing) for one in page.gallery)
    if missing:
        page.notes.append(
            f"{missing} of these {len(page.gallery)} images cannot be shown: they were moved, changed or removed since "
            "the run. For a catalogued benchmark, name its folder with --data-root."
        )
    return page


def _without_labels(page: Section, run: Reading) -> NDArray[np.int64]:
    """Fill the page; the rows to show."""
    selected = run.evidence.get(run.selected)
    margin = run.predictions.confidence
    if selected:
        top = selected.probabilities.double().topk(2, dim=1).values.numpy()
        margin = top[:, 0] - top[:, 1]
    page.lead = "Without labels its mistakes cannot be shown."
    if run.result.accuracy:
        page.lead = "The run kept no labels of single images: the same `biwaa train` command with --resume keeps them."
    page.lead += " These are the images that the model is least certain of, taken from each predicted class in turn."
    page.gallery_title = "The least certain images"
    page.tables.append(_predicted(run))
    return least_certain(run.predictions.labels, margin, GALLERY)


def _with_labels(page: Section, run: Reading, truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fill the page; the rows to show."""
    predicted = run.predictions.labels
    counts = confusion(predicted, truth, len(run.classes))
    wrong = int(counts.sum() - np.trace(counts))
    page.lead = _worst(run, counts, wrong)
    if missing := int((truth < 0).sum()):
        page.notes.append(f"{missing} of {len(truth)} target images have no label and are passed over.")
    page.tables.append(_by_class(run, counts, truth))
    if len(run.classes) <= MANY:
        page.tables.append(_matrix(run, counts))
    else:
        page.groups.append(Group([_picture(run, counts)]))
    pairs = [
        (Cell(run.classes[true]), Cell(run.classes[other]), count(many), percent(many / counts[true].sum()))
        for true, other, many in confused(counts, PAIRS)
    ]
    if pairs:
        header = ("true class", "mistaken for", "images", "percent of the class")
        page.tables.append(PageTable("Most frequent confusions", header, tuple(pairs)))
    # The four digits of predictions.csv would leave ties to the order of files.
    selected, temperature = run.evidence.get(run.selected), run.result.calibration.temperature
    exact = None if selected is None else with_temperature(selected.probabilities.double(), temperature)
    sure = run.predictions.confidence if exact is None else exact.amax(dim=1).numpy()
    rows = surest_mistakes(predicted, truth, sure, GALLERY)
    page.gallery_title = f"The most confident mistakes, {len(rows)} of {wrong}"
    return rows


def _worst(run: Reading, counts: Counts, wrong: int) -> str:
    if not wrong:
        return "Nowhere: every target image with a label is classified right."
    shares = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    present = np.flatnonzero(counts.sum(axis=1))
    worst = int(present[np.argmin(shares[present])])
    true, other, many = confused(counts, 1)[0]
    return (
        f"{wrong} images are wrong. The worst class is {run.classes[worst]}, {in_percent(shares[worst])} of it right; "
        f"the most frequent confusion is {run.classes[true]} mistaken for {run.classes[other]}, {many} times."
    )


def _by_class(run: Reading, counts: Counts, truth: NDArray[np.int64]) -> PageTable:
    classes = len(run.classes)
    mine = accuracy_by_class(run.predictions.labels, truth, classes)
    # Beside the model: source-only, and the teacher; what it gains is over the first of them.
    beside = {
        name: accuracy_by_class(run.evidence[name].probabilities.argmax(dim=1).numpy(), truth, classes)
        for name in REFERENCES
        if name in run.evidence
    }
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for k in np.argsort(np.where(np.isnan(mine), 2, mine), kind="stable").tolist():
        most = int(wrong[k].argmax())
        row = [Cell(run.classes[k]), count(int(counts[k].sum())), percent(mine[k])]
        row += [percent(one[k]) for one in beside.values()]
        row += [percent(mine[k] - one[k], sign=True) for one in list(beside.values())[:1]]
        rows.append((*row, Cell(f"{run.classes[most]} ({wrong[k, most]})" if wrong[k, most] else "")))
    compared = (*(f"{name}, %" for name in beside), *("gain",) * bool(beside))
    header = ("class", "images", "right, %", *compared, "most often mistaken for")
    return PageTable("Accuracy by class, worst first", header, tuple(rows), tall=len(rows) > TALL)


def _matrix(run: Reading, counts: Counts) -> PageTable:
    rows = tuple(
        (Cell(name), *(count(int(many), shade=float(many / max(counts[k].sum(), 1))) for many in counts[k]))
        for k, name in enumerate(run.classes)
    )
    caption = "Confusion matrix: images of a true class (row) by predicted class (column)"
    return PageTable(caption, ("true class", *run.classes), rows, sortable=False, dense=True)


def _picture(run: Reading, counts: Counts) -> pictures.Picture:
    return pictures.heat(
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), "Confusion matrix",
        f"Confusion matrix of {len(run.classes)} classes: shares of a true class's images by predicted class. The most "
        "frequent confusions stand in the table.",
        "A row is a true class, a column a predicted one, in the order of the classes; opacity is the share's root.",
    )  # fmt: skip


def _predicted(run: Reading) -> PageTable:
    labels, confidence = run.predictions.labels, run.predictions.confidence
    counts = np.bincount(labels, minlength=len(run.classes))
    source = run.result.label_shares.source
    rows = []
    for k, name in enumerate(run.classes):
        mean = float(confidence[labels == k].mean()) if counts[k] else None
        share = percent(float(counts[k] / len(labels)))
        of_source = [percent(source[name])] if source else []
        rows.append((Cell(name), count(int(counts[k])), share, *of_source, percent(mean)))
    header = ("class", "images", "share, %", *("share of the source, %",) * bool(source), "mean confidence, %")
    return PageTable("What is predicted", header, tuple(rows), tall=len(rows) > TALL)


def confusion(predicted: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(K, K) images by true class (rows) and predicted class; those without a label are passed over."""
    known = truth >= 0
    return np.bincount(truth[known] * classes + predicted[known], minlength=classes**2).reshape(classes, classes)


def confused(counts: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """True class, predicted class and how many images, of the most frequent confusions."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [(true, other, int(wrong[true, other])) for true, other in pairs if wrong[true, other]]


def surest_mistakes(
    predicted: NDArray[np.int64], truth: NDArray[np.int64], confidence: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """(M,) rows of wrong images, the most confident first."""
    wrong = np.flatnonzero((predicted != truth) & (truth >= 0))
    found: NDArray[np.int64] = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    return found


def least_certain(predicted: NDArray[np.int64], certainty: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """(M,) rows of the least certain images, the predicted classes in turn, the least certain class first."""

    def turns() -> Iterator[int]:
        order = np.argsort(certainty, kind="stable")
        queues: dict[int, list[int]] = {}
        for row in order.tolist():
            queues.setdefault(int(predicted[row]), []).append(row)
        for turn in range(len(predicted)):
            yield from (rows[turn] for rows in queues.values() if turn < len(rows))

    return np.fromiter((row for row, _ in zip(turns(), range(most), strict=False)), dtype=np.int64)
