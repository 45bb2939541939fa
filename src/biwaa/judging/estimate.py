"""Estimates of the accuracy on the target, without target labels."""

from collections.abc import Mapping, Sequence

from biwaa.functional import with_temperature
from biwaa.judging import calibration
from biwaa.judging.evidence import Evidence
from biwaa.judging.metrics import agreement
from biwaa.result import Estimate

INDEPENDENT = ("thresholded_confidence", "thresholded_entropy", "agreement_of_neighbours", "agreement_of_rounds")
"""Estimates that rest on different assumptions: where they contradict each other, none is to be trusted."""
MARGIN, SURE_MARGIN = 0.08, 0.10
"""Beyond the two agreements: of the 90 % interval, and of the lower bound."""
AGREEMENTS = ("agreement_of_rounds", "agreement_with_source_only", "agreement_of_neighbours")


def estimates(
    selected: Evidence,
    others: Sequence[Evidence],
    temperature: float,
    baseline: Evidence | None = None,
    teacher: Evidence | None = None,
) -> dict[str, float]:
    """Label-free estimates of the accuracy on the target, in [0, 1], by name.

    Args:
        selected: the model's evidence.
        others: those of the other rounds; source-only is not among them.
        temperature: of the model.
        baseline: source-only's evidence.
        teacher: the teacher's own.
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
    if teacher is not None and teacher is not selected:
        found["agreement_with_teacher"] = agreement(selected.probabilities, teacher.probabilities)
    return found


def combined(found: Mapping[str, float], solved: bool, alone: bool) -> Estimate:
    """One estimate of several readings, with an interval where its errors were measured.

    Of several rounds: the mean of the three agreements. Of a head that was solved for: the middle between agreement
    with source-only, which falls where adaptation goes well, and agreement among neighbours, which is high even where
    it goes wrong; the interval runs from the lower to the higher of the two and `MARGIN` beyond (docs/robust.md). Where
    there is no source, agreement with the teacher stands in the place of that with source-only, without an interval.
    Otherwise: agreement among neighbours.

    Args:
        found: readings by name, as of `estimates`.
        solved: whether the head was solved for.
        alone: source-only itself was selected: it agrees with itself.
    """
    readings = {name: round(value, 6) for name, value in found.items()}
    near = found.get("agreement_of_neighbours")
    same = 1.0 if alone else found.get("agreement_with_source_only")
    taught = found.get("agreement_with_teacher")
    if solved and near is not None and same is None and taught is not None:
        return Estimate(value=round((near + taught) / 2, 6), readings=readings)
    if solved and near is not None and same is not None:
        low, high = min(near, same), max(near, same)
        return Estimate(
            value=round((near + same) / 2, 6),
            low=round(max(low - MARGIN, 0.0), 6),
            high=round(min(high + MARGIN, 1.0), 6),
            lower_bound=round(max(low - SURE_MARGIN, 0.0), 6),
            readings=readings,
        )
    if "agreement_of_rounds" in found:
        parts = [found[name] for name in AGREEMENTS if name in found]
        return Estimate(value=round(sum(parts) / len(parts), 6), readings=readings)
    return Estimate(value=None if near is None else round(near, 6), readings=readings)
