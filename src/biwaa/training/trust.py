"""How far a run's model can be trusted, said without a target label: calibration, estimated accuracy, warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from biwaa.evaluation import calibration, label_shift
from biwaa.evaluation.evidence import Evidence, sample_rows
from biwaa.evaluation.metrics import agreement
from biwaa.evaluation.validators import source_accuracy
from biwaa.evaluation.warnings import Signs, far_share
from biwaa.recipe import Recipe
from biwaa.training.folder import RunFolder
from biwaa.training.prepare import Prepared
from biwaa.training.rounds import BASELINE, Trained

INDEPENDENT = ("thresholded_confidence", "thresholded_entropy", "agreement_of_neighbours", "agreement_of_rounds")
"""Estimates that stand on different grounds: that they contradict each other says something."""
AGREEMENTS = ("agreement_of_rounds", "agreement_with_source_only", "agreement_of_neighbours")


def temperature_of(evidence: Evidence) -> float:
    """Fitted on the held-out source; 1 where there is none."""
    return calibration.fit_temperature(*evidence.held_out) if evidence.held_out else 1.0


def estimates(
    chosen: Evidence, others: Sequence[Evidence], temperature: float, baseline: Evidence | None = None
) -> dict[str, float]:
    """Label-free estimates of the accuracy on the target, in [0, 1], by name.

    Args:
        chosen: the model's evidence.
        others: those of the other rounds; source-only is not among them.
        temperature: of the model.
        baseline: source-only's evidence.
    """
    target = calibration.with_temperature(chosen.probabilities, temperature)
    found = {"confidence": calibration.average_confidence(target)}
    if chosen.held_out:
        held_out, labels = chosen.held_out
        source = calibration.with_temperature(held_out, temperature)
        found["difference_of_confidences"] = calibration.difference_of_confidences(source, labels, target)
        found["thresholded_confidence"] = calibration.average_thresholded_confidence(source, labels, target)
        found["thresholded_entropy"] = calibration.average_thresholded_confidence(source, labels, target, "entropy")
    if others:
        found["agreement_of_rounds"] = calibration.mean_agreement(
            [chosen.probabilities, *(other.probabilities for other in others)]
        )
    if chosen.neighbours_alike is not None:
        found["agreement_of_neighbours"] = chosen.neighbours_alike
    if baseline is not None and baseline is not chosen:
        found["agreement_with_source_only"] = agreement(chosen.probabilities, baseline.probabilities)
        if baseline.neighbours_alike is not None:
            found["agreement_of_neighbours_source_only"] = baseline.neighbours_alike
    return found | _estimate(found)


def _estimate(found: Mapping[str, float]) -> dict[str, float]:
    """The one that is shown: of several rounds the mean of the three agreements, else how far neighbours agree.

    Chosen over benchmark runs for its error (docs/robust.md); nothing in it is fitted.
    """
    if "agreement_of_rounds" in found:
        parts = [found[name] for name in AGREEMENTS if name in found]
        return {"estimate": sum(parts) / len(parts)}
    return {"estimate": found["agreement_of_neighbours"]} if "agreement_of_neighbours" in found else {}


def signs(
    prepared: Prepared, recipe: Recipe, legs: list[Trained], chosen: str, found: Mapping[str, float], folder: RunFolder
) -> Signs:
    """The facts that warnings are made of, all without target labels."""
    by_name = {leg.name: leg for leg in legs}
    mine = by_name[chosen].evidence
    baseline = by_name.get(BASELINE)
    rounds = [leg for leg in legs if leg.name != BASELINE]
    labels = prepared.data.source_labels
    classes = prepared.source.classes or ()
    shares = label_shift.predicted_shares(mine.probabilities)
    facts: dict[str, Any] = {
        "predicted_shares": shares,
        "source_shares": label_shift.label_shares(labels, len(classes)),
        "estimates": {name: found[name] for name in INDEPENDENT if name in found},
    }
    if (taught := by_name[chosen].pseudo_labels) is not None:
        facts["pseudo_labels"] = taught.numpy()
    if baseline:
        facts |= {"baseline": BASELINE, "baseline_shares": label_shift.predicted_shares(baseline.probabilities)}
    if len(rounds) > 1:
        last, before = rounds[-1].probabilities, rounds[-2].probabilities
        facts["round_agreement"] = agreement(last, before)
        facts["round_chance"] = label_shift.chance_agreement(
            label_shift.predicted_shares(last), label_shift.predicted_shares(before)
        )
    facts |= _discriminator(folder, chosen)
    if mine.held_out:
        confusion = label_shift.joint_confusion(*mine.held_out, soft=True)
        facts |= {
            "held_out_source": len(mine.held_out[1]),
            "source_accuracy": source_accuracy(mine),
            "estimated_shares": label_shift.bbse(
                confusion, label_shift.predicted_shares(mine.probabilities, soft=True)
            ),
        }
        if baseline and baseline.evidence.held_out:
            facts["baseline_source_accuracy"] = source_accuracy(baseline.evidence)
        if mine.trained_features is not None and mine.source_features is not None and mine.features is not None:
            rows = sample_rows(len(labels), len(mine.trained_features)).numpy()
            facts["far_share"] = far_share(mine.trained_features, labels[rows], mine.source_features, mine.features)
    return Signs(classes, len(mine.probabilities), chosen, recipe.method, **facts)


def _discriminator(folder: RunFolder, leg: str) -> dict[str, float]:
    """Mean accuracy of the leg's discriminator over the first and the last tenth of its logged steps."""
    values = (entry.get("domain_accuracy") for entry in folder.read_log() if entry["leg"] == leg)
    found = [value for value in values if isinstance(value, float)]
    if not found:
        return {}
    tenth = max(1, len(found) // 10)
    first, last = (float(np.mean(part)) for part in (found[:tenth], found[-tenth:]))
    return {"discriminator_first": first, "discriminator_last": last}


def calibrated(evidence: Evidence, temperature: float, target_labels: Any) -> dict[str, Any]:
    """Expected calibration error in [0, 1] before and after the temperature, on source and, with labels, target."""
    found: dict[str, Any] = {"temperature": round(temperature, 6)}
    parts: list[tuple[str, torch.Tensor, Any]] = []
    if evidence.held_out:
        parts.append(("held_out_source", *evidence.held_out))
    if target_labels is not None:
        parts.append(("target", evidence.probabilities, target_labels))
    for name, probabilities, labels in parts:
        found[name] = {
            when: round(calibration.expected_calibration_error(tempered, labels), 6)
            for when, tempered in (
                ("before", probabilities), ("after", calibration.with_temperature(probabilities, temperature))
            )
        }  # fmt: skip
    return found
