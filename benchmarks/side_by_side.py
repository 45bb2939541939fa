"""Several backbones: each alone, two and three side by side, and what their agreement says without labels.

    python benchmarks/side_by_side.py DATA_ROOT --new NEW --out benchmarks/results/side_by_side.json

Each task is a run of `biwaa.adapt` with the frozen default, on features that each backbone computes once at its own
size. Beside it stand candidates for the estimate: how often solutions agree that know one backbone's features each.
Target labels judge, and choose nothing. With --seconds it measures what an image costs instead.
"""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from msgspec import to_builtins
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from unseen import tasks as new_tasks

import biwaa
from biwaa.device import hardware, open_fabric
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.images.augment import Transform
from biwaa.images.images import FeatureRows
from biwaa.judging.estimate import COMBINED
from biwaa.judging.second_opinion import halves
from biwaa.models.backbone import build_backbone
from biwaa.models.features import store_features
from biwaa.models.weights import load_weights
from biwaa.recipe import load_recipe
from biwaa.result import SOURCE_ONLY
from biwaa.solvers.prototypes import follow_prototypes
from biwaa.training.describe import versions
from biwaa.training.folder import RunFolder
from biwaa.training.prepare import Pair, prepare
from biwaa.training.stage import load_stage

BACKBONES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
SETS = (*((one,) for one in BACKBONES), (BACKBONES[0], BACKBONES[2]), BACKBONES)
PANEL = ("office10", "pacs", "satellite")
NEW = ("emoji_kinds", "letters")
"""Data sets that no choice is made on."""
BINS = 5
"""Groups of images of like confidence."""


def tasks(root: Path, new: Path | None) -> Iterator[tuple[str, str, str, str]]:
    """Data set, task, and the SPECs of its source and its target."""
    for name in PANEL:
        entry = BENCHMARKS[name]
        for task in entry.tasks:
            here, there = entry.task(task)
            yield name, task, f"{name}:{here}", f"{name}:{there}"
    if new:
        found = list(new_tasks(new, None, None))
        for name in NEW:
            yield from (one for one in found if one[0] == name)


class Features:
    """Features of domains by backbone, each computed once and kept in the cache."""

    def __init__(self, root: Path) -> None:
        self.root, self.fabric = root, open_fabric("cpu")
        self.backbones = {name: build_backbone(name) for name in BACKBONES}
        for backbone in self.backbones.values():
            load_weights(backbone, "auto", frozen=True)

    def of(self, domain: Domain, names: Sequence[str]) -> Domain:
        """The domain with the features of these backbones side by side in the place of its images."""
        found = []
        for backbone in (self.backbones[name] for name in names):
            size = backbone.image_size
            transform = Transform(round(size * 8 / 7), size, backbone.mean, backbone.std, 1)
            found.append(store_features(domain.images, domain.spec, backbone, transform, self.fabric).rows)
        rows = FeatureRows.of(np.concatenate(found, axis=1), domain.spec)
        return Domain(domain.spec, rows, domain.classes, domain.labels)


def own_solutions(source: Domain, target: Domain) -> dict[str, Tensor]:
    """(Nt,) what prototypes find by one backbone's features, from all source rows and from either half of them."""
    recipe = load_recipe("robust").replace("benchmark", method="prototypes", freeze_backbone=True)
    data = prepare(Pair(source, target), recipe, open_fabric("cpu"), False).data
    here, there = (part.batch(np.arange(len(part))).float() for part in (data.source, data.target))
    labels = torch.from_numpy(data.source_labels)
    first, second = halves(labels, data.classes)
    kept = {"all": torch.ones_like(first), "first": first, "second": second}
    return {
        name: follow_prototypes(here[rows], labels[rows], there, data.classes).argmax(dim=1)
        for name, rows in kept.items()
    }


def agreements(own: Sequence[dict[str, Tensor]], selected: Tensor) -> dict[str, float]:
    """Candidates for a reading: mean agreement over pairs of backbones, and of the model with each backbone's own."""

    def same(one: Tensor, other: Tensor) -> float:
        return float((one == other).double().mean())

    pairs = list(itertools.permutations(own, 2))
    found = {
        "backbones": [same(one["all"], other["all"]) for one, other in pairs],
        "backbones_of_halves": [same(one["first"], other["second"]) for one, other in pairs],
        "model_with_backbones": [same(one["all"], selected) for one in own],
    }
    return {name: round(float(np.mean(shares)), 6) for name, shares in found.items()}


def disagreement(
    own: Sequence[dict[str, Tensor]],
    said: NDArray[np.int64],
    confidence: NDArray[np.float64],
    second: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> dict[str, Any]:
    """What it says of an image that the backbones' own solutions differ.

    Alone, beside the model's confidence, and beside its difference from the run's second opinion, a classifier of
    minimum class confusion on all features.
    """
    right = said == labels
    every = torch.stack([one["all"] for one in own])
    apart, doubted = (every != every[0]).any(dim=0).numpy(), second != said
    ranks = confidence.argsort(kind="stable").argsort(kind="stable")
    groups = ranks * BINS // len(ranks)

    def counts(rows: NDArray[np.bool_]) -> list[int]:
        return [int((rows & ~apart).sum()), int((rows & ~apart & ~right).sum()), int((rows & apart).sum()),
                int((rows & apart & ~right).sum())]  # fmt: skip

    found: dict[str, Any] = {
        "counts": counts(np.ones_like(right)), "by_confidence": [counts(groups == one) for one in range(BINS)],
        "second_opinion_same": counts(~doubted), "second_opinion_differs": counts(doubted),
    }  # fmt: skip
    if 0 < right.sum() < len(right):
        scores = {
            "confidence": -confidence, "backbones": apart, "second_opinion": doubted,
            "confidence_and_backbones": apart - confidence, "confidence_and_second_opinion": doubted - confidence,
            "all": apart + doubted.astype(float) - confidence,
        }  # fmt: skip
        found["area"] = {name: round(float(roc_auc_score(~right, score)), 4) for name, score in scores.items()}
    return found


def measure(source: Domain, target: Domain, own: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Accuracies in percent, the run's estimate and readings, and what several backbones' agreement says."""
    began = time.perf_counter()
    run = biwaa.adapt(source, target, recipe="robust", freeze_backbone=True, verbose=False)
    result, said = run.result, run.predictions
    assert result.accuracy
    assert result.baseline
    assert result.baseline.accuracy
    assert said
    assert target.labels is not None
    found: dict[str, Any] = {
        "source_only": round(100 * result.baseline.accuracy.over_images, 2),
        "adapted": round(100 * result.accuracy.adapted.over_images, 2),
        "selected": result.selected.name,
        "estimate": to_builtins(result.estimated_accuracy),
        "images": result.target.images,
        "seconds": round(time.perf_counter() - began, 1),
    }
    if len(own) > 1:
        found["agreements"] = agreements(own, torch.from_numpy(said.labels))
        evidence = load_stage(RunFolder(run.folder), SOURCE_ONLY).evidence
        second, rows = evidence.second_opinion, evidence.rows
        assert second is not None
        assert rows is not None
        assert len(rows) == len(said.labels)  # no target of these has so many images that a sample stands for them
        found["disagreement"] = disagreement(own, said.labels, said.confidence, second.numpy(), target.labels)
    return found


def candidates(figures: dict[str, Any]) -> dict[str, list[float]]:
    """The parts of each estimate that could be made, whose mean it is; in [0, 1]."""
    four = [figures["estimate"]["readings"][name] for name in COMBINED]
    if "agreements" not in figures:
        return {"present": four}
    *three, halves = four
    own = figures["agreements"]
    return {
        "present": four,
        **{f"{name} for halves": [*three, share] for name, share in own.items()},
        **{f"{name} beside all": [*four, share] for name, share in own.items()},
        **{f"{name} alone": [share] for name, share in own.items()},
        "halves and backbones alone": [halves, own["backbones"]],
    }


def summary(done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the tasks of a data set, and the images of all its tasks, by the backbones."""
    found: dict[str, Any] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for task, by_names in done.items():
        for names, figures in by_names.items():
            rows.setdefault(f"{task.split(':')[0]}: {names}", []).append(figures)
    for key, some in rows.items():
        off: dict[str, list[float]] = {}
        for figures in some:
            for name, parts in candidates(figures).items():
                off.setdefault(name, []).append(100 * float(np.mean(parts)) - figures["adapted"])
        found[key] = {
            "tasks": len(some),
            "source_only": round(float(np.mean([one["source_only"] for one in some])), 2),
            "adapted": round(float(np.mean([one["adapted"] for one in some])), 2),
            "worst_gain": round(min(one["adapted"] - one["source_only"] for one in some), 2),
            "estimate_off": {
                name: {"mean": round(float(np.abs(one).mean()), 2), "bias": round(float(np.mean(one)), 2)}
                for name, one in off.items()
            },
            "interval_holds": sum(
                100 * one["estimate"]["low"] <= one["adapted"] <= 100 * one["estimate"]["high"] for one in some
            ),
        }
        apart = [one["disagreement"] for one in some if "disagreement" in one]
        if apart:
            areas = [one["area"] for one in apart if "area" in one]
            found[key]["disagreement"] = {
                "agree, wrong, apart, wrong": np.sum([one["counts"] for one in apart], axis=0).tolist(),
                "by_confidence": np.sum([one["by_confidence"] for one in apart], axis=0).tolist(),
                "area": {name: round(float(np.mean([one[name] for one in areas])), 3) for name in areas[0]},
            }
    return found


def seconds(images: int = 32, repeats: int = 8) -> dict[str, float]:
    """Milliseconds an image by backbone, the least of some repeats, on one thread."""
    found = {}
    for name in (*BACKBONES, ",".join(BACKBONES)):
        backbone = build_backbone(name)
        module = backbone.module.to(memory_format=torch.channels_last).eval()
        size = backbone.image_size
        batch = torch.rand(images, 3, size, size).to(memory_format=torch.channels_last)
        times = []
        with torch.inference_mode():
            module(batch)
            for _ in range(repeats):
                began = time.perf_counter()
                module(batch)
                times.append(1000 * (time.perf_counter() - began) / images)
        found[name] = round(min(times), 1)
    return found


def main(
    root: tyro.conf.Positional[Path],
    out: Path,
    new: Path | None = None,
    data_sets: tuple[str, ...] = (*PANEL, *NEW),
    seconds_only: bool = False,
) -> None:
    """Measure; what is in the file already is not measured again.

    Args:
        root: where benchmarks lie.
        out: JSON file.
        new: data made by `unseen_data.py`.
        data_sets: those that are measured now.
        seconds_only: only what an image costs.
    """
    done: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"tasks": {}}
    facts = {"versions": versions(), "hardware": hardware("cpu")}
    if seconds_only:
        write_text(out, json.dumps({**done, **facts, "milliseconds": seconds()}, indent=1) + "\n")
        return
    features = Features(root)
    for data_set, task, here, there in tasks(root, new):
        if data_set not in data_sets:
            continue
        source = open_domain(here, root)
        target = match_classes(open_domain(there, root), source.classes or ())
        figures = done["tasks"].setdefault(f"{data_set}: {task}", {})
        own: dict[str, dict[str, Tensor]] = {}
        for names in SETS:
            if ",".join(names) in figures:
                continue
            for name in names if len(names) > 1 else ():
                if name not in own:
                    own[name] = own_solutions(features.of(source, [name]), features.of(target, [name]))
            pair = features.of(source, names), features.of(target, names)
            figures[",".join(names)] = found = measure(*pair, [own[name] for name in names if name in own])
            print(data_set, task, ",".join(names), found, flush=True)
        write_text(out, json.dumps({**done, "summary": summary(done["tasks"]), **facts}, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
