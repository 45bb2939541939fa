"""How often a target with all of the source's classes seems to have none of them, where images and classes are few.

    python benchmarks/few_images.py --data-root DATA --out benchmarks/results/few_images.json

Draws of some classes, and as many images of each in both domains, from closed tasks of the panel. The least numbers of
`judging/likeness.py` are set aside here, since they follow from this.
"""

import json
from collections import defaultdict
from pathlib import Path

import torch
import tyro
from other_classes import tasks
from sources import standardised
from torch import Tensor

from biwaa.files import write_text
from biwaa.judging import likeness as judging
from biwaa.judging.warnings import LIKENESS
from biwaa.solvers.metric import principal_axes
from biwaa.training.describe import versions

CLASSES, IMAGES, DRAWS = (3, 4, 5, 6, None), (30, 60, 100, 150, 250), 3


def drawn(
    rows: Tensor, labels: Tensor, some: list[int], images: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Standardised rows of some classes and their numbers among these, at most so many of each."""
    found = []
    for name in some:
        members = (labels == name).nonzero()[:, 0]
        found.append(members[torch.randperm(len(members), generator=generator)[:images]])
    every = torch.cat(found)
    numbers = torch.cat([torch.full_like(part, number) for number, part in enumerate(found)])
    return standardised(rows[every]), numbers


def main(out: Path, data_root: Path, data_sets: tuple[str, ...] = ("pacs", "office10", "satellite")) -> None:
    """Measure, write and print.

    Args:
        out: JSON file.
        data_root: where the panel's data lie.
        data_sets: of the panel.
    """
    torch.set_num_threads(1)
    judging.FEWEST = judging.FEWEST_A_CLASS = judging.FEWEST_CLASSES = judging.FEWEST_IN_ALL = 0
    found: dict[str, list[float]] = defaultdict(list)
    for _, task, rows in tasks(data_root, data_sets):
        for some in CLASSES:
            for images in IMAGES:
                for seed in range(DRAWS):
                    generator = torch.Generator().manual_seed(seed)
                    names = torch.randperm(rows.classes, generator=generator)[:some].tolist()
                    source, labels = drawn(rows.source, rows.labels, names, images, generator)
                    target, _ = drawn(rows.target, rows.truth, names, images, generator)
                    axes = principal_axes(source, source)
                    value = judging.likeness(source @ axes, labels, target @ axes)
                    if value is not None:
                        found[f"{some or 'all'} classes, {images} images"].append(round(value, 3))
        print(task, flush=True)
    below = {name: f"{sum(one < LIKENESS for one in values)} of {len(values)}" for name, values in found.items()}
    write_text(out, json.dumps({"below": below, "likeness": found, "versions": versions()}, indent=1) + "\n")
    print(json.dumps(below, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
