"""Several sources: all of them with a weight each, pooled as one domain, and each alone.

python benchmarks/sources.py --data-root DATA --out benchmarks/results/sources.json

PACS and Office-Home with three sources, Office's ten classes with two: what the method `prototypes` finds on frozen
features, by its student. No source image is held out, and nothing is selected. Target labels are used to count.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.domains.union import union
from biwaa.files import write_text
from biwaa.images.augment import Transform
from biwaa.images.images import feature_width
from biwaa.models.backbone import Backbone, build_backbone, features_backbone
from biwaa.models.features import store_features
from biwaa.models.network import Standardise
from biwaa.models.weights import load_weights
from biwaa.solvers.logistic import Head, source_head
from biwaa.solvers.prototypes import adapt_prototypes
from biwaa.solvers.several import adapt_several

DOMAINS = {
    "pacs": ("art_painting", "cartoon", "photo", "sketch"),
    "office10": ("amazon", "dslr", "webcam"),
    "office_home_clip": ("art", "clipart", "product", "real_world"),
}
BACKBONE = "tf_efficientnet_lite0"
Rows = tuple[Tensor, Tensor]
"""Features and labels of a place."""


def opened(data_set: str, data_root: Path) -> dict[str, Domain]:
    """Its domains, with one order of classes."""
    found = {name: open_domain(f"{data_set}:{name}", data_root) for name in DOMAINS[data_set]}
    classes = union(list(found.values())).classes or ()
    return {name: match_classes(domain, classes) for name, domain in found.items()}


def features(domain: Domain, backbone: Backbone, fabric: Fabric) -> Rows:
    """Of a domain's images, as a run computes and keeps them."""
    size = backbone.image_size
    transform = Transform(round(size * 8 / 7), size, backbone.mean, backbone.std, 1)
    rows = store_features(domain.images, domain.spec, backbone, transform, fabric).rows
    assert domain.labels is not None  # every benchmark has them
    return torch.from_numpy(np.array(rows)), torch.from_numpy(domain.labels)


def standardised(rows: Tensor) -> Tensor:
    """By its own statistics."""
    found: Tensor = Standardise.of(rows)(rows)
    return found


def right(head: Head, target: Tensor, labels: Tensor) -> float:
    """Share of the target that a head has right."""
    said = head.scores(target).argmax(dim=1)
    return round(float((said == labels).float().mean()), 6)


def weighed(sources: Sequence[Rows], target: Rows, classes: int) -> dict[str, Any]:
    """All sources, each with statistics and a weight of its own."""
    rows, there = torch.cat([standardised(part) for part, _ in sources]), standardised(target[0])
    labels = torch.cat([part for _, part in sources])
    origins = torch.cat([torch.full((len(part),), number) for number, (part, _) in enumerate(sources)])
    found = adapt_several(rows, labels, there, classes, origins)
    if found is None:
        return {"accuracy": None}
    facts = {name: [round(one, 4) for one in part.tolist()] for name, part in found.standing._asdict().items()}
    accuracy = right(found.head, there, target[1])
    return {"accuracy": accuracy, **facts, "contradicts": found.standing.contradicts.tolist()}


def as_one(sources: Sequence[Rows], target: Rows, classes: int) -> float | None:
    """One source, or several pooled."""
    rows, labels = torch.cat([part for part, _ in sources]), torch.cat([part for _, part in sources])
    there = standardised(target[0])
    here = standardised(rows)
    found = adapt_prototypes(here, labels, there, classes)
    return None if found is None else right(found.student(here, labels, there), there, target[1])


def source_only(sources: Sequence[Rows], target: Rows, classes: int) -> float:
    """Logistic regression of all rows, each source standardised by itself."""
    rows, labels = torch.cat([standardised(part) for part, _ in sources]), torch.cat([part for _, part in sources])
    return right(source_head(rows, labels, classes), standardised(target[0]), target[1])


def measure(data_root: Path, data_set: str, wrong: bool) -> dict[str, Any]:
    """Every target of a data set."""
    fabric = Fabric(accelerator="cpu", devices=1)
    domains = opened(data_set, data_root)
    width = feature_width(next(iter(domains.values())).images)
    backbone = features_backbone(width) if width else build_backbone(BACKBONE)
    if not width:
        load_weights(backbone, "auto", frozen=True)
    rows = {name: features(domain, backbone, fabric) for name, domain in domains.items()}
    classes = len(next(iter(domains.values())).classes or ())
    found: dict[str, Any] = {}
    for target, there in rows.items():
        names = [name for name in rows if name != target]
        sources = [rows[name] for name in names]
        kept = [(one, labels % len(names) != place) for place, (one, labels) in enumerate(sources)]
        some = [(one[rest], labels[rest]) for (one, rest), (_, labels) in zip(kept, sources, strict=True)]
        figures: dict[str, Any] = {"sources": names, "weighed": weighed(sources, there, classes)}
        figures["alone"] = [as_one([source], there, classes) for source in sources]
        figures["pooled"] = as_one(sources, there, classes)
        figures["source-only"] = source_only(sources, there, classes)
        figures["each lacks classes"] = {
            "weighed": weighed(some, there, classes), "pooled": as_one(some, there, classes)
        }  # fmt: skip
        for place in range(len(names)) if wrong else ():
            exchanged = list(sources)
            exchanged[place] = (sources[place][0], (sources[place][1] + 1) % classes)
            figures.setdefault("classes of one exchanged", []).append(weighed(exchanged, there, classes))
        found[f"{data_set}:{target}"] = figures
        print(f"{data_set}:{target}", figures, flush=True)
    return found


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-sets", nargs="*", default=list(DOMAINS))
    parser.add_argument("--wrong", action="store_true", help="also with the classes of one source exchanged")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for data_set in arguments.data_sets:
        found |= measure(arguments.data_root, data_set, arguments.wrong)
    write_text(arguments.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
