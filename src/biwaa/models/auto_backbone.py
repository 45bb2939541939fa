"""What `--backbone auto` stands for: the first backbone of a short list whose weights can be loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm

from biwaa.models.weight_files import hub_file, packaged_file

AUTO = "auto"


@dataclass(frozen=True)
class Candidate:
    """A backbone that `auto` may stand for."""

    name: str
    """timm's, with the tag of its weights."""
    image_size: int | None = None
    """Pixels a side; None for the backbone's own."""


DINOV2 = Candidate("vit_small_patch14_dinov2.lvd142m", 224)
"""Its own 518 pixels a side cost over five times as many tokens (Oquab et al., TMLR 2024)."""
EFFICIENTNET = Candidate("tf_efficientnet_lite0")
FROZEN = (DINOV2, EFFICIENTNET)
"""For a frozen backbone, the best first. docs/backbones.md has sizes, licences and reasons."""
TRAINED = (Candidate("resnet50"), EFFICIENTNET)
"""For one that is trained end to end."""


@dataclass(frozen=True)
class Choice:
    """What `auto` stands for on this machine, and why."""

    candidate: Candidate
    reason: str


def best_backbone(candidates: Sequence[Candidate]) -> Choice:
    """The first candidate whose weights can be loaded; they are fetched, so that they can be loaded later too.

    Args:
        candidates: the best first.

    Returns:
        The last one, where no weights can be loaded: whoever loads them says what to do.
    """
    missing: list[str] = []
    for candidate in candidates:
        if where := _weights_of(candidate.name):
            rest = f" (those of {' and '.join(missing)} cannot be loaded here)" if missing else ""
            return Choice(candidate, f"{where}{rest}")
        missing.append(candidate.name)
    return Choice(candidates[-1], "since no weights of a better one can be loaded here")


def _weights_of(name: str) -> str:
    """Where a backbone's weights are, in words; empty where they cannot be loaded."""
    if packaged_file(name):
        return "whose weights are installed"
    config: Any = timm.get_pretrained_cfg(name)
    try:
        hub_file(config)
    except Exception:  # the hub's client raises many kinds; each means that there are no weights
        return ""
    return "whose weights come from the hub"
