"""Teachers: files and tables of scores, how far they are believed, runs with one and without a source."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import biwaa
from biwaa.cli import main
from biwaa.errors import BiwaaError
from biwaa.functional import nearest_neighbours
from biwaa.report.run_page import run_page
from biwaa.result import SOURCE_ONLY, TEACHER
from biwaa.share import model_card
from biwaa.solvers.prototypes import adapt_prototypes
from biwaa.solvers.taught import teach_prototypes
from biwaa.teachers.fusion import Teacher, fit_temperature, fused, mastered, own_probabilities
from biwaa.teachers.scores import Scores, as_scores, matched, read_scores

NAMES = ("photos/cat/1.jpg", "photos/cat/2.jpg", "photos/dog/1.jpg")
CLASSES = ("cat", "dog")
ROWS = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])


def write_csv(path, header="path,dog,cat", rows=("dog/1.jpg,0.7,0.3", "cat/2.jpg,0.2,0.8", "cat/1.jpg,0.1,0.9")):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def found(scores, names=NAMES, classes=CLASSES):
    return matched(as_scores(scores, "teacher"), names, classes, "photos")


def test_a_csv_is_matched_by_path_and_by_class(tmp_path):
    got = found(write_csv(tmp_path / "t.csv"))
    expected = np.log(ROWS) - np.log(ROWS).mean(axis=1, keepdims=True)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_every_form_of_the_same_scores_is_read_alike(tmp_path):
    pandas = pytest.importorskip("pandas")
    np.savez(tmp_path / "a.npz", scores=ROWS[:, ::-1], classes=["dog", "cat"])
    np.savez(tmp_path / "b.npz", scores=ROWS[::-1], classes=["cat", "dog"], paths=NAMES[::-1])
    np.savez(tmp_path / "c.npz", art_x=ROWS, classes=["cat", "dog"])
    frame = pandas.DataFrame(ROWS[::-1], columns=["cat", "dog"], index=NAMES[::-1])
    forms = [
        ROWS, torch.from_numpy(ROWS), {"dog": ROWS[:, 1], "cat": ROWS[:, 0]}, frame, frame.reset_index(names="path"),
        pandas.DataFrame(ROWS, columns=["cat", "dog"]),
        {"path": NAMES[::-1], "cat": ROWS[::-1, 0], "dog": ROWS[::-1, 1]},
        tmp_path / "a.npz", tmp_path / "b.npz", f"{tmp_path / 'c.npz'}:art",
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_allclose(found(form), found(ROWS), rtol=1e-5)


def test_scores_that_are_no_probabilities_are_logits():
    np.testing.assert_allclose(found(10 * ROWS), 10 * (ROWS - ROWS.mean(axis=1, keepdims=True)), rtol=1e-5)


def test_a_class_without_a_column_is_said(capsys):
    got = found({"cat": ROWS[:, 0], "dog": ROWS[:, 1]}, classes=("cat", "dog", "elk"))
    assert np.isnan(got[:, 2]).all()
    assert not np.isnan(got[:, :2]).any()
    assert "no column for elk" in capsys.readouterr().err


@pytest.mark.parametrize(
    "header, rows, says",
    [
        ("path,dog,kat", ("dog/1.jpg,1,2", "cat/1.jpg,1,2", "cat/2.jpg,1,2"), "kat; did you mean cat?"),
        ("path,dog,cat", ("dog/1.jpg,1,2", "cat/1.jpg,1,2"), "no row for 1 of the 3 images of photos: photos/cat/2"),
        ("path,dog,cat", ("1.jpg,1,2", "cat/2.jpg,1,2"), "several images of photos fit the row 1.jpg"),
        ("path,dog,cat", ("dog/1.jpg,1,2", "dog/1.jpg,1,2"), "the row dog/1.jpg twice"),
        ("path,dog,cat", ("dog/1.jpg,1,x",), "line 2: 'x' of class cat is no number"),
        ("path,dog,cat", ("dog/1.jpg,1",), "line 2: 2 cells, but the first line has 3"),
        ("path,dog,cat", ("dog/1.jpg,1,nan",), "not finite for dog/1.jpg"),
        ("path,dog,cat", (), "holds no scores"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_told_where(tmp_path, header, rows, says):
    with pytest.raises(BiwaaError) as error:
        found(write_csv(tmp_path / "t.csv", header, rows))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "given, says",
    [
        (ROWS[:2], "has 2 rows without paths, and photos has 3 images"),
        (np.ones((3, 4)), "4 columns without names, and there are 2 classes"),
        (np.ones(3), "a teacher is a table"),
        (object(), "a teacher is an array"),
        ("nowhere.csv", "no such file: nowhere.csv"),
        ("scores.txt", "it is a .csv or .npz file"),
    ],
)
def test_what_is_no_teacher_is_refused(given, says):
    with pytest.raises(BiwaaError) as error:
        found(given)
    assert says in str(error.value)


def test_an_archive_without_scores_names_what_it_has(tmp_path):
    np.savez(tmp_path / "t.npz", art_x=ROWS)
    with pytest.raises(BiwaaError, match=r"no array scores, it has art_x: name one as FILE.npz:NAME"):
        read_scores(str(tmp_path / "t.npz"))


# How far a teacher is believed.


def clusters(count=240, classes=6, width=8, seed=0):
    """Source and target of the same classes, the target moved; a good teacher's scores of both."""
    draw = np.random.default_rng(seed)
    means = 3 * draw.normal(size=(classes, width))
    labels, truth = (draw.permutation(np.arange(count) % classes) for _ in range(2))
    rows = [means[of] + draw.normal(size=(count, width)) for of in (labels, truth)]
    rows[1] += 0.6 * draw.normal(size=(classes, width))[truth] * 3
    units = [torch.from_numpy((part - part.mean(0)) / part.std(0)).float() for part in rows]
    scores = [3 * np.eye(classes)[of] + draw.normal(size=(count, classes)) for of in (labels, truth)]
    return units, [torch.from_numpy(of) for of in (labels, truth)], [part.astype(np.float32) for part in scores]


def accuracy(probabilities, truth):
    return float((probabilities.argmax(dim=1) == truth).float().mean())


def test_the_temperature_is_the_likeliest():
    (_, _), (labels, _), (scores, _) = clusters()
    rows, truth, weights = torch.from_numpy(scores), F.one_hot(labels, 6).float(), torch.ones(240)
    best = fit_temperature(rows, truth, weights)
    losses = [float(F.cross_entropy(factor * rows, labels)) for factor in (0.9 * best, best, 1.1 * best)]
    assert losses[1] < min(losses[0], losses[2])
    assert fit_temperature(-rows, truth, weights) == 0  # worse than chance: not heard


def test_classes_that_are_mixed_up_are_not_mastered():
    (_, _), (labels, _), (scores, _) = clusters()
    mixed = torch.from_numpy(scores[:, [1, 0, 2, 3, 4, 5]])
    assert mastered(mixed, F.one_hot(labels, 6).float(), torch.ones(240)).tolist() == [False, False, *[True] * 4]


def test_a_good_teacher_helps_and_a_bad_one_does_not_harm():
    (source, target), (labels, truth), (here, there) = clusters()
    draw = np.random.default_rng(1)

    def adapted(teacher):
        got = adapt_prototypes(source, labels, target, 6, 10, teacher)
        assert got is not None
        return accuracy(got.found, truth)

    alone = adapted(None)
    good = Teacher.of("t", there, here)
    assert 0.3 < alone < 0.9
    assert adapted(good) > max(
        alone + 0.05, accuracy(own_probabilities(good, None, None, torch.zeros(240, 1).long()), truth)
    )
    assert adapted(Teacher.of("t", draw.permutation(there), draw.permutation(here))) >= alone - 0.01
    assert adapted(Teacher.of("t", draw.permutation(there), here)) >= alone - 0.01  # right at home alone
    turned = [1, 0, 2, 3, 4, 5]
    assert adapted(Teacher.of("t", there[:, turned], here[:, turned])) >= alone - 0.01
    assert adapted(Teacher.of("t", there, None)) >= alone - 0.01


def test_a_teacher_moves_probability_among_its_own_classes_alone():
    (_, target), (labels, truth), (here, there) = clusters()
    there[:, 5] = np.nan
    here[:, 5] = np.nan
    prior = torch.rand(240, 6, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    near = nearest_neighbours(target, 5)
    got = fused(prior, Teacher.of("t", there, here), F.one_hot(labels, 6).float(), torch.ones(240), prior, near)
    torch.testing.assert_close(got[:, 5], prior[:, 5])
    torch.testing.assert_close(got.sum(dim=1), torch.ones(240))
    assert accuracy(got[truth != 5], truth[truth != 5]) > accuracy(prior[truth != 5], truth[truth != 5]) + 0.2


def test_a_target_is_learned_from_a_teacher_alone():
    (_, target), (_, truth), (_, there) = clusters()
    teacher = Teacher.of("t", there, None)
    probabilities, head = teach_prototypes(target, 6, teacher)
    said = accuracy(teacher.target, truth)
    assert accuracy(probabilities, truth) > said + 0.03
    new = head.scores(target)
    assert accuracy(new, truth) > said + 0.03


# Whole runs.


@pytest.fixture(scope="module")
def features():
    (source, target), (labels, truth), (here, there) = clusters(120)
    names = np.array([f"c{k}" for k in range(6)])
    return source.numpy(), names[labels], target.numpy(), names[truth], here, there


@pytest.fixture(scope="module")
def taught(features, tmp_path_factory):
    source, labels, target, truth, here, there = features
    out = tmp_path_factory.mktemp("taught") / "run"
    return biwaa.adapt(
        (source, labels), (target, truth), out=out, teacher=there, teacher_source=here, batch_size=12, verbose=False
    )


@pytest.fixture(scope="module")
def sourceless(features, tmp_path_factory):
    _, _, target, truth, _, there = features
    out = tmp_path_factory.mktemp("sourceless") / "run"
    scores = {f"c{k}": there[:, k] for k in range(6)}
    return biwaa.adapt(None, (target, truth), out=out, teacher=scores, batch_size=12, verbose=False)


def test_the_teacher_stands_beside_source_only(taught, features):
    result, there, truth = taught.result, features[5], features[3]
    assert [stage.name for stage in result.stages] == [SOURCE_ONLY, TEACHER, "round 0"]
    said = float((there.argmax(axis=1) == [int(name[1:]) for name in truth]).mean())
    assert result.stage(TEACHER).accuracy.over_images == pytest.approx(said, abs=1e-6)
    assert result.rounds[0].accuracy.over_images > said
    assert result.teacher.covers_source
    assert "agreement_with_teacher" in result.estimated_accuracy.readings
    assert all(stage.validators["nuclear_norm"] is not None for stage in result.stages)  # a candidate
    page = run_page(taught.folder)
    assert "by the teacher" in page
    assert "teacher, %" in page
    assert "teacher: teacher" in model_card(taught.folder, "me/model")


def test_no_source_makes_the_same_run_folder(sourceless, taught, features):
    result = sourceless.result
    assert [stage.name for stage in result.stages] == [TEACHER, "round 0"]
    assert result.source.images == 0
    assert result.selected.accuracy.over_images > result.stage(TEACHER).accuracy.over_images
    assert result.estimated_accuracy.value is not None
    assert result.estimated_accuracy.low is None  # no interval was measured
    names = {path.name for path in sourceless.folder.iterdir()}
    assert names == {path.name for path in taught.folder.iterdir()} | {"classes.yaml"}  # they were named
    page = run_page(sourceless.folder)
    assert "There was no source" in page
    assert "--source none" not in page
    card = model_card(sourceless.folder, "me/model")
    assert "adapted from a teacher (teacher) to unlabelled images of `target`" in card
    assert "- source:" not in card
    right = (sourceless.predict(features[2]) == features[3]).mean()
    assert right == pytest.approx(result.accuracy.adapted.over_images, abs=0.02)


def test_training_with_a_teacher_never_sees_a_target_label(taught, features, tmp_path):
    source, labels, target, truth, here, there = features
    other = np.random.default_rng(0).permutation(truth)
    again = biwaa.adapt(
        (source, labels), (target, other), out=tmp_path / "run", teacher=there, teacher_source=here, batch_size=12,
        verbose=False,
    )  # fmt: skip
    assert (again.folder / "model.safetensors").read_bytes() == (taught.folder / "model.safetensors").read_bytes()


def test_a_run_is_not_resumed_with_another_teacher(taught, features):
    source, labels, target, truth, here, there = features
    with pytest.raises(BiwaaError, match="with another teacher .teacher_scores differ"):
        biwaa.adapt(
            (source, labels), (target, truth), out=taught.folder, teacher=-there, teacher_source=here, batch_size=12,
            resume=True, verbose=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    "words, says",
    [
        ("--source a --target b --teacher t.csv --method mcc", "does not learn from a teacher"),
        ("--target b", "without a --source there must be a teacher"),
        ("--target b --zero-shot", "without a --source the classes must be named"),
        ("--target b --teacher t.csv --zero-shot", "two teachers"),
        ("--source a --target b --teacher-source t.csv", "the target's scores as --teacher too"),
        ("--source a --target b --prompt {}", "--prompt is for a zero-shot teacher"),
        ("--target b --teacher t.csv --classes c0", "name two or more"),
    ],
)
def test_flags_that_do_not_go_together(features, tmp_path, monkeypatch, capsys, words, says):
    source, labels, target, _, _, there = features
    monkeypatch.chdir(tmp_path)
    numbers = np.unique(labels, return_inverse=True)[1]
    np.savez("d.npz", a_x=source, a_y=numbers, b_x=target)
    np.savez("t.npz", scores=there)
    words = words.replace("source a", "source d.npz:a").replace("target b", "target d.npz:b").replace("t.csv", "t.npz")
    assert main(["train", *words.split(), "--out", "run"]) == 2
    assert says in capsys.readouterr().err


def test_scores_name_each_row_and_column_once():
    with pytest.raises(BiwaaError, match="class a twice"):
        Scores("t", ROWS, ("a", "a"))
