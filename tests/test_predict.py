"""`biwaa predict`: what it reads, what it writes, and that it holds no more than a batch."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import COMMAND

import biwaa
from biwaa.cli import main
from biwaa.domains import stream
from biwaa.domains.listing import PassedOver, images_below
from biwaa.inference.predict_paths import predict_paths
from biwaa.inference.prediction_table import rows, writing


@pytest.fixture
def place(tiny_run, tmp_path):
    """A folder of images in two folders, one broken, one with a formula for a name."""
    for name in ("cat", "dog"):
        shutil.copytree(tiny_run.parent / "target" / name, tmp_path / "images" / name)
    (tmp_path / "images" / "cat" / "=1+1.png").write_bytes((tmp_path / "images" / "dog" / "0.png").read_bytes())
    (tmp_path / "images" / "dog" / "broken.png").write_bytes(b"no image")
    (tmp_path / "images" / "dog" / ".hidden.png").write_bytes(b"no image")
    return tmp_path


def read(path):
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(path).to_pylist()


def test_formats_say_the_same(tiny_run, place, capsys):
    """Three formats, three classes, an unreadable image in its own row; confidences are the run's own."""
    tables = {}
    for suffix in ("csv", "jsonl", "parquet"):
        out = place / f"p.{suffix}"
        assert main(["predict", str(tiny_run), str(place / "images"), "--out", str(out), "--top-k", "3"]) == 0
        tables[suffix] = read(out)
        assert "1 image could not be read" in capsys.readouterr().out
    assert [*tables["csv"][0]] == ["path", "label", "confidence", "label_2", "confidence_2", "label_3", "confidence_3",
                                   "error"]  # fmt: skip
    for suffix in ("csv", "parquet"):
        for row, other in zip(tables[suffix], tables["jsonl"], strict=True):
            assert row["path"] == other["path"]
            assert row["label_3"] == other["label_3"]
            assert float(row["confidence_2"] or 0) == pytest.approx(other["confidence_2"] or 0, abs=1e-6)
            assert (row["error"] is None) == (other["error"] is None)
    found = tables["jsonl"]
    assert [row["path"] for row in found] == sorted(row["path"] for row in found)
    assert str(place / "images" / "cat" / "=1+1.png") in [row["path"] for row in found]
    bad = [row for row in found if row["error"]]
    assert [Path(row["path"]).name for row in bad] == ["broken.png"]
    assert bad[0]["label"] is bad[0]["confidence"] is None
    assert bad[0]["error"] == "not an image of a format that is read"
    good = [row for row in found if not row["error"]]
    proba = biwaa.load(tiny_run).predict_proba([row["path"] for row in good])
    order = np.argsort(-proba, axis=1)
    names = biwaa.load(tiny_run).classes
    assert [row["label_2"] for row in good] == names[order[:, 1]].tolist()
    assert np.abs(np.take_along_axis(proba, order, 1)[:, 2] - [row["confidence_3"] for row in good]).max() < 1e-4


def test_lists_globs_and_standard_input(tiny_run, place, monkeypatch):
    images = place / "images"
    (place / "list.txt").write_text("cat/0.png 1\ndog/gone.png\n\ncat/=1+1.png\n")
    out = place / "p.csv"

    def predicted(*paths):
        predict_paths(tiny_run, tuple(map(str, paths)), out, "cpu", 4)
        return [(Path(row["path"]).name, row["error"] is None) for row in read(out)]

    assert predicted(f"{place / 'list.txt'}@{images}") == [("0.png", True), ("gone.png", False), ("=1+1.png", True)]
    assert len(predicted(images / "*" / "1*.png")) == 3 * 2
    assert len(predicted(images / "**" / "*.png")) == 12 * 2 + 2
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{images}/cat/0.png\n{images}/dog/broken.png\n"))
    assert predicted("-", images / "dog" / "3.png") == [("0.png", True), ("broken.png", False), ("3.png", True)]
    with pytest.raises(biwaa.BiwaaError, match="no image matches"):
        predicted(images / "*.tiff")


def test_lists_may_have_labels_and_names_that_end_in_numbers(tiny_run, place):
    """A number at the end belongs to the name where such a file exists, as it may where there is no suffix."""
    shutil.copy(place / "images" / "cat" / "0.png", place / "scan 12")
    (place / "list.txt").write_text(f"scan 12\nscan 13\n\n  images/cat/1.png\t-7  \n{'x' * 5000} 1\n")
    predict_paths(tiny_run, (str(place / "list.txt"),), place / "p.csv", "cpu", 4)
    found = [(Path(row["path"]).name[:20], row["error"] is None) for row in read(place / "p.csv")]
    assert found == [("scan 12", True), ("scan", False), ("1.png", True), ("x" * 20, False)]


def test_folders_are_walked_as_for_training(tiny_run, place, capsys):
    """Files in the order of their paths; hidden names, links to folders and broken links are passed over aloud."""
    images = place / "images"
    (images / ".thumbs").mkdir()
    shutil.copy(images / "cat" / "0.png", images / ".thumbs" / "0.png")
    shutil.copy(images / "cat" / "0.png", images / "cat.png")
    (images / "dog" / "folder.png").symlink_to(images / "cat")
    (images / "dog" / "gone.png").symlink_to(images / "nothing")
    found = list(images_below(images, PassedOver()))
    assert found == sorted(path for path in images.rglob("*") if path.suffix == ".png" and path.is_file()
                           and ".thumbs" not in path.parts and path.name != ".hidden.png")  # fmt: skip
    predict_paths(tiny_run, (str(images),), place / "p.csv", "cpu", 4)
    assert [row["path"] for row in read(place / "p.csv")] == list(map(str, found))
    assert "passed over: 2 hidden images and helper folders" in capsys.readouterr().err


def test_batches_are_written_as_they_come(tiny_run, place, monkeypatch):
    """Whenever a set of files is opened, the rows of all sets before it are in the table already."""
    seen = []
    monkeypatch.setattr("biwaa.inference.predict_paths.SET_SIZE", 4)
    ours = stream.FileImages

    def counting(paths):
        drafts = [path for path in place.iterdir() if path.name.startswith(".p.csv.")]
        seen.append((len(paths), len(drafts[0].read_text().splitlines()) - 1 if drafts else 0))
        return ours(paths)

    monkeypatch.setattr(stream, "FileImages", counting)
    read, bad = predict_paths(tiny_run, (str(place / "images"),), place / "p.csv", "cpu", 4)
    assert (read, bad) == (25, 1)
    assert seen == [(4, 4 * number) for number in range(6)] + [(2, 24)]


def test_parquet_is_written_in_groups(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("biwaa.inference.prediction_table.ROW_GROUP", 5)
    odd = os.fsdecode(b"caf\xe9.png")
    with writing(tmp_path / "p.parquet", ("x", "y"), 1) as write:
        for _ in range(3):
            write(rows([odd, "b", "c", "d"], torch.full((4, 2), 0.5), {1: "why"}, ("x", "y"), 1))
    assert parquet.ParquetFile(tmp_path / "p.parquet").metadata.num_row_groups == 3
    table = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert table[8] == {"path": "caf\\xe9.png", "label": "x", "confidence": 0.5, "error": None}
    assert table[9]["error"] == "why"


def test_what_cannot_be_written(tiny_run, place, monkeypatch, capsys):
    words = ["predict", str(tiny_run), str(place / "images"), "--out"]
    assert main([*words, str(place / "p.xlsx")]) == 2
    assert ".csv, .jsonl, .parquet" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main([*words, str(place / "p.parquet")]) == 2
    assert "pip install 'biwaa[parquet]'" in capsys.readouterr().err
    assert main([*words, str(place / "p.csv"), "--top-k", "4"]) == 2
    assert "the model's 3 classes, not 4" in capsys.readouterr().err
    assert not list(place.glob("p.*"))


def test_a_pipe_gets_csv(tiny_run, place):
    done = subprocess.run(
        [COMMAND, "predict", tiny_run, "-", "--out", "/dev/stdout"], input=f"{place}/images/cat/0.png\n",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"path,label,confidence,error\n{place}/images/cat/0.png,")
