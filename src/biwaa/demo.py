"""`biwaa demo`: from clean handwritten digits to digits on photographs, offline, on data that scikit-learn carries.

- source: clean digits; target: other digits on photographs (`domains/bundled.py`), whose classes training never sees
- source-only and adapted are trained alike and shown side by side, with a picture of both predictions
"""

from pathlib import Path

import matplotlib.figure
import numpy as np

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
    source, target = open_domain(f"{data}:plain"), open_domain(f"{data}:photographs")
    recipe = recipe_from({**NAMED["demo"], "seed": seed}, "demo")
    run = adapt(source, target, recipe, out / "run", overwrite=True)
    draw_samples(run, target, recipe.rounds, out / "samples.png")
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
    before, after = (
        load_tensors(run.folder.leg(leg))[0]["probabilities"].argmax(dim=1).tolist()
        for leg in (BASELINE, f"round {rounds - 1}")
    )
    legs = run.result["accuracy"]["legs"]
    score = {leg: f"{100 * legs[leg]['over_images']:.0f} %" for leg in legs}
    figure = matplotlib.figure.Figure(figsize=(columns * 0.95, rows * 1.35 + 0.5), layout="constrained")
    figure.suptitle(
        f"digits on photographs, labels from clean digits alone: source-only {score[BASELINE]} right, "
        f"adapted {score[f'round {rounds - 1}']}",
        fontsize=11,
    )
    labels = target.labels if target.labels is not None else np.full(len(target.images), -1)
    for index, axes in enumerate(figure.subplots(rows, columns).flat):
        axes.imshow(target.images.read(index))
        axes.axis("off")
        for place, (name, said) in enumerate((("source-only", before[index]), ("adapted", after[index]))):
            colour = "tab:green" if said == labels[index] else "tab:red"
            axes.text(0.5, -0.08 - 0.2 * place, f"{name}: {said}", color=colour, fontsize=7.5,
                      ha="center", va="top", transform=axes.transAxes)  # fmt: skip
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=150, bbox_inches="tight")
