"""Which of a run's stages is selected, without target labels.

Source-only and every round are candidates; of equals the earlier wins, so source-only before all others.
"""

from collections.abc import Mapping

from biwaa.errors import BiwaaError
from biwaa.judging.evidence import Evidence
from biwaa.judging.validators import VALIDATORS, scores
from biwaa.result import LAST


def check_choice(how: str) -> None:
    """Refuse a way of choosing that does not exist.

    Raises:
        BiwaaError: `how` is neither last nor a validator.
    """
    if how != LAST and how not in VALIDATORS:
        raise BiwaaError(f"no choice {how!r}: it is {LAST}, or one of {', '.join(VALIDATORS)}.")


def choose(pool: Mapping[str, Evidence], how: str) -> str:
    """The name of the candidate to select.

    Args:
        pool: evidence by name, source-only first where there is one, the last round last.
        how: last, or a validator's name.

    Raises:
        BiwaaError: no such way, or the evidence that it needs is missing.
    """
    check_choice(how)
    names = list(pool)
    if how == LAST:
        return names[-1]
    found = scores([pool[name] for name in names], only=how)[how]
    known = {name: score for name, score in zip(names, found, strict=True) if score is not None}
    if not known:
        raise BiwaaError(
            f"--choice {how} needs held-out source images, and this run has none: set --source-held-out above 0."
        )
    return max(known, key=lambda name: known[name])
