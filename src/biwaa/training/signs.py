"""The facts that warnings are made of, collected from a run's stages and its log, all without target labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
    classes = prepared.domains.source.classes or ()
    facts: dict[str, Any] = {
        "predicted_shares": predicted_shares(mine.probabilities),
        "source_shares": label_shares(labels, len(classes)) if len(labels) else None,
        "estimates": {name: estimated[name] for name in INDEPENDENT if name in estimated},
    }
    if selected.pseudo_labels is not None:
        facts["pseudo_labels"] = selected.pseudo_labels.numpy()
    if selected.absent is not None:
        facts["absent"] = selected.absent.numpy()
    if baseline:
        facts["baseline_shares"] = predicted_shares(baseline.probabilities)
        if solved:
            facts["likeness"] = likeness_of(baseline)
    if len(rounds) > 1:
        last, before = rounds[-1].probabilities, rounds[-2].probabilities
        facts["round_agreement"] = agreement(last, before)
        facts["round_chance"] = label_shift.chance_agreement(predicted_shares(last), predicted_shares(before))
    if selected.standing is not None:
        facts["standing"] = Standing(*selected.standing)
        facts["places"] = prepared.domains.source.places
    log = folder.read_log()
    facts |= _discriminator(log, selected.name) | _losses(log)
    if mine.held_out:
        confusion = label_shift.joint_confusion(*mine.held_out, soft=True)
        facts["held_out_source"] = len(mine.held_out[1])
        facts["source_accuracy"] = source_accuracy(mine)
        facts["learned"] = source_accuracy(baseline if baseline and baseline.held_out else mine)
        facts["estimated_shares"] = label_shift.bbse(confusion, predicted_shares(mine.probabilities, soft=True))
        # A solved head follows the target: on sketch > photo it is right on 31 % of the source and 71 % of the target.
        if baseline and baseline.held_out and not solved:
            facts["baseline_source_accuracy"] = source_accuracy(baseline)
        if mine.trained_features is not None and mine.source_features is not None and mine.features is not None:
            rows = sample_rows(len(labels), len(mine.trained_features)).numpy()
            facts["far_share"] = far_share(mine.trained_features, labels[rows], mine.source_features, mine.features)
    return Signs(classes, len(mine.probabilities), selected.name, **facts)


def _losses(log: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Source-only's mean loss over the last but one fifth of its logged steps, and over the last."""
    found = [float(entry["classification"]) for entry in log if entry["stage"] == SOURCE_ONLY]
    if len(found) < 2:
        return {}
    fifth = max(1, len(found) // 5)
    return {"baseline_losses": (float(np.mean(found[-2 * fifth : -fifth])), float(np.mean(found[-fifth:])))}


def _discriminator(log: Sequence[Mapping[str, Any]], stage: str) -> dict[str, float]:
    """Mean accuracy of the stage's discriminator over the first and the last tenth of its logged steps."""
    values = (entry.get("domain_accuracy") for entry in log if entry["stage"] == stage)
    found = [value for value in values if isinstance(value, float)]
    if not found:
        return {}
    tenth = max(1, len(found) // 10)
    first, last = (float(np.mean(part)) for part in (found[:tenth], found[-tenth:]))
    return {"discriminator_first": first, "discriminator_last": last}
