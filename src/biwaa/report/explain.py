"""`biwaa explain`: images with maps of what a discriminator aligns in them, without weighting and with it."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from biwaa.checks import not_below
from biwaa.device import open_fabric
from biwaa.domains.listing import PassedOver
from biwaa.domains.stream import image_sets
from biwaa.errors import BiwaaError
from biwaa.files import replacing
from biwaa.images.augment import as_tensor
from biwaa.images.store import decode_batches
from biwaa.inference.heat import Heat, centre_views, heat_maps
from biwaa.models.backbone import FEATURES
from biwaa.models.saved import SavedModel, load_model
from biwaa.progress import say
from biwaa.report.pictures import short


@dataclass(frozen=True, eq=False)
class Explained:
    """What one model sees in the images and predicts of them."""

    views: NDArray[np.uint8]  # (B, H, W, 3), what it sees of them
    heat: Heat
    predicted: list[str]  # (B) predicted classes


def explain_paths(
    run: Path, paths: tuple[str, ...], out: Path, beside: Path | None, rows: int, seed: int, device: str
) -> tuple[int, int]:
    """Draw the figure.

    Args:
        run: the run whose weighted features are mapped.
        paths: images, folders, list files or FILE.npz:NAME.
        out: the PNG to write.
        beside: another run, such as one by DANN, whose plain features are drawn too.
        rows: images at most.
        seed: by which that many are drawn.
        device: auto, cpu, cuda or mps.

    Returns:
        How many images are shown, and how many there were.

    Raises:
        BiwaaError: no model, no image that can be read, or a backbone without places.
    """
    not_below(1, rows=rows)
    not_below(0, seed=seed)
    if not paths:
        raise BiwaaError("name at least one image or folder to explain.")
    models = {path: load_model(path) for path in (beside, run) if path}
    if featured := [path for path, model in models.items() if model.backbone == FEATURES]:
        raise BiwaaError(f"{featured[0]} was trained on features: there is no image to explain.")
    passed = PassedOver()
    every = [(images, row) for images in image_sets(paths, passed) for row in range(len(images))]
    if passed.counts:
        say(f"passed over: {passed}")
    drawn = range(len(every))
    if len(every) > rows:
        drawn = sorted(np.random.default_rng(seed).permutation(len(every))[:rows].tolist())  # type: ignore[assignment]
    found: dict[Path, list[Explained]] = {path: [] for path in models}
    names: list[str] = []
    for images, row in (every[index] for index in drawn):
        one = images.select(np.array([row]))
        for path, model in models.items():
            (pixels, bad), *_ = decode_batches(one, model.transform.resize, 1)
            if bad:
                say(f"unreadable: {one.names[0]} ({bad[0]})")
                break
            found[path].append(_explain(model, pixels, device))
        else:
            names.append(one.names[0])
    if not names:
        raise BiwaaError("none of these images can be read.")
    _draw(run, beside, found, names, out)
    return len(names), len(every)


def _explain(model: SavedModel, pixels: NDArray[np.uint8], device: str) -> Explained:
    fabric = open_fabric(device)
    views, inputs = centre_views(model.transform, as_tensor(pixels, fabric.device))
    heat = Heat(*(part.cpu() for part in heat_maps(model.network.to(fabric.device), inputs)))
    predicted = [model.classes[label] for label in heat.predicted.tolist()]
    return Explained(views.permute(0, 2, 3, 1).cpu().numpy(), heat, predicted)


def _draw(run: Path, beside: Path | None, found: dict[Path, list[Explained]], names: list[str], out: Path) -> None:
    columns: list[tuple[str, Path, str]] = [
        *([(f"{short(beside.name)}\nplain features", beside, "plain")] if beside else []),
        (f"{short(run.name)}\nplain features", run, "plain"),
        (f"{short(run.name)}\nweighted features", run, "weighted"),
    ]
    size = (1.5 * (len(columns) + 1), 1.72 * len(names) + 0.5)
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 8}):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(names), len(columns) + 1, squeeze=False)
        for line, (name, axes) in enumerate(zip(names, grid, strict=True)):
            axes[0].imshow(found[run][line].views[0])
            axes[0].set_xlabel(short(Path(name).name, 24), color="0.4", fontsize=7)
            for place, (_, path, seen) in zip(axes[1:], columns, strict=True):
                one = found[path][line]
                grey = one.views[0].mean(axis=2)
                place.imshow(grey, cmap="gray", vmin=0, vmax=255)
                place.imshow(getattr(one.heat, seen)[0].numpy(), cmap="inferno", vmin=0, vmax=1, alpha=0.6)
                place.set_xlabel(short(one.predicted[0], 24))
        for place, title in zip(grid[0], ["image", *(title for title, _, _ in columns)], strict=True):
            place.set_title(title, fontsize=8)
        for place in grid.flat:
            place.set_xticks([])
            place.set_yticks([])
            place.spines[:].set_visible(False)
        with replacing(out) as draft, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks is drawn as boxes
            figure.savefig(draft, format="png", dpi=150)
