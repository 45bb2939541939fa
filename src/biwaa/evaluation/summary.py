"""A run's result.json in a few lines for the terminal."""

from typing import Any


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
        lines.append(f"handed out: {accuracy['adapted']['checkpoint']}, chosen by the schedule, not by labels")
    else:
        free = result["label_free"]
        lines.append(f"{result['target']['images']} target images, no labels: no accuracy can be given")
        lines.append(f"  mean confidence {free['mean_confidence']:.3f}")
        if "agreement_with_source_only" in free:
            lines.append(f"  agrees with source-only on {100 * free['agreement_with_source_only']:.1f} % of the images")
    lines += [f"warning: {text}" for text in result["warnings"]]
    return "\n".join(lines)


def _row(name: str, figures: dict[str, float]) -> str:
    return f"  {name:44}{100 * figures['over_images']:12.1f}{100 * figures['over_classes']:14.1f}"
