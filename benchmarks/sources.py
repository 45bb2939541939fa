"""Several sources: all of them with a weight each, pooled as one domain, and each alone.

python benchmarks/sources.py --data-root DATA --out benchmarks/results/sources.json

PACS and Office-Home with three sources, Office's ten classes with two. Every figure is of the run's selected model, as
`biwaa.adapt` gives it; target labels are used to count.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import biwaa
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.domains.union import union
from biwaa.files import write_text
from biwaa.result import Result

DOMAINS = {
    "pacs": ("art_painting", "cartoon", "photo", "sketch"),
    "office10": ("amazon", "dslr", "webcam"),
    "office_home_clip": ("art", "clipart", "product", "real_world"),
}
BACKBONE = "tf_efficientnet_lite0"


def figures(result: Result) -> dict[str, Any]:
    """Of one run."""
    assert result.accuracy is not None  # every target has labels
    estimate = result.estimated_accuracy
    found = {"accuracy": result.accuracy.adapted.over_images, "selected": result.model.stage}
    if result.baseline and result.baseline.accuracy:
        found["source-only"] = result.baseline.accuracy.over_images
    found |= {"estimate": estimate.value, "low": estimate.low, "high": estimate.high}
    found |= {"warnings": [msgspec.to_builtins(one)["code"] for one in result.warnings]}
    return found | {"seconds": result.cost.seconds, "sources": msgspec.to_builtins(result.sources)}


def lacking(source: Domain, place: int, many: int) -> Domain:
    """Without every `many`-th class, another one for each source."""
    assert source.labels is not None
    assert source.classes is not None
    kept = [k for k in range(len(source.classes)) if k % many != place]
    rows = np.flatnonzero(np.isin(source.labels, kept))
    labels = np.searchsorted(kept, source.labels[rows])
    return replace(source.select(rows), labels=labels, classes=tuple(source.classes[k] for k in kept))


def exchanged(source: Domain) -> Domain:
    """With every class called by the next one's name."""
    assert source.classes is not None
    return replace(source, classes=(*source.classes[1:], source.classes[0]))


def measure(data_root: Path, data_sets: Sequence[str]) -> dict[str, Any]:
    """Every condition of every task."""
    found: dict[str, Any] = {}
    for data_set in data_sets:
        of_features = data_set.endswith("clip")
        settings: dict[str, Any] = {} if of_features else {"backbone": BACKBONE, "freeze_backbone": True}
        opened = {name: open_domain(f"{data_set}:{name}", data_root) for name in DOMAINS[data_set]}
        for target, there in opened.items():
            sources = [opened[name] for name in opened if name != target]

            def run(condition: str, source: Any, task: str = f"{data_set}:{target}", there: Domain = there) -> None:
                result = biwaa.adapt(source, there, verbose=False, **settings).result  # noqa: B023
                found.setdefault(condition, {})[task] = figures(result)
                print(task, condition, found[condition][task], flush=True)

            parts = [lacking(source, place, len(sources)) for place, source in enumerate(sources)]
            run("weighed", sources)
            run("pooled", replace(union(sources), places=(), origins=None))
            run("weighed, each lacks classes", parts)
            run("pooled, each lacks classes", replace(union(parts), places=(), origins=None))
            for place, source in enumerate(sources):
                name = source.spec.rpartition(":")[2]
                run(f"{name} alone", source)
                wrong = [*sources[:place], exchanged(source), *sources[place + 1 :]]
                run(f"weighed, {name} exchanged", wrong)
    return found


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-sets", nargs="*", default=list(DOMAINS))
    arguments = parser.parse_args()
    write_text(arguments.out, json.dumps(measure(arguments.data_root, arguments.data_sets), indent=1) + "\n")


if __name__ == "__main__":
    main()
