"""A model, ready to predict: the result of `biwaa.load`. It imports no part of training."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biwaa.checks import not_below
from biwaa.device import open_fabric, within_memory
from biwaa.domains.domain import Domain, tell_passed_over
from biwaa.domains.labels import as_given
from biwaa.domains.objects import as_domain, as_images
from biwaa.errors import BiwaaError
from biwaa.functional import with_temperature
from biwaa.images.augment import as_tensor
from biwaa.images.decoding import SUFFIXES
from biwaa.images.images import FeatureRows, Images, feature_width
from biwaa.images.store import decode_batches
from biwaa.inference.predict import Predicted, average_views
from biwaa.models.backbone import FEATURES
from biwaa.models.place import Look
from biwaa.models.saved import DomainName, SavedModel, load_model
from biwaa.progress import say


@dataclass(frozen=True)
class Classifier:
    """A run's model: images in, classes or calibrated probabilities out.

    Classes are of the type that the source's labels had: whole numbers, truth values or names.
    """

    model: SavedModel
    device: str = "auto"
    batch_size: int = 32
    classes: NDArray[Any] = field(init=False)  # (K,) in the order of the columns of `predict_proba`

    def __post_init__(self) -> None:
        """Take the classes from the model.

        Raises:
            BiwaaError: batches of no image.
        """
        not_below(1, batch_size=self.batch_size)
        object.__setattr__(self, "classes", as_given(self.model.classes, self.model.label_kind))

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """(N, K) probabilities, averaged over the model's crops and calibrated by its temperature.

        Args:
            images: a SPEC or path, one picture or a list of them, paths, an array (N, H, W[, 3]) in uint8, a tensor
                (N, [3,] H, W), a data set; or (N, F) features for a model of features.

        Raises:
            BiwaaError: not images, or one of them cannot be read.
        """
        domain = as_new(images)
        tell_passed_over(domain)
        found = domain.images
        parts: list[Tensor] = []
        look = Look(self.model.place)
        for probabilities, bad in stream_predictions(self.model, found, self.device, self.batch_size, look):
            for row, why in bad.items():
                raise BiwaaError(f"{found.names[row]} cannot be read ({why}).")
            parts.append(probabilities)
        tell_unlike(self.model, look)
        every: NDArray[np.float32] = torch.cat(parts).numpy()
        return every

    def predict(self, images: Any) -> NDArray[Any]:
        """(N,) the likeliest classes, as the source's labels were; arguments and errors as of `predict_proba`."""
        likeliest = self.predict_proba(images).argmax(axis=1)
        return np.asarray(self.classes[likeliest])


def as_new(images: Any) -> Domain:
    """New images as a domain without labels.

    Args:
        images: as of `Classifier.predict_proba`.

    Raises:
        BiwaaError: not images.
    """
    if isinstance(images, (str, PathLike)) and Path(images).suffix.lower() in SUFFIXES:
        images = [images]
    if isinstance(images, (str, PathLike)):
        images = as_domain(images, "images")
    return images if isinstance(images, Domain) else Domain("images", as_images(images, "images"))


def load(
    path: str | PathLike[str], device: str = "auto", batch_size: int = 32, domain: DomainName = "target"
) -> Classifier:
    """The model of a run folder, or a model.safetensors alone.

    Args:
        path: of the folder or the file.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        domain: target, or source for images of the place that the model learned from.

    Raises:
        BiwaaError: there is no model, biwaa did not write it, or it has no form for the source.
    """
    return Classifier(load_model(Path(path)).for_domain(domain), device, batch_size)


def stream_predictions(
    model: SavedModel, images: Images, device: str, batch_size: int, look: Look
) -> Iterator[tuple[Tensor, dict[int, str]]]:
    """(B, K) calibrated probabilities of batch after batch, each with its unreadable rows, numbered over all images.

    Args:
        model: to predict with.
        images: to predict.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        look: takes the features of the images that can be read.

    Raises:
        BiwaaError: as of `stream_outputs`.
    """
    first = 0
    for predicted, bad in stream_outputs(model, images, device, batch_size):
        good = [row for row in range(len(predicted.probabilities)) if first + row not in bad]
        look.add(predicted.features[good], predicted.probabilities[good].argmax(dim=1))
        first += len(predicted.probabilities)
        yield with_temperature(predicted.probabilities, model.temperature), bad


def stream_outputs(
    model: SavedModel, images: Images, device: str, batch_size: int, pooled: bool = False
) -> Iterator[tuple[Predicted, dict[int, str]]]:
    """What the network says of batch after batch, each with its unreadable rows, numbered over all images.

    Args:
        model: to predict with; its temperature is not used.
        images: to predict.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        pooled: give the features before the bottleneck too.

    Raises:
        BiwaaError: images for a model of features, features for a model of images, or features of another width.
    """
    fabric = open_fabric(device)
    _check_kind(model, images)
    if isinstance(images, FeatureRows):
        # In double precision, a row's prediction does not depend on the other rows of its batch.
        network = copy.deepcopy(model.network).double().to(fabric.device)
        with torch.inference_mode():
            for start in range(0, len(images), 4096):
                rows = torch.from_numpy(images.array[start : start + 4096]).to(fabric.device).double()
                yield average_views(network, rows[None], pooled), {}
        return
    network = model.network.to(fabric.device).to(memory_format=torch.channels_last)
    smaller = f"set --batch-size to {batch_size // 2} or lower" if batch_size > 1 else "close other programs"
    with torch.inference_mode(), within_memory(f"with batches of {batch_size} images", smaller):
        for pixels, bad in decode_batches(images, model.transform.resize, batch_size):
            views = model.transform.views(as_tensor(pixels, fabric.device))
            yield average_views(network, model.transform.normalise(views), pooled), bad


def tell_unlike(model: SavedModel, look: Look) -> None:
    """Say so if the images that were predicted do not look like the target."""
    if look.unlike:
        other = "; for images of the source there is --domain source" if model.source else ""
        say(
            "warning: these images do not look like the target that the model was adapted to, so that its predictions "
            f"may be wrong{other}"
        )


def _check_kind(model: SavedModel, images: Images) -> None:
    expected = len(model.network.state_dict()["standardise.mean"]) if model.backbone == FEATURES else None
    given = feature_width(images)
    if expected != given:
        kinds = ["images" if width is None else f"features, {width} a row" for width in (expected, given)]
        raise BiwaaError(f"the model was trained on {kinds[0]}; it was given {kinds[1]}.")
