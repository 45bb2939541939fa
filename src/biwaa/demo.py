"""`biwaa demo`: from clean handwritten digits to digits on photographs, offline, on data that scikit-learn carries.

- source: clean digits; target: other digits painted on photographs (`domains/bundled.py`), whose classes training
  never sees
- source-only and adapted are trained with the same settings and shown side by side, with a picture of both predictions
"""

from pathlib import Path

import matplotlib.axes
import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from biwaa.api import Run, adapt
from biwaa.domains.bundled import make_data
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.files import replacing
from biwaa.recipe import load_recipe
from biwaa.result import SOURCE_ONLY
from biwaa.training.folder import RunFolder
from biwaa.training.stage import load_stage

COLUMNS, ROWS = 10, 3  # Images a row of the picture, and rows of target images


def run_demo(out: Path, seed: int) -> Run:
    """Make the data, adapt, and draw samples with both predictions; an earlier demo in `out` is replaced.

    Args:
        out: folder for digits.npz, the run folder `run` and samples.png.
        seed: of data and training.
    """
    recipe = load_recipe("demo").replace(seed=seed)
    data = out / "digits.npz"
    others = {path.name for path in out.iterdir()} - {data.name, "run", "samples.png"} if out.is_dir() else set()
    if others:
        raise BiwaaError(f"{out} holds other things ({sorted(others)[0]}): name an empty folder.")
    make_data(data, seed)
    source, target = open_domain(f"{data}:plain"), open_domain(f"{data}:painted")
    run = adapt(source, target, out=out / "run", recipe=recipe, overwrite=True)
    draw_samples(run, source, target, out / "samples.png")
    return run


def draw_samples(run: Run, source: Domain, target: Domain, path: Path) -> None:
    """A picture: some source images with their labels, and target images with what both models predict.

    Args:
        run: finished.
        source: its source.
        target: its target, with labels.
        path: the PNG to write.
    """
    before, after = (
        load_stage(RunFolder(run.folder), name).probabilities.argmax(dim=1).tolist()
        for name in (SOURCE_ONLY, run.result.model.stage)
    )
    score = {stage.name: f"{100 * stage.accuracy.over_images:.0f} %" for stage in run.result.stages if stage.accuracy}
    figure = matplotlib.figure.Figure(figsize=(COLUMNS * 0.95, ROWS * 1.35 + 2), layout="constrained")
    figure.suptitle(
        f"digits on photographs, labels from clean digits alone: source-only {score[SOURCE_ONLY]} right, "
        f"adapted {score[run.result.model.stage]}",
        fontsize=11,
    )
    assert source.labels is not None  # make_data writes both
    assert target.labels is not None
    grid = figure.subplots(ROWS + 1, COLUMNS)
    for index, axes in enumerate(grid[0]):
        _show(axes, source.images.read(index), [(f"label: {source.labels[index]}", "black")])
    for index, axes in enumerate(grid[1:].flat):
        predicted = {"source-only": before[index], "adapted": after[index]}
        right = target.labels[index]
        _show(
            axes,
            target.images.read(index),
            [(f"{name}: {digit}", "tab:green" if digit == right else "tab:red") for name, digit in predicted.items()],
        )
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=150, bbox_inches="tight")


def _show(axes: matplotlib.axes.Axes, pixels: NDArray[np.uint8], lines: list[tuple[str, str]]) -> None:
    """An image and coloured lines of text below it."""
    axes.imshow(pixels, cmap="gray")
    axes.axis("off")
    for place, (text, colour) in enumerate(lines):
        axes.text(0.5, -0.08 - 0.2 * place, text, color=colour, fontsize=7.5, ha="center", va="top",
                  transform=axes.transAxes)  # fmt: skip
