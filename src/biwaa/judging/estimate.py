"""Estimates of the accuracy on the target, without target labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from biwaa.functional import with_temperature
from biwaa.judging import calibration
from biwaa.judging.evidence import Evidence
from biwaa.judging.metrics import agreement, mean_confidence, neighbour_agreement
from biwaa.result import Estimate

INDEPENDENT = ("thresholded_confidence", "thresholded_entropy", "agreement_of_neighbours", "agreement_of_rounds")
"""Estimates that rest on different assumptions: where they contradict each other, none is to be trusted."""
COMBINED = (
    "source_only_by_confidence",
    "agreement_with_class_confusion",
    "agreement_of_first_neighbours",
    "agreement_of_halves",
)
"""Readings whose mean is the estimate: each is wrong for other reasons."""
WHOLE = ("agreement_with_class_confusion", "agreement_of_first_neighbours", "agreement_of_neighbours")
"""The same where the network was trained whole, and source-only beside it."""
AGREEMENTS = ("agreement_of_rounds", "agreement_with_source_only", "agreement_of_neighbours")


class Interval(NamedTuple):
    """How wide an interval is, in units of `unsure`."""

    width: float
    """Half of the 90 % interval."""
    depth: float
    """The lower bound's distance from the mean."""
    slack: float
    """Least share that may be wrong."""


INTERVAL = Interval(0.35, 0.37, 0.06)
"""Of `COMBINED`; fitted on the panel (docs/robust.md)."""
ABSENT = Interval(0.42, 0.37, 0.06)
"""Where classes were left out that the target seems to lack: the readings know nothing of that (docs/robust.md)."""


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
        baseline: source-only's evidence; that of `selected` where it is source-only itself.
        teacher: the teacher's own.
    """
    target = with_temperature(selected.probabilities, temperature)
    found = {"confidence": mean_confidence(target.double())}
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
    if baseline is not None and baseline.of_halves is not None:
        found["agreement_of_halves"] = float(baseline.of_halves)
    if baseline is not None and baseline.second_opinion is not None:
        if baseline.expected is not None:
            found["source_only_by_confidence"] = float(baseline.expected)
        here = selected.probabilities if baseline.rows is None else selected.probabilities[baseline.rows]
        if baseline.features is not None and len(baseline.features) > 1:
            found["agreement_of_first_neighbours"] = neighbour_agreement(baseline.features, here.argmax(dim=1))
        found["agreement_with_class_confusion"] = float((here.argmax(dim=1) == baseline.second_opinion).double().mean())
    if teacher is not None and teacher is not selected:
        found["agreement_with_teacher"] = agreement(selected.probabilities, teacher.probabilities)
    return found


def combined(
    found: Mapping[str, float], images: int, solved: bool, absent: bool = False, whole: bool = False
) -> Estimate:
    """One estimate of several readings; of a solved head the mean of `COMBINED`, with an interval.

    - what the loss of confidence leaves of source-only's accuracy falls where the target looks strange
    - agreement with class confusion falls where another kind of candidate sees other classes
    - agreement of neighbours falls where predictions are scattered
    - agreement of halves falls where the solution depends on which source images and which features there are

    Without the source's images: the mean of agreement with a teacher and with source-only, as far as there are any, and
    among neighbours, without an interval. Where heads are trained by steps, errors of that mean were not measured;
    there it is the mean of the three `AGREEMENTS` of several rounds, or agreement among neighbours. Where the whole
    network is trained it is the mean of `WHOLE`, if source-only was trained beside it; of source-only itself, whose
    neighbours share its mistakes, the first of these.

    Args:
        found: readings by name, as of `estimates`.
        images: of the target.
        solved: whether the head was solved for.
        absent: whether classes were left out of the adaptation.
        whole: whether the backbone was trained too.
    """
    if solved and COMBINED[0] in found:
        return mean_of(found, COMBINED, images, ABSENT if absent else INTERVAL)
    if solved:  # there are no images of the source
        return mean_of(found, ("agreement_with_teacher", *AGREEMENTS[1:]), images)
    if whole and WHOLE[0] in found:
        return mean_of(found, WHOLE if "agreement_with_source_only" in found else WHOLE[:1], images)
    return mean_of(found, AGREEMENTS if "agreement_of_rounds" in found else AGREEMENTS[-1:], images)


def mean_of(
    found: Mapping[str, float], names: Sequence[str], images: int, interval: Interval | None = None
) -> Estimate:
    """The mean of the readings called `names`, as far as they are there; null where none is.

    Args:
        found: readings by name, all of which stay beside the mean.
        names: of those that count.
        images: that they are of.
        interval: its widths; None, or a reading that is missing: no interval.
    """
    readings = {name: round(value, 6) for name, value in found.items()}
    parts = [found[name] for name in names if name in found]
    if not parts:
        return Estimate(readings=readings)
    value = sum(parts) / len(parts)
    if interval is None or len(parts) < len(names):
        return Estimate(value=round(value, 6), readings=readings)
    unit = unsure(value, max(parts) - min(parts), images, interval.slack)
    low, high = value - interval.width * unit, value + interval.width * unit
    return Estimate(
        value=round(value, 6),
        low=round(max(low, 0.0), 6),
        high=round(min(high, 1.0), 6),
        lower_bound=round(max(value - interval.depth * unit, 0.0), 6),
        readings=readings,
    )


def unsure(value: float, spread: float, images: int, slack: float) -> float:
    """The unit of an interval: larger where more is estimated to be wrong, where readings lie apart, on few images."""
    sampling = max(value * (1 - value), 0.01) / images
    return float(((1 - value + slack) ** 2 + spread**2 + sampling) ** 0.5)
