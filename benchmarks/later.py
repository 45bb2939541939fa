"""How wrong is `biwaa estimate` on new images, and does it see that they are of another place?

    python benchmarks/later.py --data-root DATA

writes benchmarks/results/later.json. Each pair of domains of a benchmark is adapted by the default recipe on a frozen
EfficientNet-Lite0, to half of the target from 70 % of the source. New images are the target's other half, those of half
of its classes, 50 of them, the other 30 % of the source, and the benchmark's further domains. Target labels are used
here to judge, nowhere else.
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
from place import features, halves

import biwaa
from biwaa.device import hardware
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.domain import Domain
from biwaa.files import write_text
from biwaa.inference.classifier import stream_predictions
from biwaa.judging.later import moved_classes
from biwaa.models.place import Look
from biwaa.models.saved import load_model
from biwaa.result import read_result
from biwaa.training.describe import versions
from biwaa.training.later import Later, estimate_later

RESULTS = Path(__file__).parent / "results" / "later.json"
DRAWS = 20
"""Halves of the target's unseen half, a pair: each is asked whether it has moved."""
FEW = 50


def predicted(run: Path, domain: Domain) -> NDArray[np.int64]:
    """(N,) classes."""
    model = load_model(run)
    parts = [batch for batch, _ in stream_predictions(model, domain.images, "cpu", 4096, Look(None))]
    return torch.cat(parts).argmax(dim=1).numpy()


def case(run: Path, kind: str, domain: Domain) -> dict[str, Any]:
    """One folder of new images: what was said, and what is true."""
    bare = Domain(domain.spec, domain.images)
    found: Later = estimate_later(run, bare)
    given = found.estimated_accuracy
    assert domain.labels is not None
    return {
        "kind": kind, "images": found.images, "accuracy": float((predicted(run, domain) == domain.labels).mean()),
        "value": given.value, "low": given.low, "high": given.high, "lower_bound": given.lower_bound,
        "withheld": found.withheld, "readings": given.readings, "moved": found.moved, "shift": found.shift,
        "shift_limit": found.shift_limit, "unfamiliar": found.unfamiliar, "unfamiliar_limit": found.unfamiliar_limit,
        "classes_moved": sum(one.moved is True for one in found.classes.values()),
    }  # fmt: skip


def alarms(run: Path, domain: Domain, rng: np.random.Generator) -> dict[str, float]:
    """False alarms over draws of the same place: that it moved, and that any class's share did."""
    model, result = load_model(run), read_result(run)
    of = result.selected.predicted_shares
    before = np.array([round(of[name] * result.target.images) for name in model.classes], dtype=np.int64)
    moved, shares = [], []
    for _ in range(DRAWS):
        rows = rng.permutation(len(domain.images))[: len(domain.images) // 2]
        look = Look(model.place)
        parts = [batch for batch, _ in stream_predictions(model, domain.select(rows).images, "cpu", 4096, look)]
        now = torch.cat(parts).argmax(dim=1).bincount(minlength=len(model.classes)).numpy()
        moved.append(look.unlike is True)
        shares.append(bool(moved_classes(before, now).any()))
    return {"moved": statistics.mean(moved), "shares": statistics.mean(shares)}


def pair(domains: dict[str, Domain], source: str, target: str, seed: int, work: Path) -> dict[str, Any]:
    """Adapt one pair and judge new images."""
    rng = np.random.default_rng(seed)
    trained, held = halves(len(domains[source].images), 0.7, rng)
    seen, unseen = halves(len(domains[target].images), 0.5, rng)
    size = min(72, len(seen), len(trained) // 2)
    run = work / "run"

    def adapt(images: Domain, out: Path, **more: Any) -> None:
        known = domains[source].select(trained)
        biwaa.adapt(known, Domain("new", images.images), out=out, overwrite=True, verbose=False, **more)

    adapt(domains[target].select(seen), run, batch_size=size)
    result, fresh, apart = read_result(run), domains[target].select(unseen), domains[source].select(held)
    assert fresh.labels is not None
    some = rng.permutation(len(fresh.classes or ()))[: len(fresh.classes or ()) // 2]
    cases = [
        case(run, "same_place", fresh),
        case(run, "half_of_its_classes", fresh.select(np.flatnonzero(np.isin(fresh.labels, some)))),
        case(run, "few_of_it", fresh.select(rng.permutation(len(unseen))[:FEW])),
        case(run, "source", apart),
    ]
    others = [domain for name, domain in domains.items() if name not in (source, target)]
    cases += [case(run, "further_domain", domain) for domain in others]
    for found, domain in zip(cases, [fresh, None, None, apart, *others], strict=True):
        if domain is None or domain.labels is None:
            continue
        again = work / "again"  # what adapting again would give
        few = min(72, len(domain.images), len(trained) // 2)
        adapt(domain, again, batch_size=few, baseline=False, rounds=1, choice="last")
        found["adapted_again"] = float((predicted(again, domain) == domain.labels).mean())
    return {
        "source": source, "target": target, "seed": seed, "target_images": len(seen),
        "estimate_of_the_run": result.estimated_accuracy.value, "false_alarms": alarms(run, fresh, rng),
        "cases": cases,
    }  # fmt: skip


def main(
    data_root: Path,
    work: Path = Path("runs/later"),
    benchmarks: tuple[str, ...] = ("office10", "satellite", "pacs", "office_home_clip"),
    seeds: tuple[int, ...] = (0,),
    out: Path = RESULTS,
) -> None:
    """Measure.

    Args:
        data_root: folder of benchmarks.
        work: folder for runs.
        benchmarks: of the catalogue.
        seeds: of the halves.
        out: the file to write, anew after each pair.
    """
    rows = []
    for name in benchmarks:
        names = [f"{name}:{one}" for one in BENCHMARKS[name].domains if "/" not in one]
        domains = {one: features(one, data_root) for one in names}
        for seed in seeds:
            for source, target in itertools.permutations(domains, 2):
                rows.append(pair(domains, source, target, seed, work))
                print(json.dumps(rows[-1]), flush=True)
                facts = {"draws": DRAWS, "few": FEW, "hardware": hardware("cpu"), "versions": versions(), "runs": rows}
                write_text(out, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
