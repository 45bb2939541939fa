"""The facts that warnings are made of, collected from a run's stages and its log, all without target labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biwaa.judging import label_shift
from biwaa.judging.estimate import INDEPENDENT
from biwaa.judging.evidence import Evidence, sample_rows
from biwaa.judging.label_shift import label_shares, predicted_shares
from biwaa.judging.likeness import likeness_of
from biwaa.judging.metrics import agreement
from biwaa.judging.signs import Signs, far_share
from biwaa.judging.validators import source_accuracy
from biwaa.result import SOURCE_ONLY
from biwaa.solvers.several import Standing
from biwaa.training.folder import RunFolder
from biwaa.training.prepare import Prepared
from biwaa.training.stage import Trained


def gather_signs(
    prepared: Prepared, rounds: Sequence[Trained], baseline: Evidence | None, selected: Trained,
    estimated: dict[str, float], folder: RunFolder, solved: bool,
) -> Signs:  # fmt: skip
    """The facts that warnings are made of.

    Args:
        prepared: what was trained on.
        rounds: stages that adapted, in order.
        baseline: source-only's evidence.
        selected: the stage whose model was selected.
        estimated: its accuracy by label-free estimates, by name.
        folder: of the run, for its log.
        solved: whether its head was solved for.
    """
    mine, labels = selected.evidence, prepared.data.source_labels
    source, log = prepared.domains.source, folder.read_log()
    last_two = [stage.probabilities for stage in rounds[-2:]] if len(rounds) > 1 else None
    first, last = _discriminator(log, selected.name)
    signs = Signs(
        source.classes or (), len(mine.probabilities), selected.name,
        predicted_shares=predicted_shares(mine.probabilities),
        baseline_shares=predicted_shares(baseline.probabilities) if baseline else None,
        source_shares=label_shares(labels, len(source.classes or ())) if len(labels) else None,
        round_agreement=agreement(*last_two) if last_two else None,
        round_chance=label_shift.chance_agreement(*map(predicted_shares, last_two)) if last_two else None,
        discriminator_first=first, discriminator_last=last, baseline_losses=_losses(log),
        pseudo_labels=None if selected.pseudo_labels is None else selected.pseudo_labels.numpy(),
        absent=None if selected.absent is None else selected.absent.numpy(),
        likeness=likeness_of(baseline) if baseline and solved else None,
        places=source.places, standing=None if selected.standing is None else Standing(*selected.standing),
        estimates={name: estimated[name] for name in INDEPENDENT if name in estimated},
    )  # fmt: skip
    if not mine.held_out:
        return signs
    confusion = label_shift.joint_confusion(*mine.held_out, soft=True)
    beside = baseline if baseline and baseline.held_out else None
    return replace(
        signs, held_out_source=len(mine.held_out[1]), source_accuracy=source_accuracy(mine), solved=solved,
        # A solved head follows the target: on sketch > photo it is right on 31 % of the source and 71 % of the target.
        baseline_source_accuracy=source_accuracy(beside) if beside and not solved else None,
        learned=source_accuracy(beside or mine),
        estimated_shares=label_shift.bbse(confusion, predicted_shares(mine.probabilities, soft=True)),
        far_share=_far_share(mine, labels),
    )  # fmt: skip


def _far_share(mine: Evidence, labels: NDArray[np.int64]) -> float | None:
    """As of `judging.signs`; None where features were not kept."""
    if mine.trained_features is None or mine.source_features is None or mine.features is None:
        return None
    rows = sample_rows(len(labels), len(mine.trained_features)).numpy()
    return far_share(mine.trained_features, labels[rows], mine.source_features, mine.features)


def _losses(log: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Source-only's mean loss over the last but one fifth of its logged steps, and over the last."""
    found = [float(entry["classification"]) for entry in log if entry["stage"] == SOURCE_ONLY]
    fifth = max(1, len(found) // 5)
    return (float(np.mean(found[-2 * fifth : -fifth])), float(np.mean(found[-fifth:]))) if len(found) > 1 else None


def _discriminator(log: Sequence[Mapping[str, Any]], stage: str) -> tuple[float | None, float | None]:
    """Mean accuracy of the stage's discriminator over the first and the last tenth of its logged steps."""
    values = (entry.get("domain_accuracy") for entry in log if entry["stage"] == stage)
    found = [value for value in values if isinstance(value, float)]
    tenth = max(1, len(found) // 10)
    return (float(np.mean(found[:tenth])), float(np.mean(found[-tenth:]))) if found else (None, None)
