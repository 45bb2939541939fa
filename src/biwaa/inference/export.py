"""A model for other programs: ONNX, or torch.export's pt2; one file, any batch size.

- input: `pixels`, uint8 (B, 3, S, S) RGB, images resized to S x S, aspect not kept, bilinear with antialiasing
- output: `probabilities`, float32 (B, K), those of `biwaa predict`: crops, normalisation and temperature are inside
  the graph
- the file's metadata describes both; the file is run and compared with PyTorch before it gets its name
"""

import dataclasses
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.errors import BiwaaError
from biwaa.files import replacing
from biwaa.functional import with_temperature
from biwaa.inference.predict import average_views
from biwaa.models.backbone import FEATURES
from biwaa.models.saved import SavedModel, load_model
from biwaa.version import __version__

OPSET = 18  # ONNX's version: torch's exporter writes it natively, and runtimes since the end of 2022 read it

DRAWN, PROBES, HALVINGS = 32, 5, 8
"""Images that are drawn, those of them that are compared, and halvings of the way between two classes."""
TOLERANCE = 1e-4  # Largest difference allowed between an exported probability and PyTorch's

Run = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """All steps from resized pixels to probabilities, as one module."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: SavedModel) -> None:
        """Use the model's own network."""
        super().__init__()
        self.network = model.network
        self.transform = model.transform
        self.temperature = model.temperature
        self.register_buffer("mean", torch.tensor(model.transform.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(model.transform.std).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, resize, resize) -> (B, K)."""
        images = (pixels.float() / 255 - self.mean) / self.std
        views = [self.network(view).logits.softmax(dim=1) for view in self.transform.cropped(images)]
        mean = views[0] if len(views) == 1 else torch.stack(views).mean(dim=0)
        return (mean.clamp(min=torch.finfo(torch.float32).tiny).log() / self.temperature).softmax(dim=1)


def export_run(run: Path, out: Path, kind: Literal["onnx", "pt2"], crops: Literal[1, 10] | None = None) -> float:
    """Write a run's model for other programs.

    Args:
        run: a run folder or a model.safetensors.
        out: the file.
        kind: onnx or pt2.
        crops: views that are averaged. 1 is the centre alone, which takes a tenth of the time of 10; None for the
            model's own.

    Returns:
        The largest difference between its probabilities and PyTorch's on images that the model is unsure of.

    Raises:
        BiwaaError: no model, a model of features, a missing library, or probabilities that differ from PyTorch's.
    """
    model = load_model(run)
    if model.backbone == FEATURES:
        raise BiwaaError(f"{run} was trained on features: there is no network from images to export.")
    if crops:
        model = dataclasses.replace(model, transform=dataclasses.replace(model.transform, crops=crops))
    module = Deployed(model).eval()
    side = model.transform.resize
    example = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    probe = unsure_images(lambda pixels: _expected(model, pixels), side)
    with replacing(out) as draft, torch.inference_mode(False), torch.no_grad():
        written = WRITERS[kind](module, example, metadata(model), draft)
        difference = max(float((written(part) - _expected(model, part)).abs().max()) for part in (probe, probe[:1]))
        if not difference <= TOLERANCE:
            raise BiwaaError(
                f"the exported {model.backbone} differs from PyTorch by {difference:.2g} in a probability, more than "
                f"{TOLERANCE:g}: it was not written; try the other format."
            )
    return difference


def unsure_images(predict: Run, side: int) -> Tensor:
    """Images on which a comparison says something: where a probability is 1 in float32, nearly all differences vanish.

    Blurred noise is predicted; between two images of different classes one is sought that lies on their border.

    Args:
        predict: uint8 (B, 3, side, side) -> (B, K).
        side: pixels.

    Returns:
        uint8 (PROBES, 3, side, side), the least confident first.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(DRAWN // 2, 3, cells, cells, generator=generator) for cells in (4, 16)]
    drawn = torch.cat([F.interpolate(part, size=(side, side), mode="bilinear") for part in coarse])

    def as_pixels(images: Tensor) -> Tensor:
        return (images * 255).round().to(torch.uint8)

    with torch.no_grad():
        certain, classes = predict(as_pixels(drawn)).max(dim=1)
        least = drawn[certain.argsort()]
        others = drawn[classes != classes[certain.argmin()]]
        if len(others):
            mine, other, own = least[:1], others[:1], classes[certain.argmin()]
            for _ in range(HALVINGS):
                middle = (mine + other) / 2
                on_my_side = predict(as_pixels(middle)).argmax(dim=1) == own
                mine, other = (middle, other) if on_my_side else (mine, middle)
            least = torch.cat([mine, other, least])
        found = as_pixels(least)
        order = predict(found).amax(dim=1).argsort()
    return found[order[:PROBES]]


def _expected(model: SavedModel, pixels: Tensor) -> Tensor:
    """The probabilities of `biwaa predict` for the same pixels."""
    views = model.transform.normalise(model.transform.views(pixels))
    return with_temperature(average_views(model.network, views).probabilities, model.temperature)


def metadata(model: SavedModel) -> dict[str, str]:
    """What a program needs to know to use the file, as text by name."""
    transform = model.transform
    facts: dict[str, Any] = {
        "input": f"pixels: uint8 (batch, 3, {transform.resize}, {transform.resize}), RGB, 0 to 255",
        "output": "probabilities: float32 (batch, classes), temperature applied",
        "classes": list(model.classes),
        "resize": transform.resize,
        "resize_filter": "bilinear, antialiased, aspect not kept",
        "crop": transform.image_size,
        "crops": transform.crops,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "inside_the_graph": "crops, division by 255, mean, std, softmax, mean over crops, temperature",
        "temperature": model.temperature,
        "backbone": model.backbone,
        "opset": OPSET,
        "biwaa": __version__,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def _write_pt2(module: nn.Module, example: Tensor, facts: dict[str, str], path: Path) -> Run:
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"biwaa.json": json.dumps(facts)})
    with path.open("rb") as file:
        run: Run = torch.export.load(file).module()
    return run


def _write_onnx(module: nn.Module, example: Tensor, facts: dict[str, str], path: Path) -> Run:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        raise BiwaaError(f"ONNX needs the library {error.name}: pip install 'biwaa[export]'.") from None
    with redirect_stdout(io.StringIO()):  # torch's exporter prints its steps
        program = torch.onnx.export(
            module, (example,), dynamo=True, opset_version=OPSET, input_names=["pixels"],
            output_names=["probabilities"], dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip
    assert program is not None  # dynamo=True returns one
    proto = program.model_proto
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


WRITERS: dict[str, Callable[[nn.Module, Tensor, dict[str, str], Path], Run]] = {"onnx": _write_onnx, "pt2": _write_pt2}
