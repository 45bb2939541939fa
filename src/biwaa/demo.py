"""`biwaa demo`: from clean handwritten digits to digits on photographs, offline, on data that scikit-learn carries.

- source: clean digits; target: other digits painted on photographs (`domains/bundled.py`), whose classes training
  never sees
- source-only and adapted are trained alike and shown side by side, with a picture of both predictions
"""

from pathlib import Path

import matplotlib.axes
import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from biwaa.domains.bundled import make_data
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.files import replacing
from biwaa.recipe import NAMED, recipe_from
from biwaa.tensors import load_tensors
from biwaa.training.rounds import BASELINE
from biwaa.training.run import Run, adapt


def run_demo(out: Path, seed: int) -> Run:
    """Make the data, adapt, and draw samples with both predictions; an earlier demo in `out` is replaced.

    Args:
        out: folder for digits.npz, the run folder `run` and samples.png.
        seed: of data and training.
    """
    data = out / "digits.npz"
    strangers = {path.name for path in out.iterdir()} - {data.name, "run", "samples.png"} if out.is_dir() else set()
    if strangers:
        raise BiwaaError(f"{out} holds other things ({sorted(strangers)[0]}): name a folder of the demo's own.")
    make_data(data, seed)
    source, target = open_domain(f"{data}:plain"), open_domain(f"{data}:painted")
    recipe = recipe_from({**NAMED["demo"], "seed": seed}, "demo")
    run = adapt(source, target, recipe, out / "run", overwrite=True)
    draw_samples(run, source, target, out / "samples.png")
    return run


def draw_samples(run: Run, source: Domain, target: Domain, path: Path, columns: int = 10, rows: int = 3) -> None:
    """A picture: some source images with their labels, and target images with what both models say of them.

    Args:
        run: finished, of one round.
        source: its source.
        target: its target, with labels.
        path: the PNG to write.
        columns: images a row.
        rows: rows of target images.
    """
    before, after = (
        load_tensors(run.folder.leg(leg))[0]["probabilities"].argmax(dim=1).tolist() for leg in (BASELINE, "round 0")
    )
    legs = run.result["accuracy"]["legs"]
    score = {leg: f"{100 * legs[leg]['over_images']:.0f} %" for leg in legs}
    figure = matplotlib.figure.Figure(figsize=(columns * 0.95, rows * 1.35 + 2), layout="constrained")
    figure.suptitle(
        f"digits on photographs, labels from clean digits alone: source-only {score[BASELINE]} right, "
        f"adapted {score['round 0']}",
        fontsize=11,
    )
    assert source.labels is not None  # make_data writes both
    assert target.labels is not None
    grid = figure.subplots(rows + 1, columns)
    for index, axes in enumerate(grid[0]):
        _show(axes, source.images.read(index), [(f"label: {source.labels[index]}", "black")])
    for index, axes in enumerate(grid[1:].flat):
        said = {"source-only": before[index], "adapted": after[index]}
        right = target.labels[index]
        _show(
            axes,
            target.images.read(index),
            [(f"{name}: {digit}", "tab:green" if digit == right else "tab:red") for name, digit in said.items()],
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
