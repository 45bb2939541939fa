"""What `biwaa predict` does: images stream through, so memory does not grow with their number."""

from pathlib import Path

from biwaa.checks import not_below
from biwaa.domains.listing import PassedOver
from biwaa.domains.stream import SET_SIZE, image_sets
from biwaa.errors import BiwaaError
from biwaa.inference.classifier import stream_predictions, tell_unlike
from biwaa.inference.prediction_table import rows, writing
from biwaa.models.place import Look
from biwaa.models.saved import DomainName, load_model
from biwaa.progress import say, track

REPORTED = 10  # Unreadable images that are named on standard error; the table has them all


def predict_paths(
    run: Path,
    paths: tuple[str, ...],
    out: Path,
    device: str,
    batch_size: int,
    top: int = 1,
    domain: DomainName = "target",
) -> tuple[int, int]:
    """Write predictions of images as a table; the row of an unreadable image has the reason instead of a label.

    Args:
        run: a run folder or a model.safetensors.
        paths: as of `image_sets`.
        out: the table, its format by its suffix.
        device: auto, cpu, cuda or mps.
        batch_size: images at a time.
        top: how many of the likeliest classes to write.
        domain: target, or source for images of the place that the model learned from.

    Returns:
        How many images were predicted, and how many could not be read.

    Raises:
        BiwaaError: no model, or a path that is neither an image nor a domain.
    """
    not_below(1, batch_size=batch_size)
    model = load_model(run).for_domain(domain)
    look = Look(model.place)
    if out.is_dir():
        raise BiwaaError(f"{out} is a folder: name the file to write.")
    if not paths:
        raise BiwaaError("name at least one image or folder to predict.")
    if not 1 <= top <= len(model.classes):
        raise BiwaaError(f"--top-k must lie between 1 and the model's {len(model.classes)} classes, not {top}.")
    predicted = unreadable = 0
    passed = PassedOver()
    size = max(SET_SIZE // batch_size, 1) * batch_size  # whole batches
    with writing(out, model.classes, top) as write, track("predicting", None, "images") as advance:
        for images in image_sets(paths, passed, size):
            names, first = images.names, 0
            for probabilities, bad in stream_predictions(model, images, device, batch_size, look):
                for row, why in list(bad.items())[: max(REPORTED - unreadable, 0)]:
                    say(f"unreadable: {names[row]} ({why})")
                bad_in_batch = {row - first: why for row, why in bad.items()}
                batch_names = names[first : first + len(probabilities)]
                write(rows(batch_names, probabilities, bad_in_batch, model.classes, top))
                first += len(probabilities)
                predicted, unreadable = predicted + len(probabilities) - len(bad), unreadable + len(bad)
                advance(predicted + unreadable)
    tell_unlike(model, look)
    if passed.counts:
        say(f"passed over: {passed}")
    return predicted, unreadable
