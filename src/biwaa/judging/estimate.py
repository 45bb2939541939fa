"""Estimates of the accuracy on the target, without target labels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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
"""Readings that are pooled into the estimate: each is wrong for other reasons."""
WHOLE = ("agreement_with_class_confusion", "agreement_of_first_neighbours", "agreement_of_neighbours")
"""The same where the network was trained whole, and source-only beside it."""
AGREEMENTS = ("agreement_of_rounds", "agreement_with_source_only", "agreement_of_neighbours")


SHIFT, STRETCH = -0.2, 1.1
"""Of the mean log-odds. Readings that err lie too near to the middle on average (Satopää et al., Int. J. Forecasting
2014), and these a little too high; both were fitted on the panel (docs/robust.md)."""
SURE = 0.98
"""Readings beyond it, or below 1 less it, count as this."""
WIDTH = 0.35
"""Half of the 90 % interval in units of `unsure`; fitted on the panel (docs/robust.md)."""
WIDTH_ABSENT = 0.42
"""Where classes were left out that the target seems to lack: the readings know nothing of that (docs/robust.md)."""
SLACK = 0.06
"""Least share that may be wrong, in `unsure`."""


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
    """One estimate of several readings; of a solved head `COMBINED` are pooled, with an interval.

    - what the loss of confidence leaves of source-only's accuracy falls where the target looks strange
    - agreement with class confusion falls where another kind of candidate sees other classes
    - agreement of neighbours falls where predictions are scattered
    - agreement of halves falls where the solution depends on which source images and which features there are

    Without the source's images agreement with a teacher and with source-only, as far as there are any, and among
    neighbours are pooled, without an interval. Where heads are trained by steps it is the mean of the three
    `AGREEMENTS` of several rounds, or agreement among neighbours, whose errors were not measured. Where the whole
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
        return pooled(found, COMBINED, images, WIDTH_ABSENT if absent else WIDTH)
    if solved:  # there are no images of the source
        return pooled(found, ("agreement_with_teacher", *AGREEMENTS[1:]), images, width=None)
    if whole and WHOLE[0] in found:
        return mean_of(found, WHOLE if "agreement_with_source_only" in found else WHOLE[:1])
    return mean_of(found, AGREEMENTS if "agreement_of_rounds" in found else AGREEMENTS[-1:])


def mean_of(found: Mapping[str, float], names: Sequence[str]) -> Estimate:
    """The mean of the readings called `names`, as far as they are there; null where none is. There is no interval.

    Args:
        found: readings by name, all of which stay beside the mean.
        names: of those that count.
    """
    parts = [found[name] for name in names if name in found]
    return Estimate(value=round(sum(parts) / len(parts), 6) if parts else None, readings=_rounded(found))


def mean_log_odds(readings: Tensor) -> Tensor:
    """(...) of (..., R) readings, which count as `SURE` at most."""
    return readings.logit(eps=1 - SURE).mean(dim=-1)


def pool(readings: Tensor) -> Tensor:
    """(...) accuracies of (..., R) readings: the mean of their log-odds, stretched and shifted."""
    return (SHIFT + STRETCH * mean_log_odds(readings)).sigmoid()


def pooled(found: Mapping[str, float], names: Sequence[str], images: int, width: float | None = WIDTH) -> Estimate:
    """The readings called `names` pooled, as far as they are there; null where none is.

    Args:
        found: readings by name, all of which stay beside the estimate.
        names: of those that count.
        images: that they are of.
        width: half of the 90 % interval, in units of `unsure`; its lower end is the lower bound. None, or a reading
            that is missing: no interval.
    """
    parts = [found[name] for name in names if name in found]
    if not parts:
        return Estimate(readings=_rounded(found))
    value = float(pool(torch.tensor(parts, dtype=torch.float64)))
    if width is None or len(parts) < len(names):
        return Estimate(value=round(value, 6), readings=_rounded(found))
    apart = width * unsure(value, max(parts) - min(parts), images)
    low, high = round(max(value - apart, 0.0), 6), round(min(value + apart, 1.0), 6)
    return Estimate(value=round(value, 6), low=low, high=high, lower_bound=low, readings=_rounded(found))


def _rounded(found: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in found.items()}


def unsure(value: float, spread: float, images: int) -> float:
    """The unit of an interval: larger where more is estimated to be wrong, where readings lie apart, on few images."""
    sampling = max(value * (1 - value), 0.01) / images
    return float(((1 - value + SLACK) ** 2 + spread**2 + sampling) ** 0.5)
