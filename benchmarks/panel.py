"""The estimate, its interval and the choice without labels, judged over a finished panel.

    python benchmarks/panel.py PANEL --out benchmarks/results/panel.json

It reads result.json of the panel's runs alone. The true accuracies, which need target labels, judge and choose nothing
but the constants of the estimate: how readings are pooled, and how wide the interval is. Those are fitted again without
each data set in turn, and judged on it. Runs that left out classes have a width of their own.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy.special import expit

from biwaa.bench.panel import PARTS
from biwaa.files import write_text
from biwaa.judging.estimate import COMBINED, combined, mean_log_odds, unsure
from biwaa.judging.validators import VALIDATORS
from biwaa.result import Result, read_result
from biwaa.result.warnings import ClassesAbsent
from biwaa.training.describe import versions

Floats = NDArray[np.float64]
MAIN = {part.name for part in PARTS if part.data_set == part.benchmark}
"""Parts that are data sets as they are; the others are smaller or have another label distribution."""


def read(panel: Path, method: str) -> list[tuple[str, str, Result]]:
    """Part, task and result of every run of the method."""
    found = []
    for part in (part.name for part in PARTS):
        for folder in sorted(file.parent for file in (panel / part / "runs").glob(f"*.{method}.*/result.json")):
            found.append((part, folder.name.split(".")[0], read_result(folder)))
    return found


def fitted_pool(log_odds: Floats, truth: Floats) -> tuple[float, float]:
    """Shift and stretch of the mean log-odds with the least mean error, on a grid."""
    grid = itertools.product(np.arange(-0.5, 0.11, 0.05), np.arange(1, 1.41, 0.05))
    best = min(grid, key=lambda pair: float(np.abs(expit(pair[0] + pair[1] * log_odds) - truth).mean()))
    return float(best[0]), float(best[1])


def fitted_width(apart: Floats, doubt: Floats) -> float:
    """Half the interval's width, in units of doubt: it holds 90 % and its lower end 95 %, as of split conformal."""
    count = len(apart)

    def quantile(values: Floats, share: float) -> float:
        return float(np.quantile(values, min(1.0, share * (count + 1) / count)))

    return max(quantile(np.abs(apart) / doubt, 0.9), quantile(apart / doubt, 0.95))


def estimates(runs: list[tuple[str, str, Result]]) -> dict[str, Any]:
    """How far the estimate is off, and how often the interval and the bound hold, where no warning contradicts it."""
    read_all = [run for run in runs if COMBINED[0] in run[2].estimated_accuracy.readings]
    found = [run for run in read_all if run[2].contradiction is None]
    absent = np.array([any(isinstance(one, ClassesAbsent) for one in result.warnings) for *_, result in found])
    every = [
        combined(result.estimated_accuracy.readings, result.target.images, True, bool(gone))  # with today's constants
        for (*_, result), gone in zip(found, absent, strict=True)
    ]
    truth = np.array([result.accuracy.adapted.over_images for *_, result in found if result.accuracy])
    value, low, high = (np.array([float(getattr(one, name)) for one in every]) for name in ("value", "low", "high"))
    readings = np.array([[one.readings[name] for name in COMBINED] for one in every])
    log_odds = mean_log_odds(torch.from_numpy(readings)).numpy()
    images = [result.target.images for *_, result in found]
    spread = readings.max(axis=1) - readings.min(axis=1)

    def doubts(values: Floats) -> Floats:
        return np.array([unsure(*one) for one in zip(values.tolist(), spread.tolist(), images, strict=True)])

    data_set = np.array([part.rsplit(".", 1)[-1] for part, *_ in found])
    main = np.array([part in MAIN for part, *_ in found])
    closed = np.array([not part.startswith("partial.") for part, *_ in found])
    left, left_low, left_high = value.copy(), low.copy(), high.copy()
    for name in set(data_set):
        shift, stretch = fitted_pool(log_odds[(data_set != name) & closed], truth[(data_set != name) & closed])
        values = expit(shift + stretch * log_odds)
        doubt = doubts(values)
        for group, fitting in ((absent, absent), (~absent, closed & ~absent)):
            judged, others = (data_set == name) & group, (data_set != name) & fitting
            if not judged.any():
                continue
            width = fitted_width((values - truth)[others], doubt[others])
            left[judged] = values[judged]
            left_low[judged] = (values - width * doubt)[judged]
            left_high[judged] = (values + width * doubt)[judged]
    apart, doubt = value - truth, doubts(value)
    held, left_held = (low <= truth) & (truth <= high), (left_low <= truth) & (truth <= left_high)
    above, left_above = low <= truth, left_low <= truth

    def table(rows: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "tasks": int(rows.sum()),
            "mean_error": round(100 * float(np.abs(apart[rows]).mean()), 2),
            "bias": round(100 * float(apart[rows].mean()), 2),
            "worst": round(100 * float(np.abs(apart[rows]).max()), 1),
            "interval_holds": int(held[rows].sum()),
            "bound_holds": int(above[rows].sum()),
            "left_out_mean_error": round(100 * float(np.abs(left - truth)[rows].mean()), 2),
            "left_out_interval_holds": int(left_held[rows].sum()),
            "left_out_bound_holds": int(left_above[rows].sum()),
            "mean_width": round(100 * float((high - low)[rows].mean()), 1),
            "readings": {
                name: round(100 * float(np.abs(readings[rows, column] - truth[rows]).mean()), 2)
                for column, name in enumerate(COMBINED)
            },
        }

    parts = {
        name: table(np.array([part == name for part, *_ in found])) for name in dict.fromkeys(p for p, *_ in found)
    }
    left_out = (
        {"fitted_width": round(fitted_width(apart[absent], doubt[absent]), 3), **table(absent)} if absent.any() else {}
    )
    return {
        "fitted_pool": [round(one, 2) for one in fitted_pool(log_odds[closed], truth[closed])],
        "fitted_width": round(fitted_width(apart[closed & ~absent], doubt[closed & ~absent]), 3),
        "data_sets": table(main),
        "absent": left_out,
        "closed": table(closed),
        "all": table(np.ones(len(value), dtype=bool)),
        "parts": parts,
        "withheld": [f"{part}:{task}" for part, task, result in read_all if result.contradiction],
        "tasks": {
            f"{part}:{task}": {
                "accuracy": round(t, 4),
                "estimate": round(v, 4),
                "low": round(a, 4),
                "high": round(b, 4),
            }
            for (part, task, _), t, v, a, b in zip(found, truth, value, low, high, strict=True)
        },
    }


def calibrations(runs: list[tuple[str, str, Result]]) -> dict[str, dict[str, float]]:
    """Expected calibration error on the target before and after the temperature, in points, by part."""
    errors: dict[str, list[tuple[float, float]]] = {}
    for part, _, result in runs:
        if result.calibration.matched_to_estimate and (error := result.calibration.target):
            errors.setdefault(part, []).append((100 * error.before, 100 * error.after))
    main = [pair for part, pairs in errors.items() if part in MAIN for pair in pairs]
    every = [pair for pairs in errors.values() for pair in pairs]
    found = {}
    for name, pairs in (errors | {"data sets": main, "all": every}).items():
        if pairs:
            before, after = (round(float(np.mean(column)), 1) for column in zip(*pairs, strict=True))
            found[name] = {"tasks": len(pairs), "before": before, "after": after}
    return found


def choices(runs: list[tuple[str, str, Result]]) -> dict[str, dict[str, float]]:
    """Each label-free score's pick between source-only and the method, in points below the better of the two."""
    found: dict[str, dict[str, float]] = {}
    for name in (*VALIDATORS, "always the last"):
        regret, missed = [], 0
        for *_, result in runs:
            right = [stage.accuracy.over_images for stage in result.stages if stage.accuracy]
            scores = [None if name not in VALIDATORS else stage.validators.get(name) for stage in result.stages]
            known = [score for score in scores if score is not None]
            if name in VALIDATORS and len(known) < len(scores):
                missed += 1
                continue
            pick = int(np.argmax(known)) if known else len(right) - 1
            regret.append(100 * (max(right) - right[pick]))
        if regret:
            found[name] = {"regret": round(float(np.mean(regret)), 2), "worst": round(max(regret), 1)}
            found[name] |= {"wrong": sum(one > 0 for one in regret), "tasks": len(regret), "not_scored": missed}
    return found


def main(panel: tyro.conf.Positional[Path], out: Path, method: str = "prototypes") -> None:
    """Judge, write and print.

    Args:
        panel: folder of `biwaa bench panel`.
        out: JSON file.
        method: whose runs.
    """
    runs = read(panel, method)
    found = {
        "estimate": estimates(runs),
        "calibration": calibrations(runs),
        "choice": choices([run for run in runs if run[0] in MAIN]),
        "choice_all": choices(runs),
        "versions": versions(),
    }
    write_text(out, json.dumps(found, indent=1) + "\n")
    print(json.dumps({**found, "estimate": {k: v for k, v in found["estimate"].items() if k != "tasks"}}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
