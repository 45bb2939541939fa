"""The named recipes: what each changes of the defaults, which are the paper's. Data alone: no torch is imported."""

from typing import Any

_ROBUST: dict[str, Any] = {
    "method": "mcc_teacher",
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
    "confusion_temperature": 4.0,
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
    "augment": "none",
    "image_size": 24,
    "resize": 24,
    "bottleneck": 128,
    "discriminator": 256,
    "adversarial_horizon": 300.0,
    "rounds": 2,
    "steps": 300,
}

NAMED: dict[str, dict[str, Any]] = {
    "robust": _ROBUST,
    "paper": {},
    "digits": _DIGITS,
    "demo": _DEMO,
}
"""Recipes by name: what each changes of the defaults."""
