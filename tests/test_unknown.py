"""Images of no known class: found in the target, and labelled `unknown` everywhere after."""

import numpy as np
import pytest
import torch

import biwaa
from biwaa.cli import main
from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain
from biwaa.errors import BiwaaError
from biwaa.images.images import ArrayImages
from biwaa.methods.method import Task
from biwaa.methods.prototypes import Prototypes, PrototypesSettings
from biwaa.recipe import load_recipe
from biwaa.report.sentences import warning_texts
from biwaa.result.warnings import ClassesAbsent, Collapsed, LabelShift, UnknownImages
from biwaa.settings import ScheduleSettings
from biwaa.solvers.unknown import EVIDENCE, familiarity, find_unknown, split, with_rate
from biwaa.tensors import load_tensors, save_tensors

CLASSES, KNOWN = 10, 5


def domains(known=KNOWN, seed=0, width=40):
    """The source has `known` of ten round classes, the target all of them."""
    rng = np.random.default_rng(seed)
    centres = 1.6 * rng.normal(size=(CLASSES, width))
    labels, truth = np.arange(400) % known, np.arange(500) % CLASSES
    source = centres[labels] + rng.normal(size=(400, width))
    target = (centres[truth] + rng.normal(size=(500, width))) * rng.uniform(0.6, 1.6, size=width) + 2
    return source.astype(np.float32), labels, target.astype(np.float32), truth


def scaled(rows):
    return torch.from_numpy((rows - rows.mean(0)) / rows.std(0))


def test_unknown_images_are_found_among_known_ones():
    source, labels, target, truth = domains()
    seen = find_unknown(scaled(source), torch.from_numpy(labels), scaled(target), KNOWN)
    wanted = torch.from_numpy(np.minimum(truth, KNOWN))
    assert float((seen.found.argmax(dim=1) == wanted).double().mean()) > 0.95
    assert seen.evidence > EVIDENCE
    assert torch.allclose(seen.found.sum(dim=1), torch.ones(500), atol=1e-5)


def test_a_closed_target_has_no_evidence_of_unknown_images():
    source, labels, target, _ = domains(CLASSES)
    assert find_unknown(scaled(source), torch.from_numpy(labels), scaled(target), CLASSES).evidence < EVIDENCE


def test_a_rate_is_kept():
    found = torch.rand(100, 4).softmax(dim=1)
    got = with_rate(found, 0.3)
    unknown = got.argmax(dim=1) == 3
    assert int(unknown.sum()) == 30
    assert found[unknown, 3].min() >= found[~unknown, 3].max()


def test_a_rate_ranks_images_whose_probability_is_1_in_float32():
    """Known by 1e-9, 1e-10, ..: the likeliest to be known are taken first, and keep their class."""
    known = 10.0 ** -torch.arange(9, 29)
    found = torch.stack([0.1 * known, 0.9 * known, torch.ones(20)], dim=1)
    got = with_rate(found, 0.25)
    assert got[:15].argmax(dim=1).tolist() == [1] * 15
    assert got[15:].argmax(dim=1).tolist() == [2] * 5
    assert torch.allclose(got[0], torch.tensor([0.1, 0.9, 0.0]))


@pytest.mark.parametrize("blind", ["cosines", "logits"])
def test_an_image_is_familiar_by_either_reading(blind):
    """The second half is unfamiliar; a reading that is the same everywhere says nothing."""
    half = torch.arange(40) >= 20
    clear = torch.where(half[:, None], 0.3, torch.eye(2)[torch.arange(40) % 2])
    same, near = torch.full((40, 2), 0.5), torch.arange(40)[:, None]
    found = familiarity(same, clear, near) if blind == "cosines" else familiarity(clear, same, near)
    assert found[~half].min() > found[half].max()
    assert torch.allclose(found.mean(), torch.tensor(0.0), atol=1e-6)
    assert torch.allclose(found.square().mean(), torch.tensor(1.0), atol=1e-5)


def test_what_a_teacher_says_at_random_is_not_familiar():
    """Its largest score counts as far as neighbours have it in common."""
    half = torch.arange(400) >= 200
    clear = torch.where(half[:, None], 0.3, torch.eye(2)[torch.arange(400) % 2])
    near = torch.arange(400)[:, None] // 10 * 10 + torch.arange(10)[None]
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    plain, heard = (familiarity(clear, clear, near, voice) for voice in (None, noise))
    assert float((plain * heard).mean()) > 0.98
    told = familiarity(torch.full((400, 2), 0.5), torch.full((400, 2), 0.5), near, clear)
    assert told[~half].min() > told[half].max()


def test_a_rate_decides_where_the_search_begins():
    """Nine in ten images are unknown; begun with fewer, some of them stay with known classes."""
    source, labels, target, truth = domains()
    kept = np.flatnonzero((truth >= KNOWN) | (np.arange(500) < 60))
    wanted = torch.from_numpy(np.minimum(truth[kept], KNOWN))
    right = {}
    for rate in (0.3, 0.9):
        seen = find_unknown(scaled(source), torch.from_numpy(labels), scaled(target[kept]), KNOWN, rate)
        right[rate] = float((seen.found.argmax(dim=1) == wanted).double().mean())
    assert right[0.9] > 0.95
    assert right[0.3] < 0.9


def test_the_split_is_between_two_groups():
    low, high = torch.linspace(0, 0.2, 50), torch.linspace(0.8, 1, 80)
    assert 0.19 < split(torch.cat([low, high])) < 0.8


@pytest.mark.parametrize("wrong", ["on", "1.2", "0", "-0.1", "nan"])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(BiwaaError, match="--unknown is off, auto or a share"):
        PrototypesSettings(unknown=wrong)


def test_unknown_is_a_label_from_the_run_to_new_images(tmp_path):
    source, labels, target, truth = domains()
    names = np.array([f"class {k}" for k in range(CLASSES)])
    run = biwaa.adapt(
        (source, names[labels]), (target, names[truth]), out=tmp_path / "run", unknown="auto", batch_size=24
    )
    assert run.result.classes[-1] == "unknown"
    assert run.result.accuracy.adapted.over_images > 0.95  # images of other classes count as right where unknown
    header, *rows = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert header == "path,label,confidence,unknown"
    assert sum(row.split(",")[1] == "unknown" for row in rows) == pytest.approx(250, abs=15)
    assert any(isinstance(one, UnknownImages) and 0.4 < one.share < 0.6 for one in run.result.warnings)
    assert not any(isinstance(one, LabelShift | Collapsed) for one in run.result.warnings)
    np.savez(tmp_path / "new.npz", new_x=target)
    assert main(["predict", str(tmp_path / "run"), f"{tmp_path}/new.npz:new", "--out", str(tmp_path / "new.csv")]) == 0
    header, *rows = (tmp_path / "new.csv").read_text().splitlines()
    assert header == "path,label,confidence,unknown,error"
    for _, label, confidence, unknown, _ in (row.split(",") for row in rows):
        assert (unknown == confidence) if label == "unknown" else (float(unknown) <= float(confidence))
    predicted = run.predict(target)
    assert np.mean((predicted == "unknown") == (truth >= KNOWN)) > 0.95
    again = biwaa.adapt((source, names[labels]), target, out=tmp_path / "bare", unknown="auto", batch_size=24)
    assert (again.folder / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()


def test_on_a_closed_target_auto_changes_no_prediction():
    source, labels, target, _ = domains(CLASSES)
    given = {"batch_size": 24}
    plain, automatic = (biwaa.adapt((source, labels), target, unknown=how, **given) for how in ("off", "auto"))
    assert plain.predictions.labels.tolist() == automatic.predictions.labels.tolist()


def test_where_unknown_is_not_found_it_is_refused():
    source, labels, target, _ = domains()
    with pytest.raises(BiwaaError, match="for the method prototypes"):
        biwaa.adapt((source, labels), target, unknown="auto", method="linear_probe", batch_size=24)
    with pytest.raises(BiwaaError, match="has a class called unknown"):
        biwaa.adapt((source, np.where(labels == 0, "unknown", "other")), target, unknown="auto", batch_size=24)
    assert main(["bench", "digits", "--unknown", "auto", "--out", "nowhere"]) == 2


def test_a_target_with_other_classes_is_refused_with_a_way_that_works(tmp_path):
    source, labels, target, truth = domains()
    np.savez(tmp_path / "new.npz", new_x=target, new_y=truth)
    given = {"source": (source, labels), "verbose": False, "out": tmp_path / "run"}
    with pytest.raises(BiwaaError, match="or train on a frozen backbone with --unknown and the share"):
        biwaa.adapt(target=(target, truth), **given)
    biwaa.adapt(target=target, **given)
    with pytest.raises(BiwaaError, match="with --unknown"):
        biwaa.Run(tmp_path / "run").evaluate(f"{tmp_path}/new.npz:new")
    run = biwaa.adapt(target=(target, truth), unknown="0.3", overwrite=True, **given)
    assert run.result.accuracy.adapted.over_images > 0.7
    with pytest.raises(BiwaaError, match="Rename or remove those of here.$"):  # nothing of a benchmark is unknown
        match_classes(Domain("here", ArrayImages(source[:2], "x"), ("cat", "fox"), np.arange(2)), ("cat",), closed=True)


def test_evaluate_counts_images_of_other_classes_as_right_where_unknown(tmp_path):
    source, labels, target, truth = domains()
    biwaa.adapt((source, labels), target, out=tmp_path / "run", unknown="0.5", batch_size=24)
    found = biwaa.Run(tmp_path / "run").evaluate((target, truth))
    assert list(found.by_class) == ["0", "1", "2", "3", "4", "unknown"]
    assert min(found.by_class.values()) > 0.9


def test_a_target_without_any_known_image_is_said_to_have_none(tmp_path, capsys):
    source, labels, target, truth = domains()
    given = {"source": (source, labels), "target": target[truth >= KNOWN], "batch_size": 24}
    for unknown, said in (("auto", "No target image was labelled unknown"), (".98", "Hardly any target image")):
        run = biwaa.adapt(**given, unknown=unknown, out=tmp_path / unknown)
        assert any(said in text for text in warning_texts(run.result, load_recipe("robust")))
        assert not any(isinstance(one, Collapsed | LabelShift) for one in run.result.warnings)


def test_several_sources_and_a_remembered_one_find_unknown_images_too(tmp_path):
    source, labels, target, truth = domains()
    wanted = np.where(truth < KNOWN, truth.astype(str), "unknown")
    places = [(source[half], labels[half]) for half in (slice(0, 200), slice(200, 400))]
    several = biwaa.adapt(places, target, out=tmp_path / "several", unknown="0.5", verbose=False)
    assert (several.predict(target).astype(str) == wanted).mean() > 0.95
    assert all(one.relevance is not None for one in several.result.sources)
    one = biwaa.adapt((source, labels), target, out=tmp_path / "one", verbose=False)
    for run, unknown in ((one.folder, "auto"), (several.folder, "0.5")):
        there = (target, truth.astype(str))  # labels of classes that the model lacks are unknown
        known = biwaa.adapt(run, there, out=tmp_path / f"from {run.name}", unknown=unknown, verbose=False)
        assert (known.predict(target).astype(str) == wanted).mean() > 0.95
        assert known.result.baseline.predicted_shares["unknown"] == 0
        # What came of it is a source as well, of the known classes.
        again = biwaa.adapt(known, target[truth < KNOWN], verbose=False)
        assert len(again.classes) == KNOWN
        assert (again.predict(target[truth < KNOWN]).astype(str) == truth[truth < KNOWN].astype(str)).mean() > 0.95


def scores(truth, seed=0):
    """A teacher that knows the known classes, and is unsure of all others; a tenth of what it says is wrong."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(truth)) < 0.1, rng.integers(0, KNOWN, len(truth)), truth)
    return {str(k): 3.0 * (said == k) + rng.normal(scale=0.5, size=len(truth)) for k in range(KNOWN)}


@pytest.mark.parametrize("kind", ["one source", "a model", "several sources", "no source", "a head alone"])
def test_a_teacher_and_a_head_alone_find_unknown_images_too(tmp_path, kind):
    source, labels, target, truth = domains()
    wanted, names = np.where(truth < KNOWN, truth.astype(str), "unknown"), labels.astype(str)
    given = {"verbose": False, "unknown": "0.5"} | ({"teacher": scores(truth)} if kind != "a head alone" else {})
    place = {"one source": (source, names), "no source": None}.get(kind)
    if kind == "several sources":
        place = [(source[half], names[half]) for half in (slice(0, 200), slice(200, 400))]
    elif place is None and kind != "no source":
        place = biwaa.adapt((source, names), target[truth < KNOWN], out=tmp_path / "one", verbose=False).folder
    if kind == "a head alone":
        state, facts = load_tensors(place / "model.safetensors")
        place = tmp_path / "head.safetensors"
        kept = {name: part for name, part in state.items() if not name.startswith(("known.", "plain."))}
        save_tensors(place, kept, **facts)
    run = biwaa.adapt(place, (target, truth.astype(str)), out=tmp_path / "run", **given)
    assert (run.predict(target).astype(str) == wanted).mean() > 0.95
    assert run.result.classes[-1] == "unknown"
    if kind == "a head alone":
        return
    assert run.result.teacher.unknown_classes == ()  # nobody asks it for `unknown`
    assert run.result.stage("teacher").predicted_shares["unknown"] == 0
    if kind == "no source":  # its model is a source as well, of the known classes
        assert "unknown" not in (run.folder / "classes.yaml").read_text()
        again = biwaa.adapt(run, target[truth < KNOWN], verbose=False)
        assert again.result.classes == tuple("01234")


def test_without_evidence_every_image_is_of_a_class_that_the_teacher_names(capsys):
    _, _, target, truth = domains()
    closed, says = target[truth < KNOWN], scores(truth[truth < KNOWN])
    off, auto = (biwaa.adapt(None, closed, teacher=says, unknown=how) for how in ("off", "auto"))
    assert off.predictions.labels.tolist() == auto.predictions.labels.tolist()
    assert capsys.readouterr().err.count("from a teacher alone --unknown auto noticed unknown images on none") == 1


def test_labels_of_the_target_go_with_unknown():
    source, labels, target, truth = domains()
    wanted = np.where(truth < KNOWN, truth.astype(str), "unknown")
    given = {f"target[{row}]": wanted[row] for row in range(0, 500, 9)}
    run = biwaa.adapt((source, labels), target, target_labels=given, unknown="auto", verbose=False)
    said = run.predictions.labels
    assert [run.result.classes[said[row]] for row in range(0, 500, 9)] == list(given.values())
    assert (run.predict(target).astype(str) == wanted).mean() > 0.95
    # A label says that there are unknown images where nothing else does.
    closed, few = target[truth < KNOWN], {"target[0]": "unknown", "target[1]": "1"}
    for labelled, count in ((None, 0), (few, 1)):
        found = biwaa.adapt((source, labels), closed, target_labels=labelled, unknown="auto", verbose=False)
        assert sum(found.predictions.labels == KNOWN) >= count
        assert (sum(found.predictions.labels == KNOWN) > 0) == (count > 0)


@pytest.mark.parametrize("unknown", ["auto", "0.43"])
def test_classes_that_are_absent_are_left_out_beside_unknown_images(tmp_path, unknown):
    """Of ten classes the source has the first seven, the target the last seven."""
    source, labels, target, truth = domains(7, seed=1)
    target, truth = target[truth >= 3], truth[truth >= 3]
    given = {"unknown": unknown, "batch_size": 24, "source_held_out": 0.0, "verbose": False}
    run, closed = (
        biwaa.adapt((source, labels), (target, truth), absent_classes=how, out=tmp_path / how, **given)
        for how in ("auto", "off")
    )
    (absent,) = (one for one in run.result.warnings if isinstance(one, ClassesAbsent))
    assert absent.classes == ("0", "1", "2")
    assert any(isinstance(one, UnknownImages) and 0.4 < one.share < 0.46 for one in run.result.warnings)
    assert not any(isinstance(one, ClassesAbsent) for one in closed.result.warnings)
    assert not any(isinstance(one, Collapsed) for one in run.result.warnings)
    assert run.result.accuracy.adapted.over_images > max(0.95, closed.result.accuracy.adapted.over_images - 0.01)
    assert not set(run.predictions.labels.tolist()) & {0, 1, 2}


def test_no_class_is_left_out_beside_unknown_images_where_all_are_there():
    source, labels, target, _ = domains()
    task = Task(width=16, classes=KNOWN + 1, targets=len(target), steps=1)
    head = Prototypes(task, ScheduleSettings(), PrototypesSettings(unknown="0.5")).solve(
        scaled(source), torch.from_numpy(labels), scaled(target)
    )
    assert head.absent is None
