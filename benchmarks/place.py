"""Does a run tell images of another place from new images of its target, and can it serve its source?

    python benchmarks/place.py --data-root DATA

writes benchmarks/results/place.json. Each pair of domains of a benchmark is adapted with a frozen backbone and the
default method, to half of the target (or to `few` images of it) from 70 % of the source. New images are the other half,
the other 30 % of the source, and the benchmark's further domains. Target labels are used here to judge, nowhere else.
"""

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import biwaa
from biwaa.device import hardware, open_fabric
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.images.augment import Transform
from biwaa.images.images import FeatureRows
from biwaa.inference.classifier import stream_predictions
from biwaa.models.backbone import build_backbone
from biwaa.models.features import store_features
from biwaa.models.place import Look
from biwaa.models.saved import SavedModel, load_model
from biwaa.models.weights import load_weights
from biwaa.training.describe import versions

RESULTS = Path(__file__).parent / "results" / "place.json"
SIZES = (1, 4, 16, 64, 10**9)
"""New images at a time; the last takes all."""


def features(spec: str, root: Path) -> Domain:
    """A catalogued domain's features by a frozen EfficientNet-Lite0, or as it has them."""
    domain = open_domain(spec, root)
    if isinstance(domain.images, FeatureRows):
        return domain
    backbone = build_backbone("tf_efficientnet_lite0", None)
    load_weights(backbone, "auto")
    transform = Transform(256, 224, backbone.mean, backbone.std, 1)
    found = store_features(domain.images, spec, backbone, transform, open_fabric("cpu"))
    return Domain(spec, FeatureRows.of(np.array(found.rows), spec), domain.classes, domain.labels)


def judge(model: SavedModel, domain: Domain) -> tuple[bool | None, float]:
    """Whether the images look like another place's, and the accuracy."""
    look = Look(model.place)
    parts = [batch for batch, _ in stream_predictions(model, domain.images, "cpu", 4096, look)]
    right = torch.cat(parts).argmax(dim=1).numpy() == domain.labels
    return look.unlike, float(right.mean())


def alarms(model: SavedModel, domain: Domain, rng: np.random.Generator, draws: int) -> list[float]:
    """The share of draws that are told apart, for each of SIZES."""
    found = []
    for size in SIZES:
        count = draws if size < len(domain.images) else 1
        rows = [rng.permutation(len(domain.images))[:size] for _ in range(count)]
        found.append(statistics.mean(judge(model, domain.select(row))[0] is True for row in rows))
    return found


def halves(count: int, share: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows in two parts."""
    order = rng.permutation(count)
    return np.sort(order[: round(share * count)]), np.sort(order[round(share * count) :])


def pair(
    domains: dict[str, Domain], source: str, target: str, seed: int, few: int | None, work: Path
) -> dict[str, Any]:
    """Adapt one pair and judge new images."""
    rng = np.random.default_rng(seed)
    trained, held = halves(len(domains[source].images), 0.7, rng)
    seen, unseen = halves(len(domains[target].images), 0.5, rng)
    if few:
        seen = np.sort(rng.permutation(seen)[:few])
    size = min(72, len(seen), len(trained) // 2)
    shown = Domain(target, domains[target].images.select(seen))  # few images may lack a class, which is no error unseen
    biwaa.adapt(
        domains[source].select(trained), shown, out=work, overwrite=True, verbose=False,
        rounds=1, baseline=False, choice="last", batch_size=size,
    )  # fmt: skip
    model = load_model(work)
    fresh, apart = domains[target].select(unseen), domains[source].select(held)
    classes = [
        fresh.select(rows) for k in range(len(fresh.classes or ())) if len(rows := np.flatnonzero(fresh.labels == k))
    ]
    others = [domain for name, domain in domains.items() if name not in (source, target)]
    return {
        "source": source, "target": target, "seed": seed, "target_images": len(seen),
        "same_place": alarms(model, fresh, rng, 20),
        "one_class_of_it": statistics.mean(judge(model, part)[0] is True for part in classes),
        "source_images": alarms(model, apart, rng, 20),
        "other_domains": [judge(model, domain)[0] is True for domain in others],
        "source_accuracy": judge(model, apart)[1],
        "source_accuracy_with_its_own_statistics": judge(model.for_domain("source"), apart)[1],
    }  # fmt: skip


def main(
    data_root: Path,
    work: Path = Path("runs/place"),
    benchmarks: tuple[str, ...] = ("pacs", "office10", "satellite", "office_home_clip"),
    seeds: tuple[int, ...] = (0,),
    few: tuple[int, ...] = (0, 50),
) -> None:
    """Measure.

    Args:
        data_root: folder of benchmarks.
        work: folder for a run.
        benchmarks: of the catalogue.
        seeds: of the halves.
        few: target images that are adapted to; 0 for half of them.
    """
    rows = []
    for name in benchmarks:
        specs = [domain for domain in BENCHMARKS[name].domains if "/" not in domain]
        domains = {f"{name}:{domain}": features(f"{name}:{domain}", data_root) for domain in specs}
        for count, seed in itertools.product(few, seeds):
            for source, target in itertools.permutations(domains, 2):
                rows.append(pair(domains, source, target, seed, count or None, work / "run"))
                print(json.dumps(rows[-1]), flush=True)
    facts = {"sizes": [*SIZES[:-1], "all"], "hardware": hardware("cpu"), "versions": versions(), "runs": rows}
    write_text(RESULTS, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
