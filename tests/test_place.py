"""Images of another place than the target's are told apart, and the source has a form of the model of its own."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, command, write_images
from test_bad_input import refused

import biwaa
from biwaa.inference.classifier import stream_predictions
from biwaa.models.place import FEWEST, Look, Place
from biwaa.models.saved import load_model
from biwaa.tensors import load_tensors, save_tensors

CLASSES = 3


def rows(count, place, seed):
    """Features of a place, and labels: a dimension for each class, which the place moves as all others."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    found = rng.normal(0, 1, (count, 16))
    found[np.arange(count), labels] += 5
    if place == "source":
        found = found * 2 + np.concatenate([[16, 0, -16], np.linspace(-6, 6, 13)])
    return found.astype(np.float32), labels


@pytest.fixture(scope="module")
def run(tmp_path_factory, _own_cache):
    """A run on features, and an .npz file with new rows of both places."""
    place = tmp_path_factory.mktemp("place")
    (source, labels), (target, _) = rows(120, "source", 0), rows(120, "target", 1)
    biwaa.adapt((source, labels), target, out=place / "run", verbose=False, rounds=1)
    new = {}
    for name in ("source", "target"):
        new[f"{name}_x"], new[f"{name}_y"] = rows(90, name, 2)
    new["one_x"] = new["target_x"][new["target_y"] == 1]
    new["few_x"] = new["target_x"][:1]
    np.savez(place / "new.npz", **new)
    return place / "run"


def new(run, name):
    return f"{run.parent / 'new.npz'}:{name}"


WARNING = "do not look like the target"


@pytest.mark.parametrize("name", ["target", "one", "few"])
def test_new_images_of_the_place_pass(run, tmp_path, name):
    """Also those of one class, which have another mean, and a single one, which shows nothing."""
    assert WARNING not in command("predict", run, new(run, name), "--out", tmp_path / "p.csv").stderr


def test_images_of_the_source_are_told_apart_and_served(run, tmp_path, capsys):
    done = command("evaluate", run, new(run, "source"), "--json")
    figures = json.loads(done.stdout)
    assert figures["looks_like_the_target"] is False
    assert f"{WARNING} that the model was adapted to" in done.stderr
    assert "--domain source" in done.stderr
    assert figures["accuracy"]["over_images"] < 0.7
    assert json.loads(command("evaluate", run, new(run, "target"), "--json").stdout)["looks_like_the_target"] is True
    done = command("evaluate", run, new(run, "source"), "--domain", "source", "--json")  # as the warning says
    assert json.loads(done.stdout)["accuracy"]["over_images"] > 0.95
    assert json.loads(done.stdout)["looks_like_the_target"] is None
    for words, warned in (((), True), (("--domain", "source"), False)):
        done = command("predict", run, new(run, "source"), "--out", tmp_path / "p.csv", "--overwrite", *words)
        assert done.returncode == 0
        assert (WARNING in done.stderr) == warned
    features, labels = rows(90, "source", 2)
    assert (biwaa.load(run).predict(features) == labels).mean() < 0.7
    assert WARNING in capsys.readouterr().err
    assert (biwaa.load(run, domain="source").predict(features) == labels).mean() > 0.95
    assert WARNING not in capsys.readouterr().err


def test_the_verdict_does_not_depend_on_batches(run):
    model = load_model(run)
    features = torch.from_numpy(rows(90, "source", 2)[0])
    network = model.network.eval()
    looks = [Look(model.place), Look(model.place)]
    for look, size in zip(looks, (90, 7), strict=True):
        for part in features.split(size):
            output = network(part)
            look.add(output.features.detach(), output.logits.argmax(dim=1))
    assert torch.allclose(looks[0].total, looks[1].total, rtol=1e-4)
    assert looks[0].unlike is looks[1].unlike is True


def test_the_shift_is_that_of_the_mean_around_the_classes():
    """Against a slow loop: residuals of the predicted classes' means, none longer than the limit."""
    generator = torch.Generator().manual_seed(0)
    features, predicted = torch.randn(80, 4, generator=generator), torch.arange(80) % CLASSES
    place = Place.of(features, predicted, CLASSES)
    assert place is not None
    for k in range(CLASSES):
        assert torch.allclose(place.means[k], features[predicted == k].mean(dim=0), atol=1e-6)
    new, labels = torch.randn(30, 4, generator=generator) * 3 + 1, torch.arange(30) % 2
    look = Look(place)
    look.add(new, labels)
    total = torch.zeros(4)
    most = float(place.limit * place.spread) ** 0.5
    for row, label in zip(new, labels.tolist(), strict=True):
        away = row - place.means[label]
        total += away * min(1.0, most / float(away.norm()))
    assert look.total is not None
    assert torch.allclose(look.total, total, atol=1e-4)


def test_false_alarms_are_rare():
    """Draws from the target's own distribution, of all sizes: at most one in twenty is taken for another place."""
    generator = torch.Generator().manual_seed(0)
    alarms = {1: 0, 4: 0, 32: 0}
    for _ in range(40):
        features, predicted = torch.randn(60, 32, generator=generator), torch.arange(60) % CLASSES
        place = Place.of(features, predicted, CLASSES)
        for size in alarms:
            look = Look(place)
            look.add(torch.randn(size, 32, generator=generator), torch.arange(size) % CLASSES)
            alarms[size] += bool(look.unlike)
    assert max(alarms.values()) <= 2, alarms


def test_small_targets_and_empty_classes_are_not_judged():
    features = torch.randn(FEWEST, 4, generator=torch.Generator().manual_seed(0))
    assert Place.of(features[1:], torch.zeros(FEWEST - 1, dtype=torch.long), 2) is None
    assert Place.of(torch.zeros(FEWEST, 4), torch.zeros(FEWEST, dtype=torch.long), 2) is None
    place = Place.of(features, torch.zeros(FEWEST, dtype=torch.long), 2)
    look = Look(place)
    look.add(features + 9, torch.ones(FEWEST, dtype=torch.long))  # all of a class that the target never showed
    assert look.unlike is None
    look.add(features + 9, torch.zeros(FEWEST, dtype=torch.long))
    assert look.unlike is True
    assert Look(None).unlike is None


def test_models_without_the_statistics_still_predict(run, tmp_path):
    """As those of earlier versions are."""
    state, facts = load_tensors(run / "model.safetensors")
    kept = {name: part for name, part in state.items() if not name.startswith(("place.", "source."))}
    assert len(kept) < len(state)
    save_tensors(tmp_path / "old.safetensors", kept, **facts)
    done = command("evaluate", tmp_path / "old.safetensors", new(run, "source"), "--json")
    assert json.loads(done.stdout)["looks_like_the_target"] is None
    assert WARNING not in done.stderr
    refused(command("evaluate", tmp_path / "old.safetensors", new(run, "source"), "--domain", "source"), "leave")


@pytest.mark.parametrize("part", ["place.means", "place.counts", "place.spread", "source.mean"])
def test_statistics_that_do_not_fit_are_refused(run, tmp_path, part):
    state, facts = load_tensors(run / "model.safetensors")
    for tensor in (torch.zeros(7), None):
        damaged = {name: kept for name, kept in state.items() if name != part} | (
            {} if tensor is None else {part: tensor}
        )
        save_tensors(tmp_path / "model.safetensors", damaged, **facts)
        refused(command("evaluate", tmp_path / "model.safetensors", new(run, "target")), "not a model that biwaa wrote")


def test_a_network_trained_whole_has_one_form(tmp_path):
    """Its statistics are kept too; images that cannot be read do not count."""
    source = write_images(tmp_path / "source", {"cat": 20, "dog": 20}, seed=0)
    target = write_images(tmp_path / "target", {"cat": 30, "dog": 30}, seed=1)
    run = biwaa.adapt(
        source, target, out=tmp_path / "run", recipe=TINY.replace("test", steps=10, crops=1), verbose=False
    ).folder
    refused(command("evaluate", run, source, "--domain", "source"), "leave --domain source out")
    assert command("evaluate", run, source).returncode == 0
    shutil.copytree(target, tmp_path / "new")
    (tmp_path / "new" / "cat" / "0.png").write_text("no image")
    model = load_model(run)
    look = Look(model.place)
    images = biwaa.domains.spec.open_domain(str(tmp_path / "new")).images
    list(stream_predictions(model, images, "cpu", 8, look))
    assert look.seen is not None
    assert look.seen.sum() == 59
    assert look.unlike is False


def test_the_estimator_does_not_print(capsys):
    from biwaa import DomainAdapter

    (source, labels), (target, _) = rows(120, "source", 0), rows(120, "target", 1)
    adapter = DomainAdapter(steps=5, rounds=1)
    adapter.fit(np.concatenate([source, target]), np.concatenate([labels, labels]), np.repeat([1, -1], 120))
    adapter.predict(source)
    assert capsys.readouterr().err == ""
