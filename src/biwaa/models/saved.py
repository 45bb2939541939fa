"""The model that a run hands out: one safetensors file that says all that prediction needs."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from biwaa.domains.augment import Transform
from biwaa.errors import BiwaaError
from biwaa.files import replacing
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Network, Standardise

FORMAT = "biwaa model 1"


@dataclass(frozen=True)
class SavedModel:
    """A network, the names of its classes and how its images are prepared."""

    network: Network
    classes: tuple[str, ...]
    transform: Transform
    backbone: str


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
    }
    # Clones: safetensors refuses tensors that share memory or stride unusually.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.network.state_dict().items()}
    with replacing(path) as draft:
        save_file(state, draft, metadata={"biwaa": json.dumps(facts)})


def load_model(run: Path) -> SavedModel:
    """The model of a run folder, or of a model.safetensors by itself, in evaluation mode.

    Raises:
        BiwaaError: there is none, or it is not a model that `save_model` wrote.
    """
    path = run / "model.safetensors" if run.is_dir() else run
    if not path.is_file():
        raise BiwaaError(f"no model in {run}: name the folder of a run that has finished at least one round.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})["biwaa"])
        if facts["format"] != FORMAT:
            raise BiwaaError(f"{path} is of the format {facts['format']!r}; this version reads {FORMAT!r}.")
        transform = facts["transform"]
        transform |= {"mean": tuple(transform["mean"]), "std": tuple(transform["std"])}
        state: dict[str, Tensor] = load_file(path)
        return _assemble(facts, Transform(**transform), state)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise BiwaaError(f"{path} is not a model that biwaa wrote ({' '.join(str(error).split())[:200]}).") from None


def _assemble(facts: dict[str, Any], transform: Transform, state: dict[str, Tensor]) -> SavedModel:
    backbone = build_backbone(facts["backbone"], transform.image_size)
    network = Network(backbone.module, backbone.features, facts["bottleneck"], len(facts["classes"]))
    if facts["standardised"]:
        network.standardise = Standardise(torch.zeros(backbone.features), torch.ones(backbone.features))
    network.load_state_dict(state)
    return SavedModel(network.eval(), tuple(facts["classes"]), transform, facts["backbone"])
