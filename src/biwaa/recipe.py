"""Every setting once: its default, its meaning, where it comes from; and the named recipes.

- the defaults are the recipe `paper`: WACV 2023 and the published implementation's defaults
- `robust` is what `biwaa train` uses unless told otherwise: chosen by ablation (docs/robust.md)
- a recipe is a name or a YAML file of some of these keys; the rest keep their defaults
- command-line flags win over the recipe; the run folder keeps the resolved whole as recipe.yaml
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from biwaa.errors import BiwaaError, listed

MOST_STEPS = 10_000_000
"""Of a leg: the generators of its steps are seeded this far apart from the next leg's."""

MACHINE = ("device", "log_every", "checkpoint_every")
"""Settings that change no figure: they may differ when a run or a bench goes on."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run."""

    # What is trained
    method: str = "biwaa"
    """How the domains are adapted: biwaa, one of its rivals, or source_only."""
    backbone: str = "resnet50"
    """Any timm model, or alexnet, lenet, dtn, cnn."""
    weights: str = "auto"
    """Backbone's start: auto (the hub, then installed packages), none (random), or a state dict's file."""
    freeze_backbone: bool = False
    """Compute the backbone's features once and train only what stands on them."""
    statistics: Literal["domain", "source", "coral"] = "domain"
    """Frozen features are standardised by each domain's own mean and deviation (coral: and the source's re-coloured to
    the target's covariance), or all by the source's."""
    batch_norm: Literal["shared", "target"] = "shared"
    """Whose batches make BatchNorm's running averages, by which predictions are normalised: both domains' or the
    target's."""
    bottleneck: int = 256
    """Width D of the features that classifier and discriminator share."""
    discriminator: int = 1024
    """Width of the discriminator's two hidden layers."""
    dropout: float = 0.5
    """Dropout in the discriminator's hidden layers."""
    input_dropout: float = 0.0
    """Dropout on the backbone's features, before the bottleneck."""

    # What it sees
    image_size: int | None = None
    """Pixels a side that the backbone sees; unset: the backbone's own (224 for most)."""
    resize: int | None = None
    """Pixels a side that images are stored at before cropping; unset: image size x 8/7 (256 for 224)."""
    augment: Literal["crop_flip", "crop", "none"] = "crop_flip"
    """Random resized crop and horizontal flip, the crop alone, or the centre crop as it is."""
    crop_area: float = 0.08
    """Least share of the image that a random crop covers."""
    crops: Literal[1, 10] = 10
    """Views a prediction averages: the centre, or four corners and centre, each also flipped."""
    batch_size: int = 36
    """Images of each domain in a step."""
    class_balanced: bool = True
    """Sample the source, and from the second round the target by its predictions, evenly over classes."""
    source_held_out: float = 0.0
    """Share of each class of the source that is kept from training, to choose and to calibrate by."""

    # A label shift made on purpose, to study it
    source_shift: str = "none"
    """Subsample the source to long-tail:RATIO, reversed:RATIO or dirichlet:ALPHA[:SEED] over the classes."""
    target_shift: str = "none"
    """The same for the target, by its labels: for experiments, since who has no labels has no such choice."""

    # How long and how fast
    rounds: int = 10
    """Trainings from afresh, each with the averaged predictions of those before it."""
    steps: int = 5004
    """Steps a round."""
    iterate: bool = True
    """Later rounds see what earlier ones predicted, in sampling the target and in pseudo-labels; off: independent."""
    scouts: int = 1
    """The first rounds that see nothing of each other; those after them learn from what all before predicted."""
    teacher: bool = False
    """Draw earlier rounds' average over neighbours and to an evener label distribution before it teaches."""
    neighbours: int = 10
    """Nearest neighbours of a target image that the teacher asks; fewer where the target is small."""
    distribution_damping: float = 0.75
    """The teacher's label distribution: 1 as predicted, 0 even over classes."""
    choice: str = "last"
    """Which model is handed out: the last round's, or the one that a label-free score puts first."""
    baseline: bool = True
    """First train source-only with the same settings, to stand beside the adapted model."""
    learning_rate: float = 1e-3
    """Initial rate of the backbone (the reference takes 3e-4 for Office-31 A>D and D>W)."""
    head_factor: float = 10.0
    """Bottleneck, classifier and discriminator learn this much faster."""
    momentum: float = 0.9
    """Nesterov momentum."""
    weight_decay: float = 1e-3
    """L2 penalty on all parameters."""
    decay_rate: float = 1e-3
    """Learning rate at step i is initial x (1 + decay_rate i)^-decay_power."""
    decay_power: float = 0.75
    """See decay_rate."""

    # BIWAA
    adversarial: float = 1.0
    """Factor on the discriminator's loss; 0 leaves the discriminator out."""
    weighting: bool = True
    """Show the discriminator features weighted by the classifier's gradient (section 3.1)."""
    weight_scale: float = 10.0
    """Length of each feature weight vector."""
    alignment: float = 1.0
    """Factor on the semantic alignment loss (section 3.2); 0 leaves it out."""
    separation: float = 1.0
    """Factor on the source separation loss (section 3.2); 0 leaves it out."""
    unit_centroids: bool = False
    """Centroids of features at unit length, so that no distance between them can grow beyond bounds."""
    adversarial_horizon: float = 20000.0
    """Steps over which gradient reversal and alignment ramp up; with 5004 steps both end near 0.85."""
    centroid_rate: float = 0.3
    """Share of a batch's mean in its class centroid."""
    memory_rate: float = 0.9
    """Share of the newest prediction in the label memory."""
    bootstrap_horizon: float = 500.0
    """Steps over which later rounds pass from earlier rounds' predictions to the label memory."""
    round_update: float = 0.2
    """A round's predictions lose this share of their weight with each later round."""
    previous_rounds_scale: float = 1.0
    """Factor on earlier rounds' predictions in pseudo-labels; 10 restores the reference's sum over ten crops."""
    confusion: float = 0.0
    """Factor on the target's class confusion (Jin et al., ECCV 2020, "MCC"); 0 leaves it out."""
    confusion_temperature: float = 2.5
    """Rescales the logits before their confusion is measured, here and in the method mcc."""
    pseudo_label: float = 0.0
    """Factor on the cross-entropy of the target on earlier rounds' labels, each by its squared reliability."""

    # The machine
    seed: int = 42
    """Round r draws from seed + 100 r."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    devices: int = 1
    """Devices on each machine, each a process with its part of every batch."""
    num_nodes: int = 1
    """Machines, each started with the same command by torchrun or SLURM."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the forward and backward passes."""
    compile: bool = False
    """Train through torch.compile where it works; figures then differ from eager ones in their last digits."""
    log_every: int = 50
    """Steps between lines of log.jsonl."""
    checkpoint_every: int | str = 500
    """Steps, or minutes as in 10m, between checkpoints inside a round; the end of a round is always kept."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        positive = (
            "bottleneck", "discriminator", "batch_size", "rounds", "scouts", "neighbours", "steps", "log_every",
            "devices", "num_nodes",
        )  # fmt: skip
        for name in positive:
            if getattr(self, name) < 1:
                raise BiwaaError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("image_size", "resize"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BiwaaError(f"{name} must be at least 1 pixel, not {getattr(self, name)}.")
        for name in ("weight_decay", "decay_rate", "decay_power", "adversarial", "confusion", "pseudo_label"):
            if not getattr(self, name) >= 0:
                raise BiwaaError(f"{name} must not be below 0, it is {getattr(self, name)}.")
        self.checkpoint_interval()
        if self.steps > MOST_STEPS:
            raise BiwaaError(f"steps must be at most {MOST_STEPS}, not {self.steps}.")
        if self.batch_size < 2:
            raise BiwaaError("batch_size must be at least 2: one image has no batch statistics.")
        ranks = self.devices * self.num_nodes
        if self.batch_size % ranks:
            near = max(self.batch_size - self.batch_size % ranks, ranks)
            raise BiwaaError(
                f"a batch of {self.batch_size} cannot be divided over {ranks} processes: set --batch-size {near}."
            )
        if not 0 <= self.seed < 2**31:
            raise BiwaaError(f"seed must lie between 0 and 2^31, not {self.seed}.")
        for name in ("input_dropout", "source_held_out"):
            if not 0 <= getattr(self, name) <= 0.9:
                raise BiwaaError(f"{name} must lie between 0 and 0.9, not {getattr(self, name)}.")
        above = ("learning_rate", "adversarial_horizon", "bootstrap_horizon", "head_factor", "confusion_temperature")
        for name in above:
            if not getattr(self, name) > 0:
                raise BiwaaError(f"{name} must be above 0, not {getattr(self, name)}.")
        shares = ("dropout", "centroid_rate", "memory_rate", "round_update", "momentum", "distribution_damping")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise BiwaaError(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")
        if not 0 < self.crop_area <= 1:
            raise BiwaaError(f"crop_area must lie above 0 and not above 1, not {self.crop_area}.")
        if self.image_size and self.resize and self.resize < self.image_size:
            raise BiwaaError(f"resize ({self.resize}) must not be smaller than image_size ({self.image_size}).")

    def checkpoint_interval(self) -> tuple[float, float]:
        """Steps and seconds between checkpoints; one of the two is infinite.

        Raises:
            BiwaaError: checkpoint_every is neither a number of steps nor of minutes.
        """
        text = str(self.checkpoint_every)
        minutes = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)m", text)
        if minutes and float(minutes[1]) > 0:
            return math.inf, 60 * float(minutes[1])
        if re.fullmatch(r"\d{1,15}", text) and int(text) > 0:
            return int(text), math.inf
        raise BiwaaError(f"checkpoint_every must be a number of steps or minutes as in 10m, not {text!r}.")


_ROBUST: dict[str, Any] = {
    "learning_rate": 3e-4,
    "batch_size": 72,
    "rounds": 5,
    "steps": 300,
    "scouts": 4,
    "teacher": True,
    "round_update": 0.0,
    "choice": "nuclear_norm",
    "source_held_out": 0.1,
    "input_dropout": 0.5,
    "adversarial": 0.0,
    "alignment": 0.0,
    "separation": 0.0,
    "confusion": 1.0,
    "confusion_temperature": 4.0,
    "pseudo_label": 1.0,
    "checkpoint_every": 1000,
}

_SMALL: dict[str, Any] = {
    "backbone": "cnn",
    "weights": "none",
    "crops": 1,
    "learning_rate": 0.01,
    "head_factor": 1.0,
}
"""A small network from random weights: all of it learns at one rate."""

_DIGITS: dict[str, Any] = (
    _ROBUST
    | _SMALL
    | {
        "image_size": 28,
        "resize": 32,
        "augment": "crop",
        "crop_area": 0.5,
        "batch_norm": "target",
        "input_dropout": 0.0,
        "rounds": 3,
        "steps": 1000,
        "scouts": 2,
    }
)

_DEMO: dict[str, Any] = _SMALL | {
    "method": "mcc",
    "confusion_temperature": 4.0,
    "image_size": 20,
    "resize": 22,
    "augment": "crop",
    "crop_area": 0.7,
    "batch_norm": "target",
    "batch_size": 48,
    "source_held_out": 0.2,
    "choice": "nuclear_norm",
    "rounds": 1,
    "steps": 700,
    # For other methods that are tried with it; MCC has no discriminator.
    "discriminator": 256,
    "adversarial_horizon": 700.0,
}
"""A single round: the estimate is then how far neighbours agree, and does not average in a source-only that is wrong
on most images."""

NAMED: dict[str, dict[str, Any]] = {
    "robust": _ROBUST,
    "paper": {},
    "digits": _DIGITS,
    "demo": _DEMO,
}
"""Recipes by name: what each changes of the defaults."""


def load_recipe(name: str) -> Recipe:
    """Resolve a recipe's name or YAML file.

    Raises:
        BiwaaError: unknown name, unreadable file, unknown key (the nearest is named) or a value of the wrong type.
    """
    if name in NAMED:
        return recipe_from(NAMED[name], name)
    path = Path(name)
    settings = _read(path)
    settings.pop("tasks", None)
    return recipe_from(settings, str(path))


def task_settings(name: str) -> dict[str, dict[str, Any]]:
    """What a recipe's file changes for single tasks of a benchmark, by task; only `biwaa bench` knows tasks.

    Raises:
        BiwaaError: they are not settings by task, or as for `load_recipe`.
    """
    special = {} if name in NAMED else _read(Path(name)).get("tasks") or {}
    if not isinstance(special, dict) or not all(isinstance(changed, dict) for changed in special.values()):
        raise BiwaaError(
            f"{name}: tasks must hold settings by task, as in `tasks: {{A2D: {{learning_rate: 0.0003}}}}`."
        )
    return {str(task): changed for task, changed in special.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        names = ", ".join(NAMED)
        raise BiwaaError(f"no recipe {str(path)!r}: the named ones are {names}, and there is no such file.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # on hostile text the reader raises KeyError, RecursionError, AttributeError ..
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BiwaaError(f"{path} is not readable as YAML: {reason}.") from None
    if not isinstance(settings, dict):
        raise BiwaaError(f"{path} must hold settings as `name: value` lines.")
    return settings


def recipe_from(settings: dict[str, Any], where: str) -> Recipe:
    """Check names and types of `settings`; `where` names their origin in errors."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for key in settings:
        if key not in known:
            key = str(key)[:100]
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {listed(known, len(known))}."
            raise BiwaaError(f"{where}: unknown setting {key!r}; {hint}")
    try:
        return msgspec.convert(settings, Recipe)
    except msgspec.ValidationError as error:
        raise BiwaaError(f"{where}: {error}.") from None


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 over all settings but those of `MACHINE`: runs of one digest trained alike."""
    settings = {name: value for name, value in dataclasses.asdict(recipe).items() if name not in MACHINE}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, readable by `load_recipe`."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)
