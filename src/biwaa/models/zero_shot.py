"""Zero-shot models of open_clip (extra [clip]): an image and a text tower whose products are class scores.

OpenAI's, LAION's and SigLIP's models are built and their weights read by the library; nothing is unpickled. Scores are
kept in the store under all that they are made of.
"""

import hashlib
import logging
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biwaa.errors import BiwaaError, listed, one_line
from biwaa.files import expanded
from biwaa.images.images import Images, feature_width
from biwaa.images.store import DECODING, stored
from biwaa.models.weight_files import cached_file, reach_hub
from biwaa.progress import say, track
from biwaa.teachers.prompts import MARK, texts
from biwaa.tensors import weights_digest

DEFAULT = "ViT-B-16/openai"
BATCH = 32
WAYS_OUT = (
    "Three ways out: connect to the hub once; --zero-shot MODEL/FILE with the weights' file; or --teacher FILE with "
    "scores that were computed elsewhere."
)


@dataclass(frozen=True)
class ZeroShot:
    """A zero-shot teacher: a model and what its text tower is given."""

    model: str = DEFAULT
    """MODEL/TAG of open_clip, MODEL/FILE for weights of one's own, MODEL/none for random ones, or hf-hub:OWNER/NAME."""
    prompts: tuple[str, ...] = ()
    """Templates with `{}` for a name; none: open_clip's seven."""
    names: Mapping[str, Any] = field(default_factory=dict)
    """Class -> its words, as of `prompts.read_classes`."""

    @property
    def where(self) -> str:
        """For messages and for the report."""
        return f"zero-shot {self.model}"

    @property
    def flags(self) -> dict[str, list[str]]:
        """The model and its templates as flags; the classes' words have a file of their own."""
        return {"zero_shot": [self.model]} | ({"prompt": [*self.prompts]} if self.prompts else {})

    def fingerprint(self) -> str:
        """Of model, templates and names."""
        return hashlib.sha256(repr((self.model, self.prompts, sorted(self.names.items()))).encode()).hexdigest()

    def texts(self, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Class -> the texts that images are compared with.

        Raises:
            BiwaaError: as of `prompts.texts`, or open_clip is missing.
        """
        templates = self.prompts or tuple(make(MARK) for make in library().SIMPLE_IMAGENET_TEMPLATES)
        return texts(classes, self.names, templates)

    def scores(
        self, domains: Mapping[str, Images], classes: tuple[str, ...], fabric: Fabric
    ) -> dict[str, NDArray[np.float32]]:
        """(N, K) logits of every image of each domain; computed now unless the store has them.

        An unreadable image has a row of zeros: it is reported, or left out, when it is decoded for training.

        Args:
            domains: images by name, for the progress display.
            classes: K names.
            fabric: device and precision.

        Raises:
            BiwaaError: open_clip or the weights cannot be loaded, or there are features in the place of images.
        """
        if any(feature_width(images) for images in domains.values()):
            raise BiwaaError(
                "--zero-shot needs images to look at, and here are features: give its scores as --teacher."
            )
        prompts = self.texts(classes)
        model, transform, tokenizer = build(self.model)
        model = model.to(fabric.device).eval()
        digest = weights_digest(model)
        with torch.inference_mode():
            heads = torch.stack([_embedding(model, tokenizer, prompts[name], fabric) for name in classes])
            scale = model.logit_scale.exp().float()

        def fill_from(images: Images, name: str, rows: NDArray[Any]) -> dict[int, str]:
            with track(f"{self.where} looks at {name}", len(rows), "images") as advance, torch.inference_mode():
                for start in range(0, len(rows), BATCH):
                    numbers = range(start, min(start + BATCH, len(rows)))
                    views = [_view(images, number, transform) for number in numbers]
                    seen = [number for number, view in zip(numbers, views, strict=True) if view is not None]
                    if seen:
                        pixels = torch.stack([view for view in views if view is not None]).to(fabric.device)
                        with fabric.autocast():
                            embedded = model.encode_image(pixels, normalize=True)
                        rows[seen] = (scale * embedded.float() @ heads.T).cpu().numpy()
                    advance(numbers[-1] + 1)
            return {}

        found = {}
        for name, images in domains.items():
            facts = (self.model, digest, str(transform), [prompts[one] for one in classes], fabric.device.type)
            key = f"zero-shot {DECODING} {facts} {fabric._precision.precision} {images.fingerprint()}"
            shape = (len(images), len(classes))
            kept = stored(key, shape, "float32", partial(fill_from, images, name))
            found[name] = np.array(kept.rows)
        return found


def library(asked: str = "--zero-shot") -> Any:
    """open_clip, for what was `asked`.

    Raises:
        BiwaaError: it is not installed.
    """
    try:
        import open_clip  # takes long to import
    except ModuleNotFoundError as error:
        raise BiwaaError(f"{asked} needs {error.name}: pip install 'biwaa[clip]'.") from None
    return open_clip


@contextmanager
def quiet() -> Iterator[None]:
    """Without what open_clip says of weights that are random on purpose, in warnings and in the root logger.

    That logger is the caller's, so it is left as it was. Without a handler it would be given one.
    """
    root, nowhere = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(nowhere)
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(nowhere)


def build(name: str, image_size: int | None = None, ways_out: str = WAYS_OUT) -> tuple[Any, Any, Any]:
    """A model with its weights, its transform of pictures, and its tokenizer.

    Args:
        name: as of `ZeroShot.model`.
        image_size: pixels a side; None for the model's own.
        ways_out: what to do where there are no weights.

    Raises:
        BiwaaError: no such model, tag or file, or the weights cannot be loaded.
    """
    clip = library()
    whole = name.startswith(("hf-hub:", "local-dir:"))
    model, _, tag = (name, "", "") if whole else name.partition("/")
    options: dict[str, Any] = {}
    if not whole:
        if model not in clip.list_models():
            raise BiwaaError(f"open_clip has no model {model!r}: it is MODEL/TAG, such as {DEFAULT}.")
        options = _weights(clip, model, tag, name, ways_out)
    try:
        if name.startswith("hf-hub:"):
            reach_hub()
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built, _, transform = clip.create_model_and_transforms(
                model, weights_only=True, force_image_size=image_size, **options
            )
            return built, transform, clip.get_tokenizer(model)
    except (OSError, socket.gaierror) as error:
        raise BiwaaError(f"no weights of {name} ({one_line(error)}). {ways_out}") from None
    except Exception as error:  # of a file of another kind or model
        raise BiwaaError(f"{name} cannot be built: {one_line(error)}.") from None


def usual_tag(tags: Sequence[str]) -> str:
    """The weights that are meant where none are named: OpenAI's, else the first of the list; empty where it is."""
    return "openai" if "openai" in tags else next(iter(tags), "")


def _weights(clip: Any, model: str, tag: str, name: str, ways_out: str) -> dict[str, Any]:
    """What open_clip builds the model with: a weights' file, and the transform that goes with it."""
    tags = clip.list_pretrained_tags_by_model(model)
    if tag == "none":
        say(f"{name}: the weights are random, so its scores mean nothing")
        return {"pretrained": None, "pretrained_text": False}
    tag = tag or usual_tag(tags)
    if tag not in tags:
        file = expanded(tag)
        if tag and file.is_file():
            return {"pretrained": str(file)}
        raise BiwaaError(f"{model} has no weights {tag!r}, and there is no such file: it has {listed(tags) or 'none'}.")
    facts = clip.get_pretrained_cfg(model, tag)
    try:
        file = _cached(facts) or _fetched(clip, facts)
    except Exception as error:  # the hub's client raises many kinds
        raise BiwaaError(f"no weights of {model}/{tag} ({one_line(error)}). {ways_out}") from None
    return {
        "pretrained": str(file),
        "force_quick_gelu": bool(facts.get("quick_gelu")),
        "image_mean": facts.get("mean"),
        "image_std": facts.get("std"),
        "image_interpolation": facts.get("interpolation"),
        "image_resize_mode": facts.get("resize_mode"),
    }


def _cached(facts: Mapping[str, Any]) -> Path | None:
    """The weights' file in the hub's local cache. open_clip would ask the hub first, and wait where there is none."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, file = str(facts.get("hf_hub") or "").rpartition("/")
    names = (file,) if file else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    return cached_file(repository, None, names) if repository else None


def _fetched(clip: Any, facts: Mapping[str, Any]) -> Path:
    reach_hub()
    return Path(clip.download_pretrained(dict(facts)))


def _embedding(model: Any, tokenizer: Any, prompts: tuple[str, ...], fabric: Fabric) -> Tensor:
    """(D,) the direction of a class: the mean of its texts' embeddings, each of length 1."""
    with fabric.autocast():
        embedded = model.encode_text(tokenizer(list(prompts)).to(fabric.device), normalize=True)
    return F.normalize(embedded.float().mean(dim=0), dim=0)


def _view(images: Images, number: int, transform: Any) -> Tensor | None:
    """An image as the model sees it; None where it cannot be read."""
    try:
        return transform(Image.fromarray(images.read(number)))  # type: ignore[no-any-return]
    except Exception:  # decoders raise any kind; training reports it
        return None
