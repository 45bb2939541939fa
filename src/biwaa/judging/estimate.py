"""Estimates of the accuracy on the target, without target labels."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import with_temperature
from biwaa.judging import calibration
from biwaa.judging.evidence import Evidence
from biwaa.judging.metrics import agreement
from biwaa.result import Estimate
from biwaa.solvers import balanced_weights, fit_confusion

INDEPENDENT = ("thresholded_confidence", "thresholded_entropy", "agreement_of_neighbours", "agreement_of_rounds")
"""Estimates that rest on different assumptions: where they contradict each other, none is to be trusted."""
COMBINED = ("difference_of_confidences_of_source_only", "agreement_with_class_confusion", "agreement_of_neighbours")
"""Readings whose mean is the estimate: each is wrong for other reasons."""
AGREEMENTS = ("agreement_of_rounds", "agreement_with_source_only", "agreement_of_neighbours")
WIDTH, DEPTH = 0.4, 0.4
"""Half of the 90 % interval, and the lower bound's distance from the value, times `_unsure` (docs/robust.md)."""
SLACK = 0.02


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
    if baseline is not None:
        if baseline.held_out:
            found["difference_of_confidences_of_source_only"] = what_confidence_leaves(baseline)
        if (other := second_opinion(baseline)) is not None:
            here = selected.probabilities if baseline.rows is None else selected.probabilities[baseline.rows]
            found["agreement_with_class_confusion"] = float((here.argmax(dim=1) == other).double().mean())
    if teacher is not None and teacher is not selected:
        found["agreement_with_teacher"] = agreement(selected.probabilities, teacher.probabilities)
    return found


def what_confidence_leaves(evidence: Evidence) -> float:
    """`calibration.difference_of_confidences` at the temperature of the held-out source."""
    assert evidence.held_out is not None
    temperature = calibration.held_out_temperature(evidence)
    held_out, labels = evidence.held_out
    of = (with_temperature(part, temperature) for part in (held_out, evidence.probabilities))
    return calibration.difference_of_confidences(next(of), labels, next(of))


def second_opinion(evidence: Evidence, new: Tensor | None = None) -> Tensor | None:
    """(M,) classes of the target images `evidence.rows` by a classifier of another kind, minimum class confusion.

    It stands on the features of source-only, which know nothing of the candidate that it is compared with. None where
    no source images with their labels were kept, or only one class of them.

    Args:
        evidence: of source-only.
        new: (L, D) its features of other images: they join the target's, and the classes are theirs.
    """
    source, labels, target = evidence.trained_features, evidence.trained_labels, evidence.features
    if source is None or labels is None or target is None or int(labels.min()) == int(labels.max()) or len(target) < 2:
        return None
    classes = evidence.probabilities.shape[1]
    count = len(target if new is None else new)
    every = target if new is None else torch.cat([target.float(), new.float()])
    # New images may be few, or of few classes: the target's are their middle.
    here, there = _centred(source, len(source)), _centred(every, len(target))
    head = fit_confusion(here, labels, balanced_weights(labels, classes), there, classes)
    return F.linear(there[-count:], *head).argmax(dim=1)


def _centred(features: Tensor, of: int) -> Tensor:
    """(N, D) rows around the mean of the first `of`, of mean squared length 1."""
    found = features.float() - features[:of].float().mean(dim=0)
    return found / found.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)


def combined(found: Mapping[str, float], images: int, solved: bool) -> Estimate:
    """One estimate of several readings; of a solved head the mean of `COMBINED`, with an interval.

    - what the loss of confidence leaves of source-only's accuracy falls where the target looks strange
    - agreement with class confusion falls where another kind of candidate sees other classes
    - agreement of neighbours falls where predictions are scattered

    A teacher's agreement is one more. Without source-only or a held-out part of the source: the mean of those that are
    there, without an interval. Where heads are trained by steps, errors of that mean were not measured; there it is the
    mean of the three `AGREEMENTS` of several rounds, or agreement among neighbours.

    Args:
        found: readings by name, as of `estimates`.
        images: of the target.
        solved: whether the head was solved for.
    """
    readings = {name: round(value, 6) for name, value in found.items()}
    names = COMBINED if solved else AGREEMENTS if "agreement_of_rounds" in found else AGREEMENTS[-1:]
    parts = [found[name] for name in names if name in found]
    whole = len(parts) == len(COMBINED)
    if solved and "agreement_with_teacher" in found:
        parts.append(found["agreement_with_teacher"])
    if not parts:
        return Estimate(readings=readings)
    value = sum(parts) / len(parts)
    if not (solved and whole):
        return Estimate(value=round(value, 6), readings=readings)
    unsure = _unsure(value, max(parts) - min(parts), images)
    low, high, bound = value - WIDTH * unsure, value + WIDTH * unsure, value - DEPTH * unsure
    return Estimate(
        value=round(value, 6),
        low=round(max(low, 0.0), 6),
        high=round(min(high, 1.0), 6),
        lower_bound=round(max(bound, 0.0), 6),
        readings=readings,
    )


def _unsure(value: float, spread: float, images: int) -> float:
    """Grows with the share that is estimated to be wrong, with the readings' distance, and on few images."""
    sampling = max(value * (1 - value), 0.01) / images
    return float(((1 - value + SLACK) ** 2 + spread**2 + sampling) ** 0.5)
