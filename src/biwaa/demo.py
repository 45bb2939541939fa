"""`biwaa demo`: from clean handwritten digits to digits on photographs, offline, on data that scikit-learn carries.

- source: clean digits; target: other digits on photographs (`domains/bundled.py`), whose classes training never sees
- source-only and adapted are trained alike and shown side by side, with a picture of both predictions
"""

from pathlib import Path

import matplotlib.figure
import numpy as np

from biwaa.api import Run, adapt
from biwaa.domains.bundled import make_data
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.files import replacing
from biwaa.recipe import load_recipe
from biwaa.result import SOURCE_ONLY
from biwaa.tensors import load_tensors
from biwaa.training.folder import RunFolder


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
    source, target = open_domain(f"{data}:plain"), open_domain(f"{data}:photographs")
    recipe = load_recipe("demo").replace(seed=seed)
    run = adapt(source, target, out=out / "run", recipe=recipe, overwrite=True)
    draw_samples(run, target, recipe.schedule.rounds, out / "samples.png")
    return run


def draw_samples(run: Run, target: Domain, rounds: int, path: Path, columns: int = 10, rows: int = 3) -> None:
    """A picture of the first target images with what source-only and the adapted model say of them.

    Args:
        run: finished.
        target: its target, with labels.
        rounds: how many the run had.
        path: the PNG to write.
        columns: images a row.
        rows: rows of images.
    """
    last = f"round {rounds - 1}"
    before, after = (
        load_tensors(RunFolder(run.folder).stage(stage))[0]["probabilities"].argmax(dim=1).tolist()
        for stage in (SOURCE_ONLY, last)
    )
    score = {stage.name: f"{100 * stage.accuracy.over_images:.0f} %" for stage in run.result.stages if stage.accuracy}
    figure = matplotlib.figure.Figure(figsize=(columns * 0.95, rows * 1.35 + 0.5), layout="constrained")
    figure.suptitle(
        f"digits on photographs, labels from clean digits alone: source-only {score[SOURCE_ONLY]} right, "
        f"adapted {score[last]}",
        fontsize=11,
    )
    labels = target.labels if target.labels is not None else np.full(len(target.images), -1)
    for index, axes in enumerate(figure.subplots(rows, columns).flat):
        axes.imshow(target.images.read(index))
        axes.axis("off")
        for place, (name, predicted) in enumerate((("source-only", before[index]), ("adapted", after[index]))):
            colour = "tab:green" if predicted == labels[index] else "tab:red"
            axes.text(0.5, -0.08 - 0.2 * place, f"{name}: {predicted}", color=colour, fontsize=7.5,
                      ha="center", va="top", transform=axes.transAxes)  # fmt: skip
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=150, bbox_inches="tight")
