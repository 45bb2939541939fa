"""How much of what a discriminator aligns lies on the object: digits on photographs, whose strokes are known.

    python benchmarks/heat.py

writes benchmarks/results/heat.json. For each method and seed: the mean over the first images of the target of the share
of a map's heat (`inference/heat.py`) that lies on the digit's strokes, and the strokes' share of the image's area.
"""

import json
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from biwaa.device import hardware
from biwaa.domains.bundled import draw_digits, make_data
from biwaa.domains.spec import open_domain
from biwaa.inference.heat import centre_views, heat_maps
from biwaa.models.saved import load_model
from biwaa.recipe import recipe_from
from biwaa.training.describe import versions
from biwaa.training.prepare import Pair
from biwaa.training.run import Options, train_run

RESULTS = Path(__file__).parent / "results" / "heat.json"
SETTINGS: dict[str, Any] = {
    "backbone": "cnn", "weights": "none", "crops": 1, "learning_rate": 0.01, "head_factor": 1.0, "augment": "none",
    "image_size": 24, "resize": 24, "bottleneck": 128, "discriminator": 256, "adversarial_horizon": 300.0, "rounds": 2,
    "steps": 300,
}  # fmt: skip
"""A short training of the demo's small CNN; the rest are the paper's settings."""
VARIANTS: dict[str, dict[str, Any]] = {
    "source-only": {"method": "source_only", "rounds": 1},
    "DANN": {"method": "dann"},
    "weighting alone": {"alignment": 0.0, "separation": 0.0},
    "BIWAA": {},
}
"""What each changes of them."""
STROKE = 127
"""Grey value from 0 to 255 from which a pixel of the drawn digit is stroke."""


def strokes(seed: int, labels: np.ndarray[Any, Any]) -> torch.Tensor:
    """(N, H, W) where the digit is, in the target that `make_data` draws with `seed`; its labels prove the order."""
    digits, classes = draw_digits()
    order = np.random.default_rng(seed).permutation(len(digits))
    theirs = order[len(order) // 2 :]
    assert (classes[theirs] == labels).all()
    return torch.from_numpy(digits[theirs] > STROKE).float()


def main(work: Path = Path("runs/heat"), seeds: tuple[int, ...] = (42, 43, 44), images: int = 300) -> None:
    """Train what is not trained yet, and measure.

    Args:
        work: folder for data and runs.
        seeds: of data and training.
        images: the first of the target, whose order its seed draws.
    """
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        data = work / f"digits_{seed}.npz"
        make_data(data, seed)
        source, target = open_domain(f"{data}:plain"), open_domain(f"{data}:photographs")
        assert target.labels is not None  # make_data writes them
        on = strokes(seed, target.labels)[:images]
        read = [target.images.read(row).transpose(2, 0, 1) for row in range(images)]
        for name, settings in VARIANTS.items():
            recipe = recipe_from({**SETTINGS, "seed": seed, **settings}, name)
            run = work / f"{name.replace(' ', '_')}_{seed}"
            result = train_run(Pair(source, target), recipe, run, Options(resume=True)).result
            assert result is not None  # one process
            assert result.accuracy is not None  # its target has labels
            model = load_model(run)
            _, inputs = centre_views(model.transform, torch.from_numpy(np.stack(read)))
            row = {"variant": name, "seed": seed, "area": round(float(on.mean()), 4)}
            row["accuracy"] = result.accuracy.adapted.over_images
            for of in ("length", "sum"):
                heat = heat_maps(model.network, inputs, of)
                for seen in ("plain", "weighted"):
                    maps = getattr(heat, seen)
                    total = maps.sum(dim=(1, 2))
                    share = ((maps * on).sum(dim=(1, 2)) / total)[total > 0]
                    row[f"{of}, {seen}"] = round(float(share.mean()), 4)
                    row[f"{of}, {seen}, empty maps"] = int((total == 0).sum())
            rows.append(row)
            print(row, flush=True)
    figures = [f"{of}, {seen}" for of in ("length", "sum") for seen in ("plain", "weighted")]
    means = {
        name: {
            figure: {
                "mean": round(statistics.mean(values), 4),
                "deviation": round(statistics.stdev(values), 4) if len(values) > 1 else None,
            }
            for figure in (*figures, "area", "accuracy")
            if (values := [row[figure] for row in rows if row["variant"] == name])
        }
        for name in VARIANTS
    }
    facts = {
        "protocol": f"share of a map's heat on the digit's strokes, mean over the first {images} target images, then "
        f"over seeds {', '.join(map(str, seeds))}; the demo's small CNN (maps of 6 x 6 places, enlarged). "
        "length: |v|^2 / 2 of the vector a discriminator sees; sum: the sum of v, whose sign is arbitrary; area: the "
        "strokes' share of the image. Labels gave the order of the images and the accuracy, nothing else",
        "hardware": hardware("cuda" if torch.cuda.is_available() else "cpu") | {"cores": os.cpu_count()},
        "versions": versions(),
        "means": means,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
