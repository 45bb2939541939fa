"""Several sources: as such, in one folder, and each alone.

python benchmarks/sources.py --data-root DATA --unseen NEW --out benchmarks/results/sources.json

PACS, Office-Home, and the letters and emoji of `unseen_data.py` with three sources, Office's ten classes with two: what
the method `prototypes` finds on frozen features. No source image is held out, and nothing is selected. Target labels
are used to count.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from unseen_data import KINDS, VENDORS

from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.domains.union import union
from biwaa.files import write_text
from biwaa.images.augment import Transform
from biwaa.images.images import feature_width
from biwaa.methods.method import Task
from biwaa.methods.prototypes import Prototypes, PrototypesSettings
from biwaa.models.backbone import Backbone, build_backbone, features_backbone
from biwaa.models.features import store_features
from biwaa.models.network import Standardise
from biwaa.models.weights import load_weights
from biwaa.settings import ScheduleSettings
from biwaa.solvers.logistic import Head, source_head

DOMAINS = {
    "pacs": ("art_painting", "cartoon", "photo", "sketch"),
    "office10": ("amazon", "dslr", "webcam"),
    "office_home_clip": ("art", "clipart", "product", "real_world"),
    "letters": KINDS,
    "emoji_kinds": VENDORS,
    "emoji_groups": VENDORS,
}
SPLIT = {"emoji_kinds": ("_even", "_odd")}
"""Ends of the folders of sources and of targets."""
BACKBONE = "tf_efficientnet_lite0"
Rows = tuple[Tensor, Tensor]
"""Features and labels of a place."""


def opened(data_set: str, data_root: Path, unseen: Path | None) -> dict[str, Domain]:
    """Its domains, with one order of classes."""
    names = [name + end for name in DOMAINS[data_set] for end in dict.fromkeys(SPLIT.get(data_set, ("",)))]
    new = data_set in ("letters", "emoji_kinds", "emoji_groups")
    specs = {name: f"{unseen}/{data_set}/{name}" if new else f"{data_set}:{name}" for name in names}
    found = {name: open_domain(spec, data_root) for name, spec in specs.items()}
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


def together(sources: Sequence[Rows], target: Rows, classes: int) -> dict[str, Any]:
    """All sources, each with statistics of its own."""
    rows, there = torch.cat([standardised(part) for part, _ in sources]), standardised(target[0])
    labels = torch.cat([part for _, part in sources])
    origins = torch.cat([torch.full((len(part),), number) for number, (part, _) in enumerate(sources)])
    method = solver(classes, there, origins)
    accuracy = right(method.solve(rows, labels, there), there, target[1])
    assert method.standing  # there are several
    facts = {name: [round(one, 4) for one in part.tolist()] for name, part in method.standing._asdict().items()}
    return {"accuracy": accuracy, **facts, "contradicts": method.standing.contradicts.tolist()}


def solver(classes: int, target: Tensor, origins: Tensor | None = None) -> Prototypes:
    """The default on frozen features, with all classes."""
    task = Task(target.shape[1], classes, len(target), 1, origins=origins)
    return Prototypes(task, ScheduleSettings(), PrototypesSettings(absent_classes="off"))


def as_one(sources: Sequence[Rows], target: Rows, classes: int) -> float:
    """One source, or several in one folder."""
    rows, labels = torch.cat([part for part, _ in sources]), torch.cat([part for _, part in sources])
    there = standardised(target[0])
    return right(solver(classes, there).solve(standardised(rows), labels, there), there, target[1])


def source_only(sources: Sequence[Rows], target: Rows, classes: int) -> float:
    """Logistic regression of all rows, each source standardised by itself."""
    rows, labels = torch.cat([standardised(part) for part, _ in sources]), torch.cat([part for _, part in sources])
    return right(source_head(rows, labels, classes), standardised(target[0]), target[1])


def places(data_set: str, data_root: Path, unseen: Path | None) -> Iterator[tuple[str, list[str], Rows, list[Rows]]]:
    """Each target of a data set, and the names and rows of its sources."""
    fabric = Fabric(accelerator="cpu", devices=1)
    domains = opened(data_set, data_root, unseen)
    width = feature_width(next(iter(domains.values())).images)
    backbone = features_backbone(width) if width else build_backbone(BACKBONE)
    if not width:
        load_weights(backbone, "auto", frozen=True)
    rows = {name: features(domain, backbone, fabric) for name, domain in domains.items()}
    of_source, of_target = SPLIT.get(data_set, ("", ""))
    for target in DOMAINS[data_set]:
        names = [name for name in DOMAINS[data_set] if name != target]
        yield target, names, rows[f"{target}{of_target}"], [rows[f"{name}{of_source}"] for name in names]


def measured(target: Rows, sources: list[Rows], wrong: bool) -> dict[str, Any]:
    """One target."""
    classes, count = int(max(labels.max() for _, labels in sources)) + 1, len(sources)
    some = [(one[labels % count != place], labels[labels % count != place])
            for place, (one, labels) in enumerate(sources)]  # fmt: skip
    found: dict[str, Any] = {
        "several": together(sources, target, classes),
        "alone": [as_one([source], target, classes) for source in sources],
        "pooled": as_one(sources, target, classes),
        "source-only": source_only(sources, target, classes),
        "each lacks classes": {
            "several": together(some, target, classes), "pooled": as_one(some, target, classes)
        },
    }  # fmt: skip
    for place in range(count) if wrong else ():
        exchanged = list(sources)
        exchanged[place] = (sources[place][0], (sources[place][1] + 1) % classes)
        found.setdefault("classes of one exchanged", []).append(together(exchanged, target, classes))
    return found


def main() -> None:
    """Measure and write the file; what is in it already is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--unseen", type=Path, help="as of unseen_data.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-sets", nargs="*", default=list(DOMAINS))
    parser.add_argument("--wrong", action="store_true", help="also with the classes of one source exchanged")
    arguments = parser.parse_args()
    found: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for data_set in arguments.data_sets:
        for name, names, target, sources in places(data_set, arguments.data_root, arguments.unseen):
            if f"{data_set}:{name}" not in found:
                figures = {"sources": names, **measured(target, sources, arguments.wrong)}
                found[f"{data_set}:{name}"] = figures
                print(f"{data_set}:{name}", figures, flush=True)
                write_text(arguments.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
