"""What folders and lists have in them: helpers, links, other endings, parts of a data set, names that look alike."""

import csv
import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from conftest import TINY, command, write_images
from test_bad_input import refused, train

import biwaa
from biwaa.domains.classes import match_classes, tell_oddities
from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING
from biwaa.domains.spec import open_domain
from biwaa.domains.stream import PassedOver, image_sets
from biwaa.errors import BiwaaError
from biwaa.images.images import ArrayImages


@pytest.fixture
def photos(tmp_path):
    """Two classes of three images each."""
    return write_images(tmp_path / "photos", {"cat": 3, "dog": 3})


def found(*paths):
    """The images of paths, as `biwaa predict` finds them, and what was passed over."""
    passed = PassedOver()
    return [name for images in image_sets(tuple(map(str, paths)), passed) for name in images.names], passed


def clutter(photos):
    """One or more of everything that is no image."""
    image = (photos / "cat" / "0.png").read_bytes()
    for name in ("a.HEIC", "b.heic", "c.jpe", "noending", "d.png "):
        (photos / "cat" / name).write_bytes(image)
    (photos / "dog" / "linked").symlink_to(photos / "cat")
    (photos / "dog" / "gone.png").symlink_to(photos / "nothing.png")


def test_what_is_passed_over_is_counted_with_its_reason(photos):
    clutter(photos)
    domain = open_domain(str(photos))
    assert domain.counts() == {"cat": 3, "dog": 3}
    assert domain.passed_over.numbers() == {"ending": 5, "link": 1, "broken": 1}
    assert dict(domain.passed_over.endings) == {".heic": 2, ".jpe": 1, "": 1, ".png ": 1}
    text = str(domain.passed_over)
    assert "5 files without an image's ending (.heic 2, .jpe 1, none 1, '.png ' 1)" in text
    assert f"1 link to a folder ({photos}/dog/linked)" in text
    assert f"1 broken link ({photos}/dog/gone.png)" in text


def test_every_command_says_what_it_passed_over(photos, tmp_path, tiny_run, capsys):
    clutter(photos)
    words = "5 files without an image's ending"
    done = command("check", photos)
    assert done.returncode == 0
    assert sum(words in line for line in done.stdout.splitlines()) == 1
    (facts,) = json.loads(command("check", photos, "--json").stdout)
    assert facts["passed_over"] == {"ending": 5, "link": 1, "broken": 1}
    done = train(photos, write_images(tmp_path / "other", {"cat": 6, "dog": 6}, seed=1), tmp_path / "run",
                 "--batch-size", "4", "--source-held-out", "0")  # fmt: skip
    assert f"passed over in {photos}: {words}" in done.stderr
    assert f"passed over: {words}" in command("predict", tiny_run, photos, "--out", tmp_path / "p.csv").stderr
    assert f"passed over in {photos}: {words}" in command("evaluate", tiny_run, photos).stderr
    capsys.readouterr()
    biwaa.load(tiny_run).predict(photos)
    assert words in capsys.readouterr().err


def test_a_place_with_other_files_alone_says_which(tmp_path):
    folder = write_images(tmp_path / "phone", {"cat": 2})
    for path in (folder / "cat").iterdir():
        path.rename(path.with_suffix(".HEIC"))
    for opening in (folder, folder / "cat"):
        with pytest.raises(BiwaaError, match=r"2 files without an image's ending \(\.heic 2\)"):
            open_domain(str(opening))
        with pytest.raises(BiwaaError, match=r"\.heic 2"):
            found(opening)


def test_a_folder_that_cannot_be_read_is_an_error(photos, monkeypatch):
    (photos / "dog" / "more").mkdir()
    scandir = os.scandir

    def locked(folder):
        if str(folder).endswith("more"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    for reads in (lambda: open_domain(str(photos)), lambda: found(photos), lambda: found(photos / "**" / "*.png")):
        with pytest.raises(BiwaaError, match="dog/more cannot be read"):
            reads()


def test_helper_folders_count_nowhere(photos):
    """At the top, within a class and in what `predict` is given."""
    for parent in (photos, photos / "cat", photos / "dog"):
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".hidden"):
            shutil.copytree(photos / "cat", parent / name, ignore=lambda folder, names: set(names) - {"0.png"})
    (photos / "cat" / "._0.png").write_bytes(b"left by macOS")
    domain = open_domain(str(photos))
    assert domain.counts() == {"cat": 3, "dog": 3}
    assert domain.passed_over.numbers() == {"helper": 13}
    for paths in ((photos,), (photos / "*",), (photos / "**" / "*.png",)):
        assert len(found(*paths)[0]) == 6, paths
    assert len(found(photos / "cat" / "@eaDir")[0]) == 1  # named, it is meant


def test_globs_name_what_a_shell_would(photos):
    """Folders that match are walked, endings match in either case, links are followed where they are named."""
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "LOUD.PNG")
    (photos / "cat" / "notes.txt").write_text("no image")
    (photos / "cats").symlink_to(photos / "cat")
    assert len(found(photos / "*" / "*.png")[0]) == 3 + 1 + 3 + 3 + 1
    names, passed = found(photos / "c?t" / "*")
    assert len(names) == 4
    assert passed.numbers() == {"ending": 1}
    assert len(found(photos / "d*")[0]) == 3
    assert len(found(photos / "**")[0]) == 7
    names, passed = found(photos / "**" / "*.png")
    assert len(names) == 7
    assert passed.numbers() == {"link": 1}
    assert found(photos / "cat" / "[0-1].png")[0] == [str(photos / "cat" / f"{number}.png") for number in range(2)]


@pytest.mark.parametrize("parts", [("train", "test"), ("Train", "val", "test_set2"), ("train",)])
def test_parts_of_a_data_set_are_no_classes(photos, tmp_path, parts):
    root = tmp_path / "data"
    for part in parts[:1]:
        shutil.copytree(photos, root / part)
    for part in parts[1:]:
        shutil.copytree(photos / "cat", root / part.replace("_set2", ""))
    for done in (command("check", root), train(root, photos, tmp_path / "run")):
        refused(done, "parts of a data set", f"name one of them, such as {root / parts[0]}")
    assert open_domain(str(root / parts[0])).classes == ("cat", "dog")


def test_a_folder_that_holds_the_class_folders_is_named(photos, tmp_path):
    root = tmp_path / "office"
    shutil.copytree(photos, root / "images")
    (root / "notes").mkdir()
    for done in (command("check", root), train(root, photos, tmp_path / "run")):
        refused(done, f"name {root / 'images'}, if those are the classes")
    assert open_domain(str(root / "images")).classes == ("cat", "dog")


def test_folders_within_classes_are_still_searched(photos):
    """CLASS/train/a.png and CLASS/instance/a.png are images of CLASS; a class may be called test."""
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            (photos / name / part).mkdir()
        for number, part in enumerate(("train", "test", "train")):
            (photos / name / f"{number}.png").rename(photos / name / part / f"{number}.png")
    (photos / "dog").rename(photos / "test")
    assert open_domain(str(photos)).counts() == {"cat": 3, "test": 3}


def test_names_that_differ_in_their_code_alone_are_one_class():
    composed, apart = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")
    images = ArrayImages(np.zeros((2, 4, 4), np.uint8), "x")
    domain = Domain("mac", images, ("bar", apart), np.array([1, 0]))
    matched = match_classes(domain, (composed, "bar"))
    assert matched.classes == (composed, "bar")
    assert matched.labels is not None
    assert matched.labels.tolist() == [0, 1]
    with pytest.raises(BiwaaError, match=r"two classes called .*'cafe\\u0301' and 'caf\\xe9'"):
        match_classes(Domain("both", images, (apart, composed), np.array([0, 1])), (composed, "bar"))


@pytest.mark.parametrize(
    "one, two, words",
    [
        ("cat ", "cat", ("'cat' and 'cat '", "in spaces", "only in mine: cat", "only in here: 'cat '")),
        ("Cat", "cat", ("'cat' and 'Cat'", "in case")),
        ("cat\u200b", "cat", ("only in here: 'cat\\u200b'", "'cat' and 'cat\\u200b' differ")),
        ("\uff43at", "cat", ("'cat' and '\\uff43at'",)),
    ],
)
def test_names_that_look_alike_are_shown_apart(one, two, words):
    domain = Domain("here", ArrayImages(np.zeros((2, 4, 4), np.uint8), "x"), (one, "dog"), np.array([0, 1]))
    with pytest.raises(BiwaaError, match="the classes differ") as caught:
        match_classes(domain, (two, "dog"), other="mine")
    for word in words:
        assert word in str(caught.value)


def test_classes_of_one_domain_that_look_alike_are_named(capsys):
    """They may be meant, as letters in both cases are, so it is no error."""
    images = ArrayImages(np.zeros((3, 4, 4), np.uint8), "x")
    tell_oddities(Domain("here", images, ("Dog", "cat", "dog"), np.arange(3)), Domain("there", images))
    assert "warning: here has classes that look alike: 'Dog' and 'dog' differ in case." in capsys.readouterr().err
    tell_oddities(Domain("here", images, ("bird", "cat", "dog"), np.arange(3)), Domain("there", images))
    assert not capsys.readouterr().err


def table(photos, header=("path", "label"), delimiter=",", name="photos.csv"):
    """A CSV file beside the photos, classes by name."""
    file = photos.parent / name
    with file.open("w", newline="", encoding="utf-8-sig") as opened:
        rows = [(path.relative_to(photos), path.parent.name) for path in sorted(photos.rglob("*.png"))]
        csv.writer(opened, delimiter=delimiter).writerows([header, *rows] if header else rows)
    return file


@pytest.mark.parametrize(
    "header, delimiter, name",
    [(("path", "label"), ",", "a.csv"), (("Filename", "Class"), ";", "b.CSV"), ((), ",", "c.csv"),
     (("image", "category"), "\t", "d.tsv")],
)  # fmt: skip
def test_a_table_is_a_domain(photos, header, delimiter, name):
    file = table(photos, header, delimiter, name)
    domain = open_domain(f"{file}@{photos}")
    assert domain.counts() == {"cat": 3, "dog": 3}
    assert [os.path.relpath(path, photos) for path in domain.images.names] == [
        f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3)
    ]
    assert found(f"{file}@{photos}")[0] == list(domain.images.names)


def test_tables_train_and_are_predicted(tmp_path, tiny_run):
    source, target = (write_images(tmp_path / name, {"cat": 8, "dog": 8}, seed=seed) for seed, name in enumerate("st"))
    run = biwaa.adapt(
        f"{table(source, name='s.csv')}@{source}", f"{table(target, ('path', 'x'), name='t.csv')}@{target}",
        out=tmp_path / "run", recipe=TINY, verbose=False,
    )  # fmt: skip
    assert run.result.classes == ("cat", "dog")
    assert run.result.accuracy is None  # the target's table has no column of labels
    done = command("evaluate", run.folder, f"{tmp_path / 's.csv'}@{source}", "--json")
    assert json.loads(done.stdout)["images"] == 16
    predicted = tmp_path / "run" / "predictions.csv"
    assert open_domain(str(predicted)).counts().keys() <= {"cat", "dog"}  # a run's own table is one too


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ("empty",)),
        ("name,kind\na.png,cat\n", ("'name', 'kind'", "one column must be called path")),
        ("path,label\ncat/0.png\n", ("line 2", "no path and label")),
        ("path,label\ngone.png,cat\n", ("line 2", "no such image", "@ROOT")),
        ('path,label\n"cat/0.png,cat\n' + "x" * 200_000, ("not CSV",)),
    ],
)
def test_tables_that_are_wrong_say_where(photos, text, words):
    file = photos / "list.csv"
    file.write_text(text)
    refused(command("check", file), *words)


def test_an_empty_label_of_a_table_is_a_missing_one(photos):
    file = photos / "list.csv"
    file.write_text("label,path\ncat,cat/0.png\n,cat/1.png\n")
    domain = open_domain(str(file))
    assert domain.classes == ("cat",)
    assert domain.labels.tolist() == [0, MISSING]


def test_lists_may_be_written_in_capitals(photos):
    (photos / "LIST.TXT").write_text("cat/0.png 0\ndog/0.png 1\n")
    assert open_domain(str(photos / "LIST.TXT")).classes == ("cat", "dog")
    assert len(found(photos / "LIST.TXT")[0]) == 2


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "PHOTOS.ZIP"])
def test_an_archive_is_to_be_unpacked(tmp_path, tiny_run, name):
    (tmp_path / name).write_bytes(b"PK")
    for words in (("check",), ("evaluate", tiny_run), ("predict", tiny_run)):
        refused(command(*words, tmp_path / name), f"{name} is an archive", "unpack it")
    with pytest.raises(BiwaaError, match="is an archive"):
        biwaa.load(tiny_run).predict(tmp_path / name)
