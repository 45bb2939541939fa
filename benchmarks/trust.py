"""Validators, the label-free choice and estimates of accuracy, judged over all runs of benches kept with --keep-models.

python benchmarks/trust.py BENCH... --data-root DATA --out benchmarks/results/trust.json

Target labels are used here to judge, and nowhere else. A pool is a run's rounds and the bench's source-only run;
`across` pools every method's last round and source-only of the same task and seed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from corrections import em_prior, prior_corrected, weighted_temperature
from scipy.stats import spearmanr

from biwaa.bench.grid import Bench, load_bench
from biwaa.bench.suites import SOURCE_ONLY
from biwaa.domains.spec import open_domain
from biwaa.domains.trainable import check_pair
from biwaa.files import write_text
from biwaa.functional import with_temperature
from biwaa.judging.calibration import expected_calibration_error, held_out_temperature
from biwaa.judging.estimate import estimates
from biwaa.judging.evidence import Evidence
from biwaa.judging.importance import density_ratio
from biwaa.judging.label_shift import bbse, joint_confusion, label_shares, predicted_shares
from biwaa.judging.metrics import accuracies
from biwaa.judging.validators import VALIDATORS, scores
from biwaa.result import read_result
from biwaa.training.folder import RunFolder
from biwaa.training.stage import load_stage

POOLED = ("mixval", "ensv", "agreement")
"""Scores that depend on the pool; the others stand in each run's result.json."""
Candidate = tuple[Evidence, Mapping[str, float | None]]
"""What a stage can be judged by, and its scores by name."""


def stages(folder: Path) -> dict[str, Candidate]:
    """A run's stages, by name."""
    run = RunFolder(folder)
    return {
        stage.name: (load_stage(run, stage.name).evidence, stage.validators) for stage in read_result(folder).stages
    }


def scored(pool: list[Candidate]) -> dict[str, list[float | None]]:
    """Every validator's scores of a pool."""
    evidence = [entry for entry, _ in pool]
    found = {name: [own[name] for _, own in pool] for name in VALIDATORS if name not in POOLED}
    return found | {name: scores(evidence, only=name)[name] for name in POOLED}


def judge(pool: list[Candidate], right: list[float]) -> dict[str, dict[str, float]]:
    """For each validator: accuracy of its pick, regret against the oracle, rank correlation over the pool."""
    found = {}
    for name, every in scored(pool).items():
        values = [value for value in every if value is not None]
        if len(values) < len(every):
            continue
        pick = right[int(np.argmax(values))]
        rank = spearmanr(values, right).statistic if len(set(values)) > 1 and len(set(right)) > 1 else np.nan
        found[name] = {"pick": pick, "regret": max(right) - pick, "rank_correlation": float(rank)}
    found["last"] = {"pick": right[-1], "regret": max(right) - right[-1], "rank_correlation": float("nan")}
    return found


def labels_of(bench: Bench, task: str, root: Path) -> np.ndarray[Any, Any]:
    """(N,) labels of the task's target, numbered as the runs number classes."""
    source, target = (open_domain(f"{bench.benchmark}:{name}", root) for name in bench.entry.task(task))
    labels = check_pair(source, target, 2)[1].labels
    assert labels is not None
    return labels


def collect(folders: tuple[Path, ...], root: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Judgements of pools, and estimates with true accuracies, over all runs of the benches."""
    pools, guesses = [], []
    for folder in folders:
        bench = load_bench(folder)
        for task in bench.tasks:
            labels = labels_of(bench, task, root)

            def accuracy(evidence: Evidence, labels: np.ndarray[Any, Any] = labels) -> float:
                return 100 * float((evidence.probabilities.argmax(dim=1).numpy() == labels).mean())

            for seed in bench.seeds:
                paths = {v.name: folder / "runs" / f"{task}.{v.name}.{seed}" for v in bench.variants}
                runs = {name: stages(path) for name, path in paths.items() if (path / "result.json").exists()}
                where = {"benchmark": bench.benchmark, "task": task, "seed": seed}
                first = runs[SOURCE_ONLY]["round 0"]
                across = [first]
                for name, found in runs.items():
                    mine = list(found.values())
                    *others, last = (evidence for evidence, _ in mine)
                    guess = estimates(last, others, held_out_temperature(last), first[0])
                    guesses.append(
                        where
                        | {"method": name, "accuracy": accuracy(last)}
                        | guess
                        | calibration(last, labels)
                        | corrections(last, labels)
                    )
                    if name == SOURCE_ONLY:
                        continue
                    pool = [first, *mine]
                    right = [accuracy(evidence) for evidence, _ in pool]
                    pools.append(where | {"pool": name, "size": len(pool), "judged": judge(pool, right)})
                    across.append(mine[-1])
                right = [accuracy(evidence) for evidence, _ in across]
                pools.append(where | {"pool": "across", "size": len(across), "judged": judge(across, right)})
    return pools, guesses


def calibration(evidence: Evidence, labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """The target's expected calibration error as it is, with a temperature, and with one fitted on weighted images."""
    assert evidence.source_labels is not None
    assert evidence.source_probabilities is not None
    assert evidence.source_features is not None
    assert evidence.features is not None
    assert evidence.trained_features is not None
    trained, target, held_out = evidence.trained_features, evidence.features, evidence.source_features
    weights = torch.from_numpy(density_ratio(trained.numpy(), target.numpy(), held_out.numpy()))
    aware = weighted_temperature(evidence.source_probabilities, evidence.source_labels.numpy(), weights)
    found = {}
    for name, temperature in {
        "as_it_is": 1.0, "temperature": held_out_temperature(evidence), "shift_aware": aware
    }.items():  # fmt: skip
        tempered = with_temperature(evidence.probabilities, temperature)
        found[f"ece_{name}"] = expected_calibration_error(tempered, labels)
    return found


def corrections(evidence: Evidence, labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """By how many points accuracy changes when the output is corrected for an estimated label distribution or the true.

    Training saw the source evenly over classes, so that is the prior of the output.
    """
    assert evidence.held_out is not None
    temperature, classes = held_out_temperature(evidence), evidence.probabilities.shape[1]
    target = with_temperature(evidence.probabilities, temperature)
    source = with_temperature(evidence.held_out[0], temperature)
    even = np.full(classes, 1 / classes)
    confusion = joint_confusion(source, evidence.held_out[1], soft=True)
    priors = {
        "bbse": bbse(confusion, predicted_shares(target, soft=True)),
        "em": em_prior(target, even),
        "true": label_shares(labels, classes),
    }
    before = accuracies(target, labels).over_images
    return {
        f"corrected_by_{name}": 100 * (accuracies(prior_corrected(target, even, prior), labels).over_images - before)
        for name, prior in priors.items()
    }


def means(pools: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By kind of pool and validator: the mean over tasks and seeds of each figure."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in dict.fromkeys(pool["pool"] for pool in pools):
        mine = [pool["judged"] for pool in pools if pool["pool"] == kind]
        found[kind] = {
            name: {key: round(float(np.nanmean([one[name][key] for one in mine])), 3) for key in mine[0][name]}
            for name in mine[0]
            if all(name in one for one in mine)
        }
    return found


def main(benches: tyro.conf.Positional[tuple[Path, ...]], data_root: Path, out: Path) -> None:
    """Judge, write and print."""
    pools, guesses = collect(benches, data_root)
    write_text(out, json.dumps({"validators": means(pools), "estimates": guesses}, indent=1) + "\n")
    for kind, table in means(pools).items():
        print(f"\n{kind}")
        for name, figures in sorted(table.items(), key=lambda item: item[1]["regret"]):
            print(f"  {name:26}" + "".join(f"  {key} {value:6.2f}" for key, value in figures.items()))
    for method in dict.fromkeys(guess["method"] for guess in guesses):
        mine = [guess for guess in guesses if guess["method"] == method]
        print(f"\n{method}: mean absolute error of estimates, and target calibration errors, in points")
        for key in dict.fromkeys(key for guess in mine for key in guess):
            if key.startswith("ece"):
                print(f"  {key:36} {100 * np.mean([guess[key] for guess in mine]):5.2f}")
            elif key.startswith("corrected"):
                values = [guess[key] for guess in mine]
                print(f"  {key:36} {np.mean(values):+5.2f}, from {min(values):+5.2f} to {max(values):+5.2f}")
            elif key not in ("benchmark", "task", "seed", "method", "accuracy"):
                apart = [abs(100 * guess[key] - guess["accuracy"]) for guess in mine]
                print(f"  {key:36} {np.mean(apart):5.2f}")


if __name__ == "__main__":
    tyro.cli(main)
