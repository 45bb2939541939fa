"""What goes in as a label comes out as one: types, missing labels, data sets of every form, single pictures."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import write_images
from PIL import Image

import biwaa
from biwaa.cli import main
from biwaa.domains.labels import MISSING, read_labels
from biwaa.domains.objects import as_domain, as_images
from biwaa.domains.spec import open_domain
from biwaa.domains.trainable import check_pair

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 3), dtype=np.uint8)
NUMBERS = [0, 1, 1, 0, 1, 0]
NAMES = ["cat", "dog"]


class Items:
    """A data set of whatever items."""

    def __init__(self, items, **named):
        self.items = items
        vars(self).update(named)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def pictures():
    return [Image.fromarray(pixels) for pixels in PIXELS]


def pairs(labels):
    return list(zip(pictures(), labels, strict=True))


# --- the type of labels -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    return rng.normal(np.eye(4)[y] * 6, 1.0), y


def adapted(source, labels, **more):
    settings = {"rounds": 1, "steps": 5, "batch_size": 20, "verbose": False} | more
    return biwaa.adapt((source, labels), source + 1.0, **settings)


@pytest.mark.parametrize(
    "values, kind",
    [
        ([3, 10], "i"), (np.array([3, 10], np.uint8), "i"), ([3.0, 10.0], "i"), ([False, True], "b"),
        (["cat", "dog"], "U"), (["3", "10"], "U"), ([3, "dog"], "U"),
    ],
)  # fmt: skip
def test_predictions_are_of_the_labels_type(rows, tmp_path, values, kind):
    source, y = rows
    labels = [values[k] for k in y]
    run = adapted(source, labels, out=tmp_path / "run")
    expected = [str(label) for label in labels] if kind == "U" else labels
    for model in (run, biwaa.load(tmp_path / "run"), biwaa.Run(tmp_path / "run")):
        found = model.predict(source + 1.0)
        assert found.dtype.kind == model.classes.dtype.kind == kind
        assert (found == np.array(expected)).mean() > 0.9
        columns = model.predict_proba(source + 1.0).argmax(axis=1)
        assert (model.classes[columns] == found).all()
    assert set(run.result.classes) == {str(value).removesuffix(".0") for value in values}


def test_numbers_of_files_come_back_as_numbers(rows, tmp_path):
    source, y = rows
    np.savez(tmp_path / "a.npz", s_x=source, s_y=y, t_x=source + 1.0)
    run = biwaa.adapt(f"{tmp_path}/a.npz:s", f"{tmp_path}/a.npz:t", rounds=1, batch_size=20, verbose=False)
    assert (run.predict(source + 1.0) == y).mean() > 0.9
    root = write_images(tmp_path / "r", {"all": 3})
    (root / "list.txt").write_text("all/0.png 0\nall/1.png 1\nall/2.png 1\n")
    assert open_domain(str(root / "list.txt")).label_kind == "integer"
    assert open_domain(str(write_images(tmp_path / "f", {"0": 1, "1": 1}))).label_kind == "text"


@pytest.mark.parametrize("values", [[3, 7], [-1, 1], ["a", "b"], [2.0, 5.0], [False, True]])
def test_the_estimators_run_and_its_model_have_the_labels_of_y(rows, tmp_path, values):
    source, y = rows
    labels = np.array(values)[y]
    domain = np.repeat([1, -1], 60)
    adapter = biwaa.DomainAdapter(rounds=1, steps=5, out=tmp_path / "run")
    adapter.fit(np.vstack([source, source + 1.0]), np.tile(labels, 2), sample_domain=domain)
    for found in (adapter.predict(source), adapter.run_.predict(source), biwaa.load(tmp_path / "run").predict(source)):
        assert (found == labels).mean() > 0.9
    assert adapter.classes_.tolist() == values


def test_the_estimator_reads_no_label_that_is_missing(rows):
    source, y = rows
    both, domain = np.vstack([source, source + 1.0]), np.repeat([1, -1], 60)
    for gone in (None, np.nan):
        for values in (["a", "b"], [3, 7]):
            known = [values[k] for k in y]
            adapter = biwaa.DomainAdapter(rounds=1, steps=5).fit(both, known + [gone] * 60, sample_domain=domain)
            assert adapter.classes_.tolist() == values
            assert (adapter.predict(source) == known).mean() > 0.9
            with pytest.raises(ValueError, match="2 of 60 source rows have no label"):
                biwaa.DomainAdapter().fit(both, [gone, gone, *known[2:], *known], sample_domain=domain)


# --- missing labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels, classes",
    [
        (["cat", None, "dog", "cat"], ("cat", "dog")), (["cat", float("nan"), "dog", "cat"], ("cat", "dog")),
        (["cat", "", "dog", "cat"], ("cat", "dog")), ([4, -1, 11, 4], ("4", "11")), ([4, None, 11, 4], ("4", "11")),
        (np.array([4, np.nan, 11, 4]), ("4", "11")), (torch.tensor([4, -1, 11, 4]), ("4", "11")),
        (np.array(["cat", None, "dog", "cat"], object), ("cat", "dog")),
    ],
)  # fmt: skip
def test_a_missing_label_is_missing_however_it_is_written(labels, classes):
    found = read_labels(labels, 4, "here")
    assert found.classes == classes
    assert found.numbers.tolist() == [0, MISSING, 1, 0]
    assert read_labels([None] * 4, 4, "here") is None
    domain = as_domain((PIXELS[:4], labels), "here")
    with pytest.raises(biwaa.BiwaaError, match=r"no label for 1 of its 4 images \(here\[1\]\)"):
        check_pair(domain, domain, 2)


def test_pandas_marks_of_missing_labels():
    pandas = pytest.importorskip("pandas")
    for column in (
        pandas.Series(["cat", None, "dog", "cat"]), pandas.Series([0, None, 1, 0]),
        pandas.Series([0, None, 1, 0], dtype="Int64"), pandas.Series(["cat", pandas.NA, "dog", "cat"], dtype="string"),
        pandas.Series(pandas.Categorical(["cat", None, "dog", "cat"])),
    ):  # fmt: skip
        assert read_labels(column, 4, "here").numbers.tolist() == [0, MISSING, 1, 0], column.dtype
    assert read_labels(pandas.Series([4, 11, 4]), 3, "here").kind == "integer"


@pytest.mark.parametrize(
    "labels, message",
    [
        ("cats!!", "labels of type str"), (5, "labels of type int"), ([0, 1], "6 images and 2 labels"),
        ([0.5] * 6, "the label '0.5' of type float"), ([b"x"] * 6, "of type bytes"), ([(1, 2)] * 6, "several labels"),
        (np.full((6, 3), 1 / 3), "several labels an image"), (np.zeros((6, 2, 2)), r"labels of shape \(6, 2, 2\)"),
        ([float("inf")] * 6, "the label 'inf'"),
    ],
)  # fmt: skip
def test_labels_that_are_none(labels, message):
    with pytest.raises(biwaa.BiwaaError, match=message):
        as_domain((PIXELS, labels), "here")


def test_a_target_with_some_labels_is_scored_by_these(rows, tmp_path, capsys):
    """Reports, files, page and training are those of the labelled images alone; a class may have none."""
    rng = np.random.default_rng(1)
    y = np.arange(60) % 3
    source, target = (rng.normal(np.eye(3)[y] * 6, 1.0) + shift for shift in (0.0, 1.0))
    names = np.array(["cat", "dog", "eel"], object)[y]
    some = names.copy()
    some[y == 2] = None
    some[:10] = np.nan
    settings = {"rounds": 1, "batch_size": 20, "verbose": True}
    whole = biwaa.adapt((source, names), (target, names), out=tmp_path / "whole", **settings)
    run = biwaa.adapt((source, names), (target, some), held_out=(target + 0.01, some), out=tmp_path / "run", **settings)
    told = capsys.readouterr().err
    assert "27 of 60 images of target have no label: the report passes over them" in told
    assert "27 of 60 images of held_out have no label" in told
    assert (run.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    known = np.array([isinstance(label, str) for label in some])
    right = (run.predict(target) == names)[known].mean()
    assert run.result.target.unlabelled == run.result.held_out.unlabelled == 27
    assert run.result.accuracy.adapted.over_images == pytest.approx(right, abs=1e-6)
    assert run.result.stages[-1].held_out.over_images > 0.9
    assert run.result.label_shares.true_target["eel"] == 0
    with (run.folder / "labels.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [label if label in names else "" for label in some]
    assert main(["report", str(run.folder)]) == 0
    page = (run.folder / "report.html").read_text()
    assert "Accuracy by class" in page
    assert "27 of 60 target images have no label" in page
    with pytest.raises(biwaa.BiwaaError, match="no label for 27 of its 60 images"):
        biwaa.adapt((source, some), target, **settings)
    with pytest.raises(biwaa.BiwaaError, match="no label for 27 of its images, so its classes cannot be subsampled"):
        biwaa.adapt((source, names), (target, some), target_shift="per-class:3", **settings)


def test_missing_labels_of_files(tmp_path, tiny_run, capsys):
    """check and evaluate count them, whether they come from a list or an archive."""
    root = write_images(tmp_path / "r", {"cat": 4, "dog": 4, "eel": 4}, seed=5)
    lines = [f"{name}/{k}.png {-1 if k == 3 else label}" for label, name in enumerate(("cat", "dog", "eel"))
             for k in range(4)]  # fmt: skip
    (root / "list.txt").write_text("\n".join(lines))
    assert main(["check", str(root / "list.txt")]) == 0
    assert "12 images, 3 classes, 3 images without a label" in capsys.readouterr().out
    assert main(["evaluate", str(tiny_run), str(root / "list.txt"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["images"], figures["unlabelled"]) == (9, 3)
    run = biwaa.Run(tiny_run)
    right = [run.predict(root / name / f"{k}.png")[0] == name for name in ("cat", "dog", "eel") for k in range(3)]
    assert figures["accuracy"]["over_images"] == pytest.approx(np.mean(right), abs=1e-6)
    (root / "table.csv").write_text("path,label\ncat/0.png,cat\ncat/1.png,\ndog/0.png,dog\n")
    table = open_domain(str(root / "table.csv"))
    assert (table.classes, table.labels.tolist()) == (("cat", "dog"), [0, MISSING, 1])
    np.savez(tmp_path / "a.npz", a_x=PIXELS, a_y=np.array([0, -1, 1, 0, 1, 0]), b_x=PIXELS, b_y=np.full(6, -1))
    domain = open_domain(f"{tmp_path}/a.npz:a")
    assert (domain.classes, domain.labels.tolist()) == (("0", "1"), [0, MISSING, 1, 0, 1, 0])
    assert open_domain(f"{tmp_path}/a.npz:b").labels is None
    assert main(["check", f"{tmp_path}/a.npz:a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["unlabelled"] == 1


# --- data sets --------------------------------------------------------------------------------------------------------


ONE_HOT = np.eye(2)[NUMBERS]


@pytest.mark.parametrize(
    "given, classes",
    [
        (Items(pairs(NUMBERS)), ("0", "1")), (pairs(NUMBERS), ("0", "1")),
        (pairs([NAMES[k] for k in NUMBERS]), tuple(NAMES)), (Items(pairs(ONE_HOT), classes=NAMES), tuple(NAMES)),
        (pairs(torch.from_numpy(ONE_HOT)), ("0", "1")), (pairs(ONE_HOT.tolist()), ("0", "1")),
        (pairs(torch.tensor(NUMBERS)), ("0", "1")), ((PIXELS, ONE_HOT), ("0", "1")),
        ([(label, picture) for picture, label in pairs(NUMBERS)], ("0", "1")),
        ([{"image": picture, "label": label} for picture, label in pairs(NUMBERS)], ("0", "1")),
        ([{"image": picture, "id": 9, "label": label} for picture, label in pairs(NUMBERS)], ("0", "1")),
        ([(picture, label, {"place": 3}) for picture, label in pairs(NUMBERS)], ("0", "1")),
        (Items(pairs(NUMBERS), classes=NAMES), tuple(NAMES)),
        (Items(pairs(NUMBERS), targets=NUMBERS, classes=NAMES), tuple(NAMES)),
        (torch.utils.data.Subset(Items(pairs(NUMBERS), classes=NAMES), range(6)), tuple(NAMES)),
    ],
)  # fmt: skip
def test_items_with_one_meaning(given, classes):
    domain = as_domain(given, "here")
    assert domain.classes == classes
    assert domain.labels.tolist() == NUMBERS
    images = as_images(given[0] if isinstance(given, tuple) else given, "here")
    for found in (domain.images, images):
        assert np.array_equal(found.read(4), PIXELS[4])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(pairs(NUMBERS))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"dog": PIXELS, "cat": PIXELS}, r"a dict of 'dog', 'cat': hand over one of its values, such as here\['dog'\]"),
        (Stream(), r"a stream without an index, .* hand over list\(here\)"),
        ((item for item in pairs(NUMBERS)), "a generator, a stream without an index"),
        (torch.utils.data.DataLoader(Items(pairs(NUMBERS))), r"is a DataLoader: hand over its data set, here\.dataset"),
        ([(picture, picture) for picture in pictures()], r"is \(Image, Image\): it must be a picture, or"),
        ([{"left": picture, "right": picture} for picture in pictures()], "has the fields left, right: it must have"),
        ([{"image": picture, "age": 3, "size": 4} for picture in pictures()], "in the field `label`"),
        ([(np.zeros(5), 1)] * 6, r"an item of a data set is \(ndarray \(5,\), int\)"),
        (pairs([[0.3, 0.7]] * 6), "several labels an image"), (Items([3, 4]), "an item of a data set is int"),
        (Items({}.values()), "holds no image"), (Items({7: 1}), r"here\[0\] cannot be read \(KeyError: 0\)"),
    ],
)  # fmt: skip
def test_items_without_one_meaning_get_a_sentence(given, message):
    for opened in (as_domain, as_images):
        if opened is as_images and "several labels" in message:
            continue
        with pytest.raises(biwaa.BiwaaError, match=message):
            opened(given, "here")


def test_the_streams_remedy_works():
    assert as_domain(list(Stream()), "here").labels.tolist() == NUMBERS


def test_names_are_only_given_to_the_numbers_that_they_are_for():
    """A transform that renumbers labels, in any of torchvision's ways, leaves numbers."""
    turned = [1 - k for k in NUMBERS]
    by_items = [
        Items(pairs(turned), targets=NUMBERS, classes=NAMES, target_transform=lambda k: 1 - k),
        Items(pairs(turned), classes=NAMES, target_transform=lambda k: 1 - k),
        Items(pairs(turned), classes=NAMES, transforms=lambda *pair: pair),
        Items(pairs(turned), targets=NUMBERS, classes=NAMES),  # its own __getitem__ does it
        torch.utils.data.Subset(Items(pairs(turned), targets=torch.tensor(NUMBERS), classes=NAMES), range(6)),
        torch.utils.data.Subset(Items(pairs(turned), classes=NAMES, target_transform=abs), range(6)),
    ]
    for given in by_items:
        domain = as_domain(given, "here")
        assert (domain.classes, domain.labels.tolist(), domain.label_kind) == (("0", "1"), turned, "integer")
    kept = Items(pairs(NUMBERS), targets=NUMBERS, classes=NAMES, target_transform=int)
    assert as_domain(kept, "here").classes == tuple(NAMES)
    named = Items(pairs([NAMES[k] for k in turned]), targets=NUMBERS, classes=NAMES)
    assert as_domain(named, "here").classes == tuple(NAMES)
    assert as_domain(named, "here").labels.tolist() == turned


def test_torchvisions_own_folder(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    write_images(tmp_path, {"dog": 3, "house": 3})
    plain = torchvision.datasets.ImageFolder(str(tmp_path))
    assert as_domain(plain, "here").counts() == {"dog": 3, "house": 3}
    turned = torchvision.datasets.ImageFolder(str(tmp_path), target_transform=lambda k: 1 - k)
    assert as_domain(turned, "here").labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert as_domain(turned, "here").classes == ("0", "1")
    (tmp_path / "dog" / "0.png").write_bytes(b"broken")
    assert as_domain(plain, "here").counts() == {"dog": 3, "house": 3}


@pytest.fixture
def table():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"image": pictures(), "label": NUMBERS}, features=features)


def test_tables_of_every_kind(table):
    datasets = pytest.importorskip("datasets")
    one = datasets.DatasetDict({"train": table})
    renumbered = table.with_transform(lambda batch: {**batch, "label": [1 - k for k in batch["label"]]})
    for given in (table, one, renumbered, table.with_format("torch"), list(table.to_iterable_dataset())):
        domain = as_domain(given, "here")
        assert domain.labels.tolist() == NUMBERS
        assert np.array_equal(domain.images.read(3), PIXELS[3])
    assert as_domain(renumbered, "here").classes == tuple(NAMES)
    two = datasets.DatasetDict({"train": table, "test": table})
    for given, message in (
        (two, r"a DatasetDict of 'train', 'test': hand over one of its values, such as here\['train'\]"),
        (table.to_iterable_dataset(), "IterableDataset, a stream without an index"),
        (table.add_column("more", NUMBERS).rename_column("label", "kind").cast_column(
            "more", datasets.ClassLabel(names=NAMES)), r"several \(kind, more\); keep one of them with select_columns"),
    ):  # fmt: skip
        with pytest.raises(biwaa.BiwaaError, match=message):
            as_domain(given, "here")


def test_missing_labels_of_tables(table):
    datasets = pytest.importorskip("datasets")
    some = [0, None, 1, 0, -1, 0]
    for kind, expected in (
        (datasets.ClassLabel(names=NAMES), tuple(NAMES)), (datasets.Value("int64"), ("0", "1")),
    ):  # fmt: skip
        features = datasets.Features({"image": datasets.Image(), "label": kind})
        given = datasets.Dataset.from_dict({"image": pictures(), "label": some}, features=features)
        domain = as_domain(given, "here")
        assert domain.classes == expected
        assert domain.labels.tolist() == [0, MISSING, 1, 0, MISSING, 0]
        assert domain.label_kind == ("text" if expected[0] == "cat" else "integer")
        with pytest.raises(biwaa.BiwaaError, match="no label for 2 of its 6 images"):
            check_pair(domain, domain, 2)


# --- one picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        PIXELS[0], PIXELS[0][..., :1], np.dstack([PIXELS[0], np.full((9, 9), 255, np.uint8)]), pictures()[0],
        torch.from_numpy(PIXELS[0]), torch.from_numpy(PIXELS[:1]).permute(0, 3, 1, 2), torch.zeros(1, 9, 9),
        [torch.from_numpy(PIXELS[0]).permute(2, 0, 1)], PIXELS[:1, :, :, 0],
    ],
)  # fmt: skip
def test_one_picture_is_one_picture(tiny_run, given):
    assert biwaa.load(tiny_run).predict(given).shape == (1,)
    assert len(as_domain(given, "here").images) == 1
    if isinstance(given, np.ndarray) and given.shape == (9, 9, 3):
        assert np.array_equal(as_images(given, "here").read(0), given)


@pytest.mark.parametrize("channels", [3, 4])
def test_what_may_be_one_picture_or_several_is_refused_with_a_remedy_that_works(tiny_run, channels):
    images = torch.randint(0, 256, (channels, 9, 9), dtype=torch.uint8)
    for opened in (biwaa.load(tiny_run).predict, lambda given: as_domain(given, "images")):
        with pytest.raises(biwaa.BiwaaError) as refused:
            opened(images)
    first, second = str(refused.value).partition(": write ")[2].split(" for one, ")
    one = eval(first)
    several = eval(second.split(" for ")[0])
    assert len(as_images(one, "here")) == 1
    assert len(as_images(several, "here")) == channels


def test_the_estimator_takes_rows_only():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    adapter = biwaa.DomainAdapter("demo", settings={"image_size": 12, "resize": 12})
    with pytest.raises(ValueError, match=r"X of shape \(12, 8, 3\) is one picture"):
        adapter.fit(images, np.arange(12) % 2)


def test_pictures_of_other_shapes_are_named(tiny_run):
    with pytest.raises(biwaa.BiwaaError, match=r"an image is ndarray \(3, 9, 9\) of uint8: it must be a picture"):
        biwaa.load(tiny_run).predict([PIXELS[0].transpose(2, 0, 1)])


def test_evaluate_where_only_images_without_a_label_can_be_read(tmp_path, tiny_run, capsys):
    root = write_images(tmp_path / "r", {"cat": 2})
    (root / "cat" / "0.png").write_bytes(b"broken")
    (root / "list.txt").write_text("cat/0.png 0\ncat/1.png -1\n")
    assert main(["evaluate", str(tiny_run), str(root / "list.txt"), "--skip-unreadable"]) == 2
    assert "has a label to score against" in capsys.readouterr().err
