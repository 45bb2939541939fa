"""Settings that every method shares, in groups; a method's own stand in its file (`methods/`).

Names are unique over all groups, so that each is one flag and one key of a recipe file.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from biwaa.checks import at_least, between
from biwaa.errors import BiwaaError

MOST_STEPS = 10_000_000
"""Of a stage: the generators of its steps are seeded this far apart from the next stage's."""


@dataclass(frozen=True)
class DataSettings:
    """Data."""

    image_size: int | None = None
    """Pixels a side that the backbone sees; unset: its own (224 for most)."""
    resize: int | None = None
    """Pixels a side that images are stored at before cropping; unset: image size x 8/7 (256 for 224)."""
    augment: Literal["crop_flip", "crop", "none"] = "crop_flip"
    """Random resized crop and horizontal flip, the crop alone, or the centre crop as it is."""
    crop_area: float = 0.08
    """Least share of the image that a random crop covers."""
    crops: Literal[1, 10] = 10
    """Views that a prediction averages: the centre, or four corners and the centre, each also flipped."""
    batch_size: int = 36
    """Images of each domain in a step."""
    class_balanced: bool = True
    """Sample the source, and from the second round the target by its predictions, evenly over classes."""
    source_held_out: float = 0.0
    """Share of each source class that is held out of training, for selection and calibration."""
    source_shift: str = "none"
    """Label shift or size for experiments: long-tail:RATIO, reversed:RATIO or dirichlet:ALPHA[:SEED] over the classes,
    per-class:N[:SEED], images:N[:SEED], or classes:A-B, the A-th to the B-th class alone."""
    target_shift: str = "none"
    """The same for the target, by its labels: an experiment, since real targets have no labels to do this with."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 1, "image_size", "resize")
        if self.batch_size < 2:
            raise BiwaaError(
                f"batch_size must be at least 2, not {self.batch_size}: one image has no batch statistics."
            )
        between(self, 0, 0.9, "source_held_out")
        at_least(self, 0, "crop_area", above=True)
        between(self, 0, 1, "crop_area")
        if self.image_size and self.resize and self.resize < self.image_size:
            raise BiwaaError(f"resize ({self.resize}) must not be smaller than image_size ({self.image_size}).")


@dataclass(frozen=True)
class NetworkSettings:
    """Network."""

    backbone: str = "resnet50"
    """A timm model, alexnet, lenet, dtn, cnn, or auto."""
    weights: str = "auto"
    """Backbone weights: auto, none (random), or a file."""
    freeze_backbone: bool | None = False
    """Freeze the backbone; unset: without a GPU, in no bench."""
    statistics: Literal["domain", "source", "coral"] = "domain"
    """Frozen features are standardised by each domain's own mean and deviation (coral: the source's are then given the
    target's covariance), or all by the source's."""
    batch_norm: Literal["shared", "target"] = "shared"
    """Whose batches make BatchNorm's running averages, by which predictions are normalised: both domains' or the
    target's."""
    bottleneck: int = 256
    """Width D of the features that classifier and discriminator share."""
    input_dropout: float = 0.0
    """Dropout on the backbone's features, before the bottleneck."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 1, "bottleneck")
        between(self, 0, 0.9, "input_dropout")

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays as it is; not where that is still open."""
        return bool(self.freeze_backbone)


@dataclass(frozen=True)
class ScheduleSettings:
    """Rounds and steps."""

    rounds: int = 10
    """Trainings from scratch; later ones learn from earlier predictions."""
    steps: int = 5004
    """Training steps in each round."""
    iterate: bool = True
    """Later rounds use what earlier ones predicted, in sampling the target and in pseudo-labels; off: independent."""
    scouts: int = 1
    """First rounds, which are independent; each later round learns from all before it."""
    smooth_rounds: bool = False
    """Smooth earlier rounds' average over neighbours and even out its label distribution before it teaches."""
    neighbours: int = 10
    """Nearest neighbours of a target image that the teacher averages; fewer where the target is small."""
    distribution_damping: float = 0.75
    """The teacher's label distribution: 1 as predicted, 0 even over classes."""
    round_update: float = 0.2
    """A round's predictions lose this share of their weight with each later round."""
    choice: str = "last"
    """How the model is selected: last, or a label-free score by name; auto: last where heads are solved, else
    nuclear_norm."""
    baseline: bool = True
    """First train source-only with the same settings, to compare the adapted model with."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 1, "rounds", "steps", "scouts", "neighbours")
        between(self, 0, 1, "distribution_damping", "round_update")
        if self.steps > MOST_STEPS:
            raise BiwaaError(f"steps must be at most {MOST_STEPS}, not {self.steps}.")


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimiser."""

    learning_rate: float = 1e-3
    """Initial rate of the backbone."""
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

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 0, "learning_rate", "head_factor", above=True)
        at_least(self, 0, "weight_decay", "decay_rate", "decay_power")
        between(self, 0, 1, "momentum")


@dataclass(frozen=True)
class MachineSettings:
    """Machine."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    devices: int = 1
    """Devices on each machine, each a process with its part of every batch."""
    num_nodes: int = 1
    """Machines, each started with the same command by torchrun or SLURM."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the forward and backward passes."""
    log_every: int = 50
    """Steps between lines of log.jsonl."""
    checkpoint_every: int | str = "5m"
    """Steps, or minutes as in 5m, between checkpoints inside a round; the end of a round is always kept."""
    threads: int | None = None
    """Processor threads, which decide how sums are rounded; unset: as the machine has them, or as the run had."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        at_least(self, 1, "devices", "num_nodes", "log_every", "threads")
        self.checkpoint_interval()

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
