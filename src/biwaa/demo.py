"""`biwaa demo`: from clean handwritten digits to digits on photographs, offline, on data that scikit-learn carries.

- source: one half of scikit-learn's handwritten digits, white on black
- target: the other half, each blended into a patch of scikit-learn's two photographs by MNIST-M's recipe, the
  absolute difference of patch and digit (Ganin et al. 2016, section 5.2.4); training never sees their classes
- source-only and adapted are trained alike and shown side by side, with a picture of both predictions
"""

from pathlib import Path

import matplotlib.figure
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F2

from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.files import replacing
from biwaa.recipe import load_recipe, recipe_from
from biwaa.training.folder import load_tensors
from biwaa.training.rounds import BASELINE
from biwaa.training.run import Run, adapt

SIZE = 24
"""Pixels a side of an image."""
DIGIT = 18
"""Pixels a side of the digit in it, which comes as 8 x 8; like MNIST's it keeps a margin."""
CONTRAST = 3.0
"""Strokes blurred by the enlargement become as sharp as MNIST's."""


def draw_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's digits as (N, SIZE, SIZE) from 0 to 255, and their (N,) classes."""
    digits = load_digits()
    small = torch.from_numpy(digits.images.astype(np.float32) / 16)[:, None]
    large = F2.resize(small, [DIGIT, DIGIT], interpolation=InterpolationMode.BICUBIC, antialias=True)
    large = ((large - 0.5) * CONTRAST + 0.5).clip(0, 1) * 255
    return F2.pad(large, [(SIZE - DIGIT) // 2])[:, 0].numpy(), digits.target.astype(np.int64)


def make_data(path: Path, seed: int) -> None:
    """Write source_x, source_y, target_x and target_y, two halves of the digits that share no digit.

    Args:
        path: the .npz file to write; source_x is (N, SIZE, SIZE), target_x is (M, SIZE, SIZE, 3).
        seed: of the halves and the patches.
    """
    rng = np.random.default_rng(seed)
    digits, classes = draw_digits()
    order = rng.permutation(len(digits))
    ours, theirs = order[: len(order) // 2], order[len(order) // 2 :]
    photographs = load_sample_images().images
    blended = []
    for index in theirs:
        photograph = photographs[rng.integers(len(photographs))]
        top, left = (rng.integers(side - SIZE + 1) for side in photograph.shape[:2])
        patch = photograph[top : top + SIZE, left : left + SIZE].astype(np.float32)
        blended.append(np.abs(patch - digits[index][..., None]))
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            source_x=digits[ours].round().astype(np.uint8),
            source_y=classes[ours],
            target_x=np.stack(blended).round().astype(np.uint8),
            target_y=classes[theirs],
        )


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
    source, target = open_domain(f"{data}:source"), open_domain(f"{data}:target")
    recipe = recipe_from({**vars(load_recipe("demo")), "seed": seed}, "demo")
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
