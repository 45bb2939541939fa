"""Estimates of the accuracy on the target, without target labels."""

from collections.abc import Mapping, Sequence

from biwaa.functional import with_temperature
from biwaa.judging import calibration
from biwaa.judging.evidence import Evidence
from biwaa.judging.metrics import agreement

INDEPENDENT = ("thresholded_confidence", "thresholded_entropy", "agreement_of_neighbours", "agreement_of_rounds")
"""Estimates that rest on different assumptions: where they contradict each other, none is to be trusted."""
AGREEMENTS = ("agreement_of_rounds", "agreement_with_source_only", "agreement_of_neighbours")


def estimates(
    selected: Evidence, others: Sequence[Evidence], temperature: float, baseline: Evidence | None = None
) -> dict[str, float]:
    """Label-free estimates of the accuracy on the target, in [0, 1], by name; `estimate` is the one that is shown.

    Args:
        selected: the model's evidence.
        others: those of the other rounds; source-only is not among them.
        temperature: of the model.
        baseline: source-only's evidence.
    """
    target = with_temperature(selected.probabilities, temperature)
    found = {"confidence": calibration.average_confidence(target)}
    if selected.held_out:
        held_out, labels = selected.held_out
        source = with_temperature(held_out, temperature)
        found["difference_of_confidences"] = calibration.difference_of_confidences(source, labels, target)
        found["thresholded_confidence"] = calibration.average_thresholded_confidence(source, labels, target)
        found["thresholded_entropy"] = calibration.average_thresholded_confidence(source, labels, target, "entropy")
    if others:
        found["agreement_of_rounds"] = calibration.mean_agreement(
            [selected.probabilities, *(other.probabilities for other in others)]
        )
    if selected.neighbour_agreement is not None:
        found["agreement_of_neighbours"] = selected.neighbour_agreement
    if baseline is not None and baseline is not selected:
        found["agreement_with_source_only"] = agreement(selected.probabilities, baseline.probabilities)
        if baseline.neighbour_agreement is not None:
            found["agreement_of_neighbours_source_only"] = baseline.neighbour_agreement
    return found | _estimate(found)


def _estimate(found: Mapping[str, float]) -> dict[str, float]:
    """Of several rounds the mean of the three agreements, else how far neighbours agree.

    Chosen over benchmark runs for its error (docs/robust.md); nothing in it is fitted.
    """
    if "agreement_of_rounds" in found:
        parts = [found[name] for name in AGREEMENTS if name in found]
        return {"estimate": sum(parts) / len(parts)}
    return {"estimate": found["agreement_of_neighbours"]} if "agreement_of_neighbours" in found else {}
