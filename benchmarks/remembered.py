"""A source without its images: adapted from its images, from statistics of them, and from its head alone.

python benchmarks/remembered.py --data-root DATA --out benchmarks/results/remembered.json

Every task of the panel's data sets: what the method `prototypes` finds on frozen features, by its student. No source
image is held out, and nothing is selected. With statistics, the readings of the estimate stand beside. Target labels
are used to count.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro
from lightning_fabric import Fabric
from sources import BACKBONE, Rows, features, right, standardised

from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.classes import match_classes
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.images.images import feature_width
from biwaa.judging.metrics import agreement, neighbour_agreement
from biwaa.models.backbone import build_backbone, features_backbone
from biwaa.models.weights import load_weights
from biwaa.solvers.logistic import Head, plain_head, source_head
from biwaa.solvers.prototypes import adapt_prototypes
from biwaa.solvers.remembered import Memory, Remembered, solve_remembered

DATA_SETS = ("pacs", "office10", "satellite", "office_home_clip", "grocery")


def pairs(data_set: str, data_root: Path) -> Iterator[tuple[str, Rows, Rows]]:
    """Every task of a data set: its name, the source, the target."""
    fabric, entry = Fabric(accelerator="cpu", devices=1), BENCHMARKS[data_set]
    backbone, kept = build_backbone(BACKBONE), dict[str, Rows]()
    load_weights(backbone, "auto", frozen=True)
    for task in entry.tasks:
        found = []
        for name in entry.task(task):
            if name not in kept:
                domain = match_classes(open_domain(f"{data_set}:{name}", data_root), entry.classes)
                width = feature_width(domain.images)
                kept[name] = features(domain, features_backbone(width) if width else backbone, fabric)
            found.append(kept[name])
        yield task, found[0], found[1]


def compared(source: Rows, target: Rows, classes: int) -> dict[str, float]:
    """Shares of the target that are right."""
    here, labels = standardised(source[0]), source[1]
    there, truth = standardised(target[0]), target[1]
    found = adapt_prototypes(here, labels, there, classes)
    plain = source_head(here, labels, classes)
    head = Head(plain.projection, plain.weight, plain.bias)
    statistics = Memory(Remembered.of(here, labels, classes), head)
    heads: dict[str, Head] = {
        "source-only": head,
        "with images": found.student(here, labels, there) if found else plain_head(here, labels, there, classes),
        "statistics": solve_remembered(statistics, there),
        "head alone": solve_remembered(Memory(None, head), there),
    }
    student = heads["statistics"]
    said = student.scores(there)
    rows = there if student.projection is None else there @ student.projection.T
    return {
        **{name: right(one, there, truth) for name, one in heads.items()},
        "agreement_with_source_only": agreement(head.scores(there), said),
        "agreement_of_neighbours": neighbour_agreement(rows, said.argmax(dim=1)),
    }


def main(data_root: Path, out: Path, data_sets: tuple[str, ...] = DATA_SETS) -> None:
    """Measure and write the file."""
    found: dict[str, Any] = {}
    for data_set in data_sets:
        for task, source, target in pairs(data_set, data_root):
            found[f"{data_set}:{task}"] = compared(source, target, len(BENCHMARKS[data_set].classes))
            print(f"{data_set}:{task}", found[f"{data_set}:{task}"], flush=True)
    write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
