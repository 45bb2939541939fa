"""Features of a frozen backbone: computed once from each image's centre crop, and found in the store by later runs.

The key is made of the images, the transform, every weight of the backbone, and the processor's threads.
"""

from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from biwaa.images.augment import Transform, as_tensor
from biwaa.images.images import FeatureRows, Images
from biwaa.images.store import DECODING, Stored, filling, pixel_batches, stored
from biwaa.models.backbone import Backbone
from biwaa.tensors import weights_digest

BATCH = 32  # Images at a time


def store_features(images: Images, name: str, backbone: Backbone, transform: Transform, fabric: Fabric) -> Stored:
    """(N, F) float32 features of all images, in evaluation mode; computed now unless the store has them.

    Args:
        images: N of them; an unreadable one has a row of zeros and is named in the result.
        name: for the progress display.
        backbone: with its weights.
        transform: of the images.
        fabric: device and precision.
    """
    if isinstance(images, FeatureRows):  # computed elsewhere
        return Stored(images.array, {})
    module = backbone.module.to(fabric.device).to(memory_format=torch.channels_last).eval()

    def batches() -> Iterator[tuple[NDArray[np.float32], dict[int, str]]]:
        for pixels, bad in pixel_batches(images, transform.resize, BATCH):
            with torch.inference_mode(), fabric.autocast():
                features = module(transform.normalise(transform.centre(as_tensor(pixels, fabric.device))))
            yield features.float().cpu().numpy(), bad

    # Another number of threads rounds otherwise.
    where = (fabric.device.type, torch.get_num_threads() if fabric.device.type == "cpu" else None)
    facts = (backbone.name, weights_digest(backbone.module), transform, *where, str(fabric._precision.precision))
    key = f"features {DECODING} {facts} {images.fingerprint()}"
    return stored(key, (len(images), backbone.features), "float32", filling(batches(), f"features of {name}"))
