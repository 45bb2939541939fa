"""The model that a run hands out: one safetensors file that says all that prediction needs."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biwaa.domains.augment import Transform
from biwaa.errors import BiwaaError
from biwaa.models.backbone import FEATURES, build_backbone, features_backbone
from biwaa.models.network import Network, Standardise
from biwaa.tensors import load_tensors, save_tensors

FORMAT = "biwaa model 1"
FEATURES_TRANSFORM = Transform(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1)
"""Of a model that takes features: there are no images to prepare."""


@dataclass(frozen=True)
class SavedModel:
    """A network, the names of its classes and how its images are prepared."""

    network: Network
    classes: tuple[str, ...]
    transform: Transform
    backbone: str
    temperature: float = 1.0
    """Log-probabilities divided by it are calibrated on held-out images of the source; the classes stay the same."""


def save_model(path: Path, model: SavedModel) -> None:
    """Write `model` whole or not at all; classes, transform and backbone go into the metadata."""
    standardised = isinstance(model.network.standardise, Standardise)
    facts = {
        "format": FORMAT,
        "backbone": model.backbone,
        "bottleneck": getattr(model.network.bottleneck, "out_features", None),
        "standardised": standardised,
        "classes": list(model.classes),
        "transform": dataclasses.asdict(model.transform),
        "temperature": model.temperature,
    }
    save_tensors(path, model.network.state_dict(), **facts)


def load_model(run: Path) -> SavedModel:
    """The model of a run folder, or of a model.safetensors by itself, in evaluation mode.

    Raises:
        BiwaaError: there is none, or it is not a model that `save_model` wrote.
    """
    path = run / "model.safetensors" if run.is_dir() else run
    if not path.is_file():
        raise BiwaaError(f"no model in {run}: name the folder of a run that has finished at least one round.")
    state, facts = load_tensors(path)
    try:
        if facts["format"] != FORMAT:
            raise BiwaaError(f"{path} is of the format {facts['format']!r}; this version reads {FORMAT!r}.")
        transform = facts["transform"]
        transform |= {"mean": tuple(transform["mean"]), "std": tuple(transform["std"])}
        return _assemble(facts, Transform(**transform), state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BiwaaError(f"{path} is not a model that biwaa wrote ({' '.join(str(error).split())[:200]}).") from None


def _assemble(facts: dict[str, Any], transform: Transform, state: dict[str, Tensor]) -> SavedModel:
    if facts["backbone"] == FEATURES:
        backbone = features_backbone(len(state["standardise.mean"]))
    else:
        backbone = build_backbone(facts["backbone"], transform.image_size)
    network = Network(backbone.module, backbone.features, facts["bottleneck"], len(facts["classes"]))
    if facts["standardised"]:
        network.standardise = Standardise(torch.zeros(backbone.features), torch.ones(backbone.features))
    network.load_state_dict(state)
    temperature = float(facts.get("temperature", 1.0))  # models of earlier versions have none
    return SavedModel(network.eval(), tuple(facts["classes"]), transform, facts["backbone"], temperature)
