"""Features of a frozen backbone: computed once, kept by content, found again by every later run.

One view an image, the centre crop. The key holds the images, the transform and every weight of the backbone.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from biwaa.images.augment import Transform, as_tensor
from biwaa.images.images import FeatureRows, Images
from biwaa.images.store import DECODING, Kept, kept, pixel_batches
from biwaa.models.backbone import Backbone
from biwaa.progress import track


def weights_digest(backbone: Backbone) -> str:
    """Hash of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in backbone.module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def keep_features(
    images: Images, name: str, backbone: Backbone, transform: Transform, fabric: Fabric, batch: int = 32
) -> Kept:
    """(N, F) float32 features of all images, in evaluation mode.

    Args:
        images: nothing is skipped, unreadable ones are zero and named in the result.
        name: for the progress display.
        backbone: with its weights.
        transform: of the images, one crop.
        fabric: device and precision.
        batch: images at a time.
    """
    if isinstance(images, FeatureRows):  # computed elsewhere
        return Kept(images.array, {})
    module = backbone.module.to(fabric.device).to(memory_format=torch.channels_last).eval()

    def fill(rows: NDArray[Any]) -> dict[int, str]:
        unreadable: dict[int, str] = {}
        done = 0
        with track(f"features of {name}", len(rows), "images") as advance, torch.inference_mode():
            for pixels, bad in pixel_batches(images, transform.resize, batch):
                stored = as_tensor(pixels, fabric.device)
                with fabric.autocast():
                    features = module(transform.normalise(transform.centre(stored)))
                rows[done : done + len(pixels)] = features.float().cpu().numpy()
                unreadable |= bad
                done += len(pixels)
                advance(done)
        return unreadable

    facts = (backbone.name, weights_digest(backbone), transform, fabric.device.type, str(fabric._precision.precision))
    key = f"features {DECODING} {facts} {images.fingerprint()}"
    return kept(key, (len(images), backbone.features), np.dtype(np.float32).name, fill)
