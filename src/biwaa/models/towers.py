"""Image towers of open_clip (extra [clip]) as backbones, named `clip:MODEL/TAG`.

A tower's features are its embeddings in the space that it shares with texts, before they are brought to length 1.
"""

from typing import Any, NamedTuple

from torch import nn

from biwaa.errors import BiwaaError, listed
from biwaa.models import zero_shot

PREFIX = "clip:"
WAYS_OUT = (
    "Three ways out: connect to the hub once; --weights FILE with the whole model's weights; or another --backbone."
)


class Tower(NamedTuple):
    """An image tower with random weights."""

    name: str  # With the tag of its weights, where it has any
    module: nn.Module
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def is_tower(name: str) -> bool:
    """Whether a backbone's name is of an image tower."""
    return name.startswith(PREFIX)


def build_tower(name: str, image_size: int | None) -> Tower:
    """A tower with random weights, built as the weights of its tag need it.

    Args:
        name: clip:MODEL/TAG; without a tag OpenAI's weights, or the first that open_clip lists.
        image_size: pixels a side; None for the tower's own.

    Raises:
        BiwaaError: open_clip is missing, or it has no such model or tag.
    """
    library = zero_shot.library(f"--backbone {name}")
    model, _, tag = name.removeprefix(PREFIX).partition("/")
    if model not in library.list_models():
        raise BiwaaError(f"open_clip has no model {model!r}: it is {PREFIX}MODEL/TAG, such as {PREFIX}ViT-B-32/openai.")
    tags = library.list_pretrained_tags_by_model(model)
    if tag and tag not in tags:
        raise BiwaaError(f"{PREFIX}{model} has no weights {tag!r}: it has {listed(tags) or 'none'}.")
    tag = tag or zero_shot.usual_tag(tags)
    facts = library.get_pretrained_cfg(model, tag) if tag else {}
    channels = {key: facts[key] for key in ("mean", "std") if facts.get(key)}
    with zero_shot.quiet():
        whole = library.create_model(
            model, pretrained=None, pretrained_text=False, force_quick_gelu=bool(facts.get("quick_gelu")),
            force_image_size=image_size, force_preprocess_cfg=channels,
        )  # fmt: skip
    visual: Any = whole.visual
    seen = visual.preprocess_cfg
    side = seen["size"] if isinstance(seen["size"], int) else seen["size"][-1]
    known = f"{PREFIX}{model}/{tag}" if tag else f"{PREFIX}{model}"
    return Tower(known, visual, image_size or int(side), tuple(seen["mean"]), tuple(seen["std"]))


def load_tower(name: str, module: nn.Module, image_size: int, weights: str) -> str:
    """Put a tower's weights into it.

    Args:
        name: as `build_tower` gave it.
        module: likewise.
        image_size: pixels a side, to which the embeddings of places are fitted.
        weights: auto, or the file of a whole model's weights.

    Returns:
        Where they came from, in words.

    Raises:
        BiwaaError: they cannot be loaded, or they are another model's.
    """
    model, _, tag = name.removeprefix(PREFIX).partition("/")
    if weights == "auto" and not tag:
        raise BiwaaError(f"there are no published weights of {name}: pass --weights FILE, or take another --backbone.")
    wanted = tag if weights == "auto" else weights
    whole, _, _ = zero_shot.build(f"{model}/{wanted}", image_size, WAYS_OUT)
    module.load_state_dict(whole.visual.state_dict())
    return f"open_clip, {tag}" if weights == "auto" else weights
