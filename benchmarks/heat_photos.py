"""How much of what a discriminator aligns lies on the object: real images before a plain background, end to end.

python benchmarks/heat_photos.py BENCH/runs/P2A.dann.42 BENCH/runs/P2A.biwaa.42 --images pacs:art_painting \
    --data-root DIR --out benchmarks/results/heat_photos.json --figure docs/images/explain_photos.png

Of all images of a domain it takes those whose background is plain by this rule: at least 90 % of the outermost pixels
are near white (each channel at least 240). The object is every pixel that is not joined to the border through
near-white ones.

For each run: the mean share of a map's heat (`inference/heat.py`) that lies on the object, without weighting and with
it, and the same of a round spot in the middle of the image, since that is where objects mostly are. The runs are of the
study `recipes`, trained with --keep-models; the figure has the first one beside the last one. It shows outlines of
objects and no image, as the images may not be passed on: `biwaa explain` draws the same maps over images.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy import ndimage

from biwaa.device import hardware
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.inference.heat import Heat, centre_views, heat_maps
from biwaa.models.saved import SavedModel, load_model
from biwaa.result import read_result
from biwaa.training.describe import versions

WHITE, BORDER = 240, 0.9
"""Least value of each channel of a near-white pixel, and least share of such pixels along the border."""


def object_mask(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """(H, W) where the object is in (H, W, 3) pixels; None where the background is not plain."""
    pale = pixels.min(axis=2) >= WHITE
    rim = np.ones_like(pale)
    rim[1:-1, 1:-1] = False
    if pale[rim].mean() < BORDER:
        return None
    areas, _ = ndimage.label(pale)
    found: NDArray[np.bool_] = ~np.isin(areas, np.setdiff1d(areas[rim], [0]))
    return found if found.any() else None


def middle(side: int) -> NDArray[np.float64]:
    """(H, W) a round spot in the middle, a quarter of the side wide (one standard deviation)."""
    away = (np.arange(side) - (side - 1) / 2) / (side / 4)
    spot = np.exp(-(away**2) / 2)
    return np.outer(spot, spot)


def mapped(model: SavedModel, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], Heat] | None:
    """Where the object is in the view that the model has of (H, W, 3) pixels, and the maps; None without a mask."""
    size = model.transform.resize
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(tensor, (size, size), mode="bilinear", antialias=True)
    views, inputs = centre_views(model.transform, resized.round().clamp(0, 255).to(torch.uint8))
    mask = object_mask(views[0].permute(1, 2, 0).numpy())
    return None if mask is None else (mask, heat_maps(model.network, inputs))


def on_object(heat: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Share of the heat that lies on the object, in percent."""
    return 100 * float((heat * mask).sum() / heat.sum())


def measured(run: Path, images: list[NDArray[np.uint8]]) -> dict[str, Any]:
    """Means over the images whose view has a mask."""
    model = load_model(run)
    shares: dict[str, list[float]] = {"area": [], "middle": [], "plain": [], "weighted": []}
    for found in (mapped(model, pixels) for pixels in images):
        if found:
            mask, heat = found
            shares["area"].append(100 * float(mask.mean()))
            shares["middle"].append(on_object(middle(len(mask)), mask))
            shares["plain"].append(on_object(heat.plain[0].numpy(), mask))
            shares["weighted"].append(on_object(heat.weighted[0].numpy(), mask))
    gain = [after - before for after, before in zip(shares["weighted"], shares["plain"], strict=True)]
    accuracy = read_result(run).accuracy
    return {
        "run": run.name,
        "images": len(gain),
        **{name: round(statistics.mean(values), 2) for name, values in shares.items()},
        "weighted_minus_plain": round(statistics.mean(gain), 2),
        "its_standard_error": round(statistics.stdev(gain) / len(gain) ** 0.5, 2),
        "target_accuracy": round(100 * accuracy.adapted.over_images, 2) if accuracy else None,
    }


def draw(beside: Path, run: Path, images: list[NDArray[np.uint8]], rows: int, out: Path) -> None:
    """Maps of images that seed 0 draws, with the outline of the object and how much of the heat lies on it."""
    models = {path: load_model(path) for path in (beside, run)}
    columns = ((beside, "plain"), (run, "plain"), (run, "weighted"))
    shown: list[list[tuple[NDArray[np.bool_], NDArray[Any]]]] = []
    for index in np.random.default_rng(0).permutation(len(images)):
        found = {path: mapped(model, images[index]) for path, model in models.items()}
        parts = [(one[0], getattr(one[1], seen)[0].numpy()) for path, seen in columns if (one := found[path])]
        if len(parts) == len(columns) and len(shown) < rows:
            shown.append(parts)
    figure = matplotlib.figure.Figure(figsize=(1.6 * len(shown), 1.85 * len(columns) + 0.2), layout="constrained")
    grid = figure.subplots(len(columns), len(shown), squeeze=False)
    for number, parts in enumerate(shown):
        for line, (mask, heat) in enumerate(parts):
            axes = grid[line, number]
            axes.imshow(heat, cmap="inferno", vmin=0, vmax=1)
            axes.contour(mask, levels=[0.5], colors="white", linewidths=0.8)
            axes.set_xlabel(f"{on_object(heat, mask):.0f} % on the object", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
    for line, (path, seen) in enumerate(columns):
        grid[line, 0].set_ylabel(f"{path.name.split('.')[1]}\n{seen} features", fontsize=8)
    figure.savefig(out, format="png", dpi=120)


def main(
    runs: tyro.conf.Positional[tuple[Path, ...]], images: str, data_root: Path, out: Path, figure: Path, rows: int = 5
) -> None:
    """Measure the runs on a domain (SPEC), and draw some rows of the first run beside the last."""
    domain = open_domain(images, data_root)
    every = [domain.images.read(row) for row in range(len(domain.images))]
    plain = [pixels for pixels in every if object_mask(pixels) is not None]
    found = [measured(run, plain) for run in runs]
    facts = {"images": images, "hardware": hardware("cpu"), "versions": versions(), "runs": found}
    write_text(out, json.dumps(facts, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    draw(runs[0], runs[-1], plain, rows, figure)


if __name__ == "__main__":
    tyro.cli(main)
