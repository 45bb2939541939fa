"""A few labels of the target: how they are read, that no other label reaches training, and that none is scored on."""

import csv

import numpy as np
import pandas
import pytest
import torch
from conftest import TINY, write_images
from test_solvers import shifted

import biwaa
from biwaa.cli import main
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.domains.target_labels import target_labels
from biwaa.images.batches import FeatureInputs, Joined
from biwaa.paths import places
from biwaa.recipe import load_recipe
from biwaa.result import read_result


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def some(labels, count, seed=1):
    """(N,) a few of the labels, -1 elsewhere."""
    given = np.full(len(labels), -1)
    drawn = np.random.default_rng(seed).permutation(len(labels))[:count]
    given[drawn] = labels[drawn]
    return given


SOLVED = load_recipe("robust").replace(freeze_backbone=True)
STEPS = load_recipe("robust").replace(
    freeze_backbone=True, method="mcc_teacher", steps=20, rounds=2, batch_size=16, bottleneck=16, choice="last"
)


@pytest.mark.parametrize("recipe", [SOLVED, STEPS], ids=["solved", "by steps"])
def test_labels_that_were_not_handed_over_change_no_byte(tmp_path, recipe):
    source, labels, target = shifted(rows=200, noise=2.5)
    given = some(labels, 20)
    others = np.where(given < 0, np.roll(labels, 1), given)
    runs = {
        name: biwaa.adapt(
            (source, labels), shown, target_labels=handed, recipe=recipe, out=tmp_path / name, verbose=False
        ).folder
        for name, shown, handed in [
            ("true", (target, labels), given),
            ("shuffled", (target, others), given),
            ("bare", target, given),
            ("none", (target, labels), None),
            ("wrong", target, np.where(given < 0, -1, (given + 1) % 5)),
        ]
    }
    models = {name: (run / "model.safetensors").read_bytes() for name, run in runs.items()}
    assert models["true"] == models["shuffled"] == models["bare"]
    assert len({models[name] for name in ("true", "none", "wrong")}) == 3
    tables = {name: (run / "predictions.csv").read_bytes() for name, run in runs.items()}
    assert tables["true"] == tables["shuffled"] == tables["bare"]
    stages = {name: (run / "checkpoints" / "source-only.safetensors") for name, run in runs.items()}
    weights = {name: biwaa.tensors.load_tensors(path)[0]["classifier.weight"] for name, path in stages.items()}
    assert torch.equal(weights["true"], weights["none"])  # source-only stays what there is without the target


def test_nothing_is_scored_on_labels_that_were_trained_on(tmp_path):
    source, labels, target = shifted(rows=200)
    given = some(labels, 20)
    wrong = np.where(given < 0, labels, (labels + 1) % 5)  # where they were handed over, the target's own are nonsense
    run = biwaa.adapt((source, labels), (target, wrong), target_labels=given, out=tmp_path / "run", verbose=False)
    predicted = rows_of(run.folder / "predictions.csv")
    assert [row["given"] for row in predicted] == ["" if k < 0 else str(k) for k in given]
    found = np.array([int(row["label"]) for row in predicted])
    right = (found == labels)[given < 0].mean()
    assert run.result.accuracy.adapted.over_images == pytest.approx(right, abs=1e-6)
    assert run.result.target.labels_given == 20
    kept = rows_of(run.folder / "labels.csv")
    assert [row["label"] == "" for row in kept] == (given >= 0).tolist()
    assert (found == given)[given >= 0].mean() > 0.9  # they are learned


def test_a_few_labels_help_where_the_target_is_far():
    """Two classes of the target have changed places with each other."""
    source, labels, target = shifted(rows=300, noise=1.2)
    swapped = np.array([1, 0, 2, 3, 4])[labels]
    plain = biwaa.adapt((source, labels), (target, swapped), verbose=False).result.accuracy
    taught = biwaa.adapt((source, labels), (target, swapped), target_labels=some(swapped, 50), verbose=False)
    assert taught.result.accuracy.adapted.over_images > plain.adapted.over_images + 0.2


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("folders")
    write_images(place / "source", {"cat": 12, "dog": 12, "eel": 12}, seed=0, size=16)
    write_images(place / "target", {"cat": 9, "dog": 9, "eel": 9}, seed=1, size=20)
    return place


def test_every_form_is_read_alike(folders):
    target = open_domain(str(folders / "target"))
    bare = Domain(target.spec, target.images)
    classes = ("eel", "cat", "dog")
    named = {target.images.names[0]: "cat", target.images.names[10]: "dog"}
    table = {"path": list(named), "label": list(named.values())}
    one_each = [None] * 27
    one_each[0], one_each[10] = "cat", "dog"
    file = folders / "some.csv"
    file.write_text("path,label\ntarget/cat/0.png,cat\ntarget/dog/1.png,dog\ntarget/dog/2.png,\n")
    forms = [named, table, pandas.DataFrame(table), one_each, file, str(file)]
    expected = np.full(27, -1)
    expected[[0, 10]] = 1, 2
    for form in forms:
        assert target_labels(form, bare, classes, "source").tolist() == expected.tolist()


def test_places_are_exact_or_end_alike():
    names = ["/a/b/1.png", "/a/c/1.png", "/a/c/2.png"]
    assert places(["/a/c/1.png", "c/1.png", "2.png", "1.png", "d/2.png", ""], names) == [1, 1, 2, None, None, None]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,label\ntarget/cat/0.png,cat\ntarget/cat/99.png,cat\n", "line 3: {target} has no image target"),
        ("path,label\ntarget/cat/0.png,cat\ntarget/cat/0.png,dog\n", "line 3: target/cat/0.png is there twice"),
        ("path,label\ntarget/cat/0.png,cat\ntarget/dog/0.png,dgo\n", "line 3: dgo is no class of"),
        ("path,label\ntarget/cat/0.png,unknown\n", "add --unknown auto, or leave it out"),
        ("path,label\ntarget/cat/0.png,\n", "has no label filled in"),
        ("image_name,word\na,b\n", "one column must be called path"),
        ("", "is empty: one column"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe\x00", "is not a text file in UTF-8"),
        ("path,label\n" + "target/cat/0.png,cat\n" * 10_001, "more than 10000 lines"),
        (None, "no such file"),
        ("every", "nothing is left to adapt to"),
    ],
)
def test_bad_labels_are_refused_in_one_sentence(folders, tmp_path, capsys, text, told):
    file = folders / "bad.csv"
    file.unlink(missing_ok=True)
    if text == "every":
        target = open_domain(str(folders / "target"))
        text = "path,label\n" + "".join(f"{name},cat\n" for name in target.images.names)
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    words = ["train", "--source", str(folders / "source"), "--target", str(folders / "target"), "--out",
             str(tmp_path / "run"), "--batch-size", "8", "--target-labels", str(file)]  # fmt: skip
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.format(target=folders / "target", file=file) in error
    assert error.endswith(".")
    assert not (tmp_path / "run").exists()


def test_methods_that_do_not_see_the_target_refuse_its_labels():
    source, labels, target = shifted(rows=100)
    with pytest.raises(biwaa.BiwaaError, match="learns from the source alone"):
        biwaa.adapt((source, labels), target, target_labels=some(labels, 9), method="source_only", verbose=False)


def test_images_go_on_with_their_labels_and_are_not_scored_on_them(folders, tmp_path, capsys):
    """End to end, through the commands: train, resume by --out alone, evaluate on the run's own target."""
    file, run = folders / "known.csv", tmp_path / "run"
    names = ["target/cat/0.png", "target/dog/0.png", "target/eel/0.png", "target/eel/1.png"]
    file.write_text("path,label\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in names))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(biwaa.recipe.dump_recipe(TINY.replace(steps=6)))
    words = ["train", "--recipe", str(recipe), "--source", str(folders / "source"), "--target",
             str(folders / "target"), "--out", str(run)]  # fmt: skip
    assert main([*words, "--target-labels", str(file)]) == 0
    assert "23 of 27 images" in capsys.readouterr().out
    model = (run / "model.safetensors").read_bytes()
    (run / "checkpoints" / "round_0.safetensors").unlink()
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert (run / "model.safetensors").read_bytes() == model
    capsys.readouterr()
    file.write_text("path,label\ntarget/cat/0.png,dog\n")
    assert main([*words, "--resume", "--target-labels", str(file)]) == 2
    assert "given_labels" in capsys.readouterr().err
    assert main(["evaluate", str(run), str(folders / "target")]) == 0
    told = capsys.readouterr().out
    assert "on 23 labelled images" in told
    assert "4 images are left out whose labels the run was trained on" in told
    assert read_result(run).accuracy.adapted.over_images == pytest.approx(
        biwaa.evaluations.read_evaluations(run)[0].accuracy.over_images
    )
    assert main(["evaluate", str(run), str(run / "target_labels.csv")]) == 2
    assert "trained on all labels" in capsys.readouterr().err


def test_joined_rows_come_in_the_order_that_is_asked_for():
    first, second = FeatureInputs(torch.arange(6.0)[:, None]), FeatureInputs(10 + torch.arange(4.0)[:, None])
    joined = Joined(first, second, np.array([3, 1, 1]))
    assert len(joined) == 9
    assert joined.batch(np.array([7, 0, 6, 5, 8]))[:, 0].tolist() == [11, 0, 13, 5, 11]
    assert joined.batch(np.array([2, 4]))[:, 0].tolist() == [2, 4]
