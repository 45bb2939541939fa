"""A run's result.json, and the same in a few lines for the terminal."""

import json
from pathlib import Path
from typing import Any

from biwaa.errors import BiwaaError

ESTIMATE_ERROR, ESTIMATE_WORST = 5.5, 27
"""Points by which the estimate was off in the recipe `robust`, on average and at worst (docs/robust.md)."""


def read_result(run: Path) -> dict[str, Any]:
    """What result.json in a run folder says.

    Raises:
        BiwaaError: there is none, or it is damaged.
    """
    try:
        result: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BiwaaError(f"{run} holds no run that has finished a round.") from None
    return result


def summarise(result: dict[str, Any]) -> str:
    """Accuracies where there are labels, else what can be said without; then the warnings."""
    lines: list[str] = []
    accuracy = result.get("accuracy")
    if accuracy:
        lines.append(f"target accuracy in percent ({accuracy['split']}; seed {result['seed']}):")
        lines.append(f"  {'':44}{'over images':>12}{'over classes':>14}")
        for name, figures in accuracy["legs"].items():
            lines.append(_row(f"{name}, last step", figures))
        lines.append(_row("average of the rounds' predictions", accuracy["average_of_rounds"]))
    else:
        lines.append(f"{result['target']['images']} target images, no labels: no accuracy can be given")
    free = result["label_free"]
    lines.append(f"handed out: {result['model']['checkpoint']}, chosen by {result['model']['chosen_by']}")
    if "agreement_with_source_only" in free:
        lines.append(f"  agrees with source-only on {100 * free['agreement_with_source_only']:.1f} % of the images")
    lines += _estimate(result)
    if held_out := result.get("held_out"):
        lines.append(f"accuracy in percent on {held_out['images']} {held_out['split']} ({held_out['spec']}):")
        lines += [_row(f"{name}, last step", figures) for name, figures in held_out["legs"].items()]
    lines += _distribution(result)
    lines += [f"warning: {text}" for text in result["warnings"]]
    return "\n".join(lines)


def _estimate(result: dict[str, Any]) -> list[str]:
    """The label-free estimate of the accuracy, with the error that it had on benchmarks."""
    found = result["estimated_accuracy"]
    if "estimate" not in found:
        return []
    return [
        f"estimated target accuracy without labels: {100 * found['estimate']:.0f} % "
        f"(over our benchmark runs of the recipe robust such estimates were off by {ESTIMATE_ERROR} points on average, "
        f"by {ESTIMATE_WORST} at worst, and rather too high)"
    ]


def _distribution(result: dict[str, Any]) -> list[str]:
    """Label distributions: the source's, the last round's estimate of the target's, and the true one where known."""
    found = result["label_distribution"]
    name, estimated = list(found["estimated_target"].items())[-1]
    apart = found["total_variation"]
    said = f"label distribution: {name} predicts one {100 * apart['estimated_to_source'][name]:.1f} % from the source's"
    if "true_target" in found:
        said += (
            f"; the target's true one is {100 * apart['source_to_true']:.1f} % from the source's and "
            f"{100 * apart['estimated_to_true'][name]:.1f} % from what is predicted"
        )
    lines = [f"{said} (total variation)"]
    if result["source"]["shift"] == result["target"]["shift"] == "none":
        return lines
    columns = {"source": found["source"], "estimated": estimated, "true": found.get("true_target", {})}
    lines.append(f"  {'share of each class in percent':44}" + "".join(f"{column:>12}" for column in columns))
    for label in result["classes"]:
        cells = (f"{100 * shares[label]:12.1f}" if label in shares else " " * 12 for shares in columns.values())
        lines.append(f"  {label:44}" + "".join(cells))
    return lines


def _row(name: str, figures: dict[str, float]) -> str:
    return f"  {name:44}{100 * figures['over_images']:12.1f}{100 * figures['over_classes']:14.1f}"
