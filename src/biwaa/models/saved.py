"""A run's model: one safetensors file with all that prediction needs."""

import copy
import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from biwaa.domains.labels import UNKNOWN, LabelKind, as_given
from biwaa.errors import BiwaaError, one_line
from biwaa.files import local
from biwaa.images.augment import Transform
from biwaa.models.backbone import FEATURES, Backbone, build_backbone, features_backbone
from biwaa.models.network import Network, Standardise
from biwaa.models.place import Place
from biwaa.solvers.logistic import Head
from biwaa.solvers.remembered import Memory, Remembered, check_memory
from biwaa.tensors import load_tensors, save_tensors, taken

FORMAT = "biwaa model 1"
DomainName = Literal["target", "source"]
PLACE, SOURCE, KNOWN, PLAIN = "place.", "source.", "known.", "plain."
"""How tensors beside the network's begin: statistics of the target, the source's standardisation, statistics of the
source, and source-only's head."""
MOST_PIXELS = 4096  # Most pixels a side of a model's images


@dataclass(frozen=True)
class _Facts:
    """The metadata of a model's file."""

    backbone: str
    bottleneck: int | None
    standardised: bool
    classes: tuple[str, ...]
    transform: Transform
    temperature: float = 1.0  # models of earlier versions have none
    label_kind: LabelKind = "text"  # likewise


FEATURES_TRANSFORM = Transform(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1)
"""For a model of features: there are no images to prepare."""


@dataclass(frozen=True)
class SavedModel:
    """A network, the names of its classes, and the preparation of its images."""

    network: Network
    classes: tuple[str, ...]
    transform: Transform
    backbone: str
    temperature: float = 1.0
    """Log-probabilities are divided by it: this calibrates confidences, by the source's held-out images."""
    place: Place | None = None
    """How the target's images look, to tell others from them."""
    source: Standardise | None = None
    """The source's standardisation, where the head was trained on both domains, each by its own."""
    memory: Memory | None = None
    """What stands for the source's images in a run that has this model for a source."""
    label_kind: LabelKind = "text"
    """What the source's labels were before their classes had names; from Python predictions are of this type."""

    def for_domain(self, domain: DomainName) -> "SavedModel":
        """The model for images of the target, or of the source.

        Raises:
            BiwaaError: it has no form of its own for the source.
        """
        if domain == "target":
            return self
        if self.source is None:
            raise BiwaaError(
                "the model has one form for all domains, had several sources, or was adapted to the target alone: "
                "leave --domain source out (only a frozen backbone's features are standardised for each domain)."
            )
        network = copy.deepcopy(self.network)
        network.standardise = self.source
        return replace(self, network=network, place=None)


def save_model(path: Path, model: SavedModel) -> None:
    """Write `model`, completely or not at all; classes, transform and backbone are in the metadata."""
    facts = _Facts(
        model.backbone,
        getattr(model.network.bottleneck, "out_features", None),
        isinstance(model.network.standardise, Standardise),
        model.classes,
        model.transform,
        model.temperature,
        model.label_kind,
    )
    beside = {f"{PLACE}{name}": part for name, part in vars(model.place).items()} if model.place else {}
    if model.source:
        beside |= {f"{SOURCE}{name}": part for name, part in model.source.state_dict().items()}
    if model.memory and model.memory.statistics:
        beside |= {f"{KNOWN}{name}": part for name, part in model.memory.statistics._asdict().items()}
        head = model.memory.head
        beside |= {f"{PLAIN}{name}": part for name, part in head._asdict().items() if part is not None} if head else {}
    save_tensors(path, model.network.state_dict() | beside, format=FORMAT, **dataclasses.asdict(facts))


def load_model(run: Path) -> SavedModel:
    """The model of a run folder, or of a model.safetensors alone, in evaluation mode.

    Raises:
        BiwaaError: there is none, or `save_model` did not write it.
    """
    run = local(run)
    path = run / "model.safetensors" if run.is_dir() else run
    if not path.is_file():
        raise BiwaaError(f"no model in {run}: name the folder of a run that has finished at least one round.")
    state, facts = load_tensors(path)
    try:
        if facts["format"] != FORMAT:
            raise BiwaaError(f"{path} is of the format {facts['format']!r}; this version reads {FORMAT!r}.")
        return _assemble(msgspec.convert(facts, _Facts), state)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise BiwaaError(f"{path} is not a model that biwaa wrote ({one_line(error)}).") from None


def _assemble(facts: _Facts, state: dict[str, Tensor]) -> SavedModel:
    beside, source, known, plain = (taken(state, prefix) for prefix in (PLACE, SOURCE, KNOWN, PLAIN))
    # Sizes are compared with the tensors before anything is built: false sizes must not cost memory.
    classes, width = len(facts.classes), facts.bottleneck
    if state["classifier.bias"].shape != (classes,) or len(set(facts.classes)) != classes or classes < 2:
        raise ValueError(f"its {classes} classes do not fit its classifier")
    if width is not None and state["bottleneck.bias"].shape != (width,):
        raise ValueError(f"its bottleneck is not of width {width}")
    size, resize = facts.transform.image_size, facts.transform.resize
    if not 1 <= size <= resize <= MOST_PIXELS or facts.transform.crops not in (1, 10) or not facts.temperature > 0:
        raise ValueError("its transform or temperature is out of range")
    if facts.backbone == FEATURES:
        backbone = features_backbone(len(state["standardise.mean"]))
    else:
        backbone = _built(facts.backbone, size)
    network = Network(backbone.module, backbone.features, width, classes)
    if facts.standardised:
        network.standardise = Standardise(torch.zeros(backbone.features), torch.ones(backbone.features))
    network.load_state_dict(state)
    place = Place(**beside) if beside else None
    if place:
        place.check(classes)
    own = Standardise(torch.zeros(backbone.features), torch.ones(backbone.features)) if source else None
    if own:
        own.load_state_dict(source)
    head = Head(plain.get("projection"), plain["weight"], plain["bias"]) if plain else None
    memory = Memory(Remembered(**known), head) if known else None
    if memory and memory.statistics:
        # The source of a model that labels images `unknown` has no such class.
        lacks = len(memory.statistics.counts) == classes - 1 and facts.classes[-1] == UNKNOWN
        check_memory(memory, backbone.features, classes - lacks)
    if facts.label_kind == "integer":
        as_given(facts.classes, facts.label_kind)  # raises ValueError where they are no numbers
    return SavedModel(
        network.eval(),
        facts.classes,
        facts.transform,
        facts.backbone,
        facts.temperature,
        place,
        own,
        memory,
        facts.label_kind,
    )


def _built(name: str, size: int) -> Backbone:
    try:
        return build_backbone(name, size)
    except BiwaaError as error:
        raise BiwaaError(f"{error} If a plug-in registers it, name its file with --plugin.") from None
