"""Several sources: their union, what each is worth, one that contradicts, and runs through Python and the command."""

import json

import numpy as np
import pytest
import torch
from conftest import write_images

import biwaa
from biwaa.cli import main
from biwaa.cli.training import TrainFlags, resumed
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.domains.union import union
from biwaa.errors import BiwaaError
from biwaa.images.images import FileImages
from biwaa.methods.method import Task
from biwaa.methods.prototypes import Prototypes, PrototypesSettings
from biwaa.report.summary import summarise
from biwaa.result import read_result
from biwaa.result.warnings import ClassesAbsent, SourcesContradict
from biwaa.settings import ScheduleSettings
from biwaa.share import model_card
from biwaa.solvers.prototypes import adapt_prototypes
from biwaa.solvers.several import Sources

CLASSES = 5


def places(count=3, rows=150, width=16, seed=0, noise=1.3):
    """Labelled rows of some places and of one more, each moved, stretched and turned its own way."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * rng.normal(size=(CLASSES, width))
    labels = np.arange(rows) % CLASSES
    found = []
    for _ in range(count + 1):
        turn = np.eye(width) + 0.1 * rng.normal(size=(width, width))
        own = (centres[labels] + noise * rng.normal(size=(rows, width))) @ turn * rng.uniform(0.4, 2.5, size=width)
        found.append((own + 4 * rng.normal(size=width)).astype(np.float32))
    return found, labels


def standardised(rows):
    return torch.from_numpy((rows - rows.mean(0)) / rows.std(0))


def solved(parts, target):
    """What the method finds; accuracy is counted by the target's labels, which follow the rows' numbers."""
    source = torch.cat([standardised(rows) for rows, _ in parts])
    labels = torch.from_numpy(np.concatenate([labels for _, labels in parts]))
    origins = torch.cat([torch.full((len(rows),), number) for number, (rows, _) in enumerate(parts)])
    task = Task(source.shape[1], CLASSES, len(target), 1, origins=origins)
    method = Prototypes(task, ScheduleSettings(), PrototypesSettings(absent_classes="off"))
    said = method.solve(source, labels, standardised(target)).scores(standardised(target)).argmax(dim=1)
    return (said.numpy() == np.arange(len(target)) % CLASSES).mean(), method.standing


def test_several_sources_are_worth_more_than_one():
    gains = []
    for seed in range(2):
        (*sources, target), labels = places(seed=seed, noise=2.5)
        few = [(rows[:20], labels[:20]) for rows in sources]
        accuracy, standing = solved(few, target)
        there, truth = standardised(target), torch.from_numpy(labels[:20])
        alone = [adapt_prototypes(standardised(rows), truth, there, CLASSES) for rows, _ in few]
        best = max((one.found.argmax(dim=1).numpy() == labels).mean() for one in alone if one)
        gains.append(accuracy - best)
        assert not standing.contradicts.any()
        assert (standing.relevance > 0.4).all()
    assert np.mean(gains) > 0.02


def test_a_source_whose_classes_were_exchanged_is_found_and_not_heard():
    (*sources, target), labels = places()
    parts = [(sources[0], labels), (sources[1], (labels + 1) % CLASSES), (sources[2], labels)]
    accuracy, standing = solved(parts, target)
    assert standing.contradicts.tolist() == [False, True, False]
    assert accuracy == solved(parts[::2], target)[0]
    two = solved(parts[:2], target)[1]
    assert two.contradicts.all()  # nobody knows which
    assert two.chance.tolist() == pytest.approx([0.2, 0.2])


def test_a_source_may_lack_classes_and_a_class_may_be_of_one_source_alone():
    (*sources, target), labels = places()
    parts = [(rows[labels != number], labels[labels != number]) for number, rows in enumerate(sources)]
    alone = [parts[0], (sources[1][labels < 4], labels[labels < 4]), (sources[2][labels < 4], labels[labels < 4])]
    full = solved([(rows, labels) for rows in sources], target)[0]
    for some in (parts, alone):
        accuracy, standing = solved(some, target)
        assert accuracy > full - 0.06
        assert not standing.contradicts.any()
    apart = [(sources[0][labels < 2], labels[labels < 2]), (sources[1][labels >= 2], labels[labels >= 2])]
    accuracy, standing = solved(apart, target)
    assert standing.agreement.isnan().all()
    assert accuracy > 0.5


def test_of_a_source_that_contradicts_the_others_only_its_own_classes_are_learned():
    (*sources, _), labels = places()
    some = labels < 4
    parts = [(sources[0], (labels + 1) % CLASSES), (sources[1][some], labels[some]), (sources[2][some], labels[some])]
    rows = torch.cat([standardised(one) for one, _ in parts])
    every = torch.from_numpy(np.concatenate([its for _, its in parts]))
    origins = torch.cat([torch.full((len(its),), number) for number, (_, its) in enumerate(parts)])
    known = Sources.of(rows, every, origins, CLASSES)
    bad = known.standing().contradicts
    assert bad.tolist() == [True, False, False]
    heard = known.heard(bad)
    assert set(every[heard & (origins == 0)].tolist()) == {4}
    assert heard[origins > 0].all()
    assert known.heard(torch.ones(3, dtype=torch.bool)).all()


@pytest.fixture
def folders(tmp_path):
    """Two sources of three classes in all, and a target."""
    write_images(tmp_path / "a", {"cat": 6, "dog": 6}, seed=1)
    write_images(tmp_path / "b", {"dog": 6, "eel": 6}, seed=2)
    write_images(tmp_path / "t", {"cat": 5, "dog": 5, "eel": 5}, seed=3)
    return tmp_path


def test_the_union_keeps_which_image_is_whose(folders):
    parts = [open_domain(str(folders / name)) for name in ("a", "b")]
    both = union(parts)
    assert both.classes == ("cat", "dog", "eel")
    assert both.counts() == {"cat": 6, "dog": 12, "eel": 6}
    some = both.select(np.array([13, 2, 20]))
    assert some.origins.tolist() == [1, 0, 1]
    assert list(some.images.names) == [both.images.names[row] for row in (13, 2, 20)]
    np.testing.assert_array_equal(some.images.read(2), parts[1].images.read(8))
    np.testing.assert_array_equal(some.images.select(np.array([1])).read(0), parts[0].images.read(2))
    assert some.images.fingerprint() != both.images.fingerprint() == union(parts).images.fingerprint()
    again = union(parts[::-1])
    assert again.counts() == {"dog": 12, "eel": 6, "cat": 6}


def check(*specs):
    return main(["check", *map(str, specs), "--batch-size", "8"])


def test_bad_sources_are_one_sentence(folders, capfd):
    a, b, t = (folders / name for name in "abt")
    (folders / "empty").mkdir()

    def said(*specs):
        assert check(*specs) == 2
        return capfd.readouterr().err

    assert check(a, b, t) == 0
    assert f"{a} + {b} can be adapted to {t}" in capfd.readouterr().out
    assert f"no images in {folders / 'empty'}" in said(a, folders / "empty", t)
    nothing = Domain("nothing", FileImages(()), ("cat",), np.zeros(0, dtype=np.int64))
    with pytest.raises(BiwaaError, match="nothing has no image"):
        union([open_domain(str(a)), nothing])
    assert "are the same images: name each source once" in said(a, a, t)
    assert "are the same images" in said(a, t, t)
    (b / "dog").rename(b / "Dog")
    assert "'dog' and 'Dog' differ in case" in said(a, b, t)
    (b / "Dog").rename(b / "dog")
    image = next((a / "cat").iterdir())
    (b / "dog" / "again.png").write_bytes(image.read_bytes())
    error = said(a, b, t)
    assert "the sources contradict each other" in error
    assert f"{image} and {b / 'dog' / 'again.png'} are the same image, labelled cat, dog." in error
    (b / "dog" / "again.png").rename(b / "eel" / "more.png")
    (a / "cat" / "twice.png").write_bytes(next((a / "dog").iterdir()).read_bytes())
    assert "are the same image, labelled cat, eel." in said(a, b, t)


def test_rows_of_arrays_contradict_each_other_too():
    (first, second, _), labels = places(2)
    second[7] = first[3]
    with pytest.raises(BiwaaError, match=r"source 1\[3\] and source 2\[7\] are the same image, labelled 3, 2\."):
        biwaa.adapt([(first, labels), (second, labels)], first)


def test_a_run_of_several_sources(tmp_path, capfd):
    (*sources, target), labels = places()
    names = np.array(["ant", "bee", "cat", "dog", "eel"])
    np.savez(tmp_path / "f.npz", **{f"{k}_x": rows for k, rows in zip("abct", [*sources, target], strict=True)},
             a_y=labels, b_y=(labels + 1) % CLASSES, c_y=labels, t_y=labels, classes=names)  # fmt: skip
    specs = [f"{tmp_path / 'f.npz'}:{name}" for name in "abct"]
    flags = [word for spec in specs[:3] for word in ("--source", spec)]
    assert main(["train", *flags, "--target", specs[3], "--out", str(tmp_path / "run")]) == 0
    said = capfd.readouterr()
    result = read_result(tmp_path / "run")
    assert [one.spec for one in result.sources] == specs[:3]
    assert result.source.images == 450
    (warning,) = [one for one in result.warnings if isinstance(one, SourcesContradict)]
    assert (warning.specs, warning.all_of_them) == ((specs[1],), False)
    assert f"The sources contradict each other: {specs[1]} and the others" in said.out
    row = next(line for line in said.out.splitlines() if line.strip().startswith(specs[1]))
    assert row.split()[1:4] == ["150", "5", f"{100 * result.sources[1].relevance:.1f}"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["source"] == specs[:3]
    flags = resumed(TrainFlags.starting_from("robust"), tmp_path / "run")
    assert flags.source == tuple(specs[:3])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What each source contributes" in page
    assert all(f"<span>--source</span> <span>{spec}</span>" in page for spec in specs[:3])
    card = model_card(tmp_path / "run", "me/model")
    assert "labelled images of `f.npz:a`, `f.npz:b`, `f.npz:c`" in card
    assert str(tmp_path) not in card


def test_python_takes_a_list_of_sources_and_a_list_of_pictures_is_one_source():
    (first, second, target), labels = places(2)
    run = biwaa.adapt([(first, labels), (second, labels)], target, verbose=False)
    assert [(one.spec, one.classes) for one in run.result.sources] == [("source 1", 5), ("source 2", 5)]
    assert (run.predict(target) == labels).mean() > 0.8
    assert run.result.sources[0].relevance is not None
    pooled = biwaa.adapt([(first, labels), (second, labels)], target, method="linear_probe", verbose=False)
    assert pooled.result.sources[0].relevance is None
    assert "images       classes" in summarise(pooled.result, biwaa.Recipe())
    pictures = [(np.full((8, 8, 3), 9 * n, dtype=np.uint8), "ab"[n % 2]) for n in range(8)]
    from biwaa.domains.objects import as_source

    assert as_source(pictures).places == ()
    assert as_source([pictures[0]]).places == ()
    assert as_source([(first, labels)]).places == ()


def test_classes_that_no_image_of_the_target_is_of_are_left_out():
    rng = np.random.default_rng(3)
    centres, labels = 1.4 * rng.normal(size=(10, 24)), np.arange(400) % 10
    first, second, target = (
        (centres[labels] + rng.normal(size=(400, 24))) * rng.uniform(0.6, 1.6, size=24) for _ in range(3)
    )
    kept = labels < 4
    sources = [(first, labels), (second[labels != 7], labels[labels != 7])]
    runs = {
        way: biwaa.adapt(sources, (target[kept], labels[kept]), absent_classes=way, verbose=False)
        for way in ("auto", "off")
    }
    (warning,) = [one for one in runs["auto"].result.warnings if isinstance(one, ClassesAbsent)]
    assert set(warning.classes) == set("456789")
    accuracy = {way: run.result.accuracy.adapted.over_images for way, run in runs.items()}
    assert accuracy["auto"] > accuracy["off"] + 0.02
    assert (runs["auto"].predict(target[kept]) == labels[kept]).mean() > 0.95
    assert [one.relevance is not None for one in runs["auto"].result.sources] == [True, True]
    assert len(runs["auto"].classes) == 10
