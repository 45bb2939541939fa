"""hf: SPECs, on data sets that the test writes in that library's own on-disk format."""

import io

import numpy as np
import pytest
from conftest import SMALL, train_pair
from PIL import Image

from biwaa.cli import main
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.recipe import recipe_from

datasets = pytest.importorskip("datasets")
NAMES = ["cat", "dog", "eel"]


def png(level, seed):
    pixels = np.random.default_rng(seed).normal(level, 12, (16, 16, 3)).clip(0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return {"bytes": data.getvalue(), "path": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two places in one table, told apart by a text column and by a class column."""
    rows = [(place, label, index) for place in ("photo", "sketch") for label in range(3) for index in range(8)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "place": datasets.Value("string"),
            "domain": datasets.ClassLabel(names=["photo", "sketch"]),
            "label": datasets.ClassLabel(names=NAMES),
        }
    )
    table = datasets.Dataset.from_dict(
        {
            "image": [png(40 + 80 * label, 10 * label + index) for _, label, index in rows],
            "place": [place for place, _, _ in rows],
            "domain": [place for place, _, _ in rows],
            "label": [label for _, label, _ in rows],
        },
        features=features,
    )
    path = tmp_path_factory.mktemp("hf") / "places"
    table.save_to_disk(str(path))
    datasets.DatasetDict({"train": table, "test": table.select(range(6))}).save_to_disk(str(path) + "-split")
    return path


def test_rows_by_text_and_by_class(folder):
    whole = open_domain(f"hf:{folder}")
    assert len(whole.images) == 48
    assert whole.classes == tuple(NAMES)
    text, number = open_domain(f"hf:{folder}?place=sketch"), open_domain(f"hf:{folder}?domain=sketch")
    assert list(text.images.names) == list(number.images.names) == [f"{folder}[{row}]" for row in range(24, 48)]
    assert text.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert text.images.read(0).shape[2] == 3
    assert abs(np.asarray(text.images.read(8)).mean() - 120) < 5
    half = text.select(np.arange(4))
    assert half.images.fingerprint() != text.images.fingerprint()
    assert text.images.fingerprint() == open_domain(f"hf:{folder}?place=sketch").images.fingerprint()
    assert not text.images.identity() & open_domain(f"hf:{folder}?place=photo").images.identity()


def test_splits_and_named_columns(folder):
    assert len(open_domain(f"hf:{folder}-split?split=test").images) == 6
    assert open_domain(f"hf:{folder}?label=domain").classes == ("photo", "sketch")
    for spec, said in (
        (f"hf:{folder}-split", "name one of its splits, train, test, as .split=train"),
        (f"hf:{folder}?place=moon", "no row has place = 'moon'; it is one of photo, sketch"),
        (f"hf:{folder}?colour=red", "has no column 'colour': there are image, place, domain, label"),
        (f"hf:{folder}?label=nope", "has no column 'nope'"),
        (f"hf:{folder.parent}", "cannot be opened"),
        (f"hf:{folder}?image=place", "is not a column of images"),
        (f"hf:{folder}?label=image", "is not a column of labels"),
        (f"hf:{folder}?split=test", "name one of its splits, train"),
        (f"hf:{folder}?config=big", "has no configurations"),
    ):
        with pytest.raises(BiwaaError, match=said):
            open_domain(spec)


def test_a_table_without_labels_is_a_target(folder, tmp_path):
    bare = datasets.load_from_disk(str(folder)).remove_columns(["label", "domain", "place"])
    bare.save_to_disk(str(tmp_path / "bare"))
    assert open_domain(f"hf:{tmp_path / 'bare'}").labels is None


def test_training_from_one_half_to_the_other(folder, tmp_path, capsys):
    recipe = recipe_from({**SMALL, "steps": 60, "rounds": 1, "batch_size": 12, "image_size": 12, "resize": 12,
                          "bottleneck": 8, "discriminator": 16}, "test")  # fmt: skip
    source, target = open_domain(f"hf:{folder}?domain=photo"), open_domain(f"hf:{folder}?domain=sketch")
    run = train_pair(source, target, recipe, tmp_path / "run")
    assert run.result.stage("round 0").accuracy.over_images > 0.6
    assert f"{folder}[24]," in (tmp_path / "run" / "predictions.csv").read_text()
    assert main(["check", f"hf:{folder}?domain=photo", f"hf:{folder}?domain=sketch", "--batch-size", "8"]) == 0
    assert "can be adapted to" in capsys.readouterr().out


def test_a_data_set_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BiwaaError, match="hf:nobody/nothing cannot be opened"):
        open_domain("hf:nobody/nothing")
