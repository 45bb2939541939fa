"""Adapt a classifier from labelled images of one place to unlabelled images of another."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biwaa.api import Run, adapt
    from biwaa.domains.catalogue import register_benchmark
    from biwaa.errors import BiwaaError
    from biwaa.estimator import DomainAdapter
    from biwaa.inference.classifier import Classifier, load
    from biwaa.methods import register_method
    from biwaa.models.backbone import register_backbone
    from biwaa.recipe import Recipe
    from biwaa.share import from_pretrained, push_to_hub

from biwaa.version import __version__ as __version__

_WHERE = {
    "adapt": "api", "Run": "api", "load": "inference.classifier", "Classifier": "inference.classifier",
    "DomainAdapter": "estimator", "BiwaaError": "errors", "Recipe": "recipe",
    "register_method": "methods", "register_backbone": "models.backbone", "register_benchmark": "domains.catalogue",
    "push_to_hub": "share", "from_pretrained": "share",
}  # fmt: skip
"""Imported once they are asked for: torch takes seconds."""

__all__ = [
    "BiwaaError", "Classifier", "DomainAdapter", "Recipe", "Run", "adapt", "from_pretrained", "load", "push_to_hub",
    "register_backbone", "register_benchmark", "register_method",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'biwaa' has no attribute {name!r}")
    return getattr(importlib.import_module(f"biwaa.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
