"""The zero-shot teacher: words of classes, prompts, and open_clip's own code and tokenizer with random weights."""

import functools
import logging
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import biwaa
from biwaa.cli import main
from biwaa.cli.training import with_model
from biwaa.device import open_fabric
from biwaa.errors import BiwaaError
from biwaa.images.images import ArrayImages, FeatureRows
from biwaa.models import zero_shot
from biwaa.models.zero_shot import DEFAULT, ZeroShot
from biwaa.teachers.prompts import in_words, read_classes, texts

SMALLEST = "ViT-S-32-alt/none"


@pytest.mark.parametrize(
    "name, words",
    [
        ("Alarm_Clock", "alarm clock"), ("ToothBrush", "tooth brush"), ("TV", "TV"), ("TVStand", "TV stand"),
        ("001.Black_footed_Albatross", "black footed albatross"), ("7", "seven"), ("42", "42"), ("dog", "dog"),
        ("river-lake", "river lake"), ("n02123045", "n02123045"), ("12_monkeys", "monkeys"),
    ],
)  # fmt: skip
def test_folder_names_become_words(name, words):
    assert in_words(name) == words


def test_texts_are_templates_of_names_or_prompts_as_they_are(tmp_path, capsys):
    file = tmp_path / "classes.yaml"
    file.write_text("classes:\n  n02123045: tabby cat\n  dog: [dog, puppy]\n  x: {prompts: [an x, two x]}\n")
    got = texts(("n02123045", "dog", "x", "Alarm_Clock"), read_classes(str(file)), ("a {}.", "the {}."))
    assert got == {
        "n02123045": ("a tabby cat.", "the tabby cat."),
        "dog": ("a dog.", "the dog.", "a puppy.", "the puppy."),
        "x": ("an x", "two x"),
        "Alarm_Clock": ("a alarm clock.", "the alarm clock."),
    }
    shown = capsys.readouterr().err
    assert "n02123045: tabby cat" in shown
    assert "Alarm_Clock: alarm clock" in shown


def test_names_that_are_no_words_are_said(capsys):
    texts(("n02123045",), {}, ("{}",))
    assert "n02123045 are no words" in capsys.readouterr().err


@pytest.mark.parametrize("content, says", [("- a\n- b", None), ("3", "must hold a list"), ("a: [", "not readable")])
def test_a_classes_file(tmp_path, content, says):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    if says is None:
        assert read_classes(str(file)) == {"a": None, "b": None}
        return
    with pytest.raises(BiwaaError, match=says):
        read_classes(str(file))


@pytest.mark.parametrize(
    "classes, given, templates, says",
    [
        (("a", "b"), {}, ("a photo",), "has no {} for"),
        (("a", "b"), {"c": None}, ("{}",), "--classes names c"),
        (("a", "b"), {"a": []}, ("{}",), "the class a must have a name"),
        (("a", "b"), {"a": {"prompt": "x"}}, ("{}",), "the class a must have a name"),
    ],
)
def test_texts_that_cannot_be_made(classes, given, templates, says):
    with pytest.raises(BiwaaError) as error:
        texts(classes, given, templates)
    assert says in str(error.value)


def test_a_flag_without_a_model_means_the_default():
    assert with_model(["--zero-shot", "--out", "run"]) == ["--zero-shot", DEFAULT, "--out", "run"]
    assert with_model(["--out", "run", "--zero-shot"]) == ["--out", "run", "--zero-shot", DEFAULT]
    assert with_model(["--zero-shot", "ViT-B-32", "--json"]) == ["--zero-shot", "ViT-B-32", "--json"]


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(BiwaaError, match=r"pip install 'biwaa\[clip\]'"):
        zero_shot.build(DEFAULT)


def test_the_callers_logging_is_left_as_it_was(capsys):
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    with zero_shot.quiet():
        logging.warning("random weights")
    assert (root.level, root.handlers) == before
    assert "random weights" not in capsys.readouterr().err


# From here on with open_clip itself.


@pytest.fixture(scope="module")
def open_clip():
    """The library; a model is built once for all tests."""
    found = pytest.importorskip("open_clip", reason="the extra [clip] is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_shot, "build", functools.cache(zero_shot.build))
        yield found


@pytest.fixture
def folders(tmp_path):
    draw = np.random.default_rng(0)
    for domain in ("source", "target"):
        for place, name in enumerate(("red_thing", "BlueThing")):
            (tmp_path / domain / name).mkdir(parents=True)
            for number in range(8):
                pixels = draw.integers(0, 80, (40, 40, 3), dtype=np.uint8)
                pixels[..., 2 * place] += 150
                Image.fromarray(pixels).save(tmp_path / domain / name / f"{number}.png")
    return tmp_path


def test_scores_are_products_of_both_towers(open_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("BIWAA_CACHE", str(tmp_path))
    fabric = open_fabric("cpu", "32-true")
    pixels = np.random.default_rng(0).integers(0, 255, (5, 50, 60, 3), dtype=np.uint8)
    images = ArrayImages(pixels, "x")
    asked = ZeroShot(SMALLEST, ("a {}", "the {}"), {"cat": ["cat", "kitten"], "dog": {"prompts": ["a good dog"]}})
    got = asked.scores({"x": images}, ("cat", "dog"), fabric)["x"]

    model, transform, tokenizer = zero_shot.build(SMALLEST)
    with torch.inference_mode():
        image = torch.stack([model.encode_image(transform(Image.fromarray(one))[None])[0] for one in pixels])
        columns = []
        for prompts in (["a cat", "the cat", "a kitten", "the kitten"], ["a good dog"]):
            embedded = model.encode_text(tokenizer(prompts))
            mean = (embedded / embedded.norm(dim=1, keepdim=True)).mean(dim=0)
            columns.append(mean / mean.norm())
        expected = model.logit_scale.exp() * (image / image.norm(dim=1, keepdim=True)) @ torch.stack(columns).T
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-3)

    monkeypatch.setattr(zero_shot, "_view", lambda *_: pytest.fail("the images were looked at again"))
    np.testing.assert_array_equal(asked.scores({"x": images}, ("cat", "dog"), fabric)["x"], got)


def test_a_run_with_and_without_a_source(open_clip, folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIWAA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folders)
    usual = ["--backbone", "resnet18", "--image-size", "32", "--batch-size", "4", "--zero-shot", SMALLEST]
    monkeypatch.setattr("biwaa.training.prepare.load_weights", lambda *_: "random, for the test")
    assert main(["train", "--source", "source", "--target", "target", "--out", "run", *usual]) == 0
    told = capsys.readouterr()
    assert "red_thing: red thing" in told.err
    assert "teacher" in told.out
    facts = biwaa.Run("run").result.teacher
    assert facts.where == f"zero-shot {SMALLEST}"
    assert facts.covers_source
    assert len(facts.prompts["BlueThing"]) == 7
    assert "blue thing" in facts.prompts["BlueThing"][0]
    words = ["--target", "target", "--classes", "red_thing,BlueThing", "--prompt", "a {}", "--out", "alone"]
    assert main(["train", *words, *usual]) == 0
    alone = biwaa.Run("alone").result
    assert alone.source.images == 0
    assert alone.classes == ("red_thing", "BlueThing")
    assert alone.teacher.prompts["red_thing"] == ("a red thing",)
    assert "a blue thing" in (folders / "alone" / "report.html").read_text()
    assert main(["train", "--resume", "--out", "alone"]) == 0  # the run knows its classes and its teacher
    new = biwaa.Run("alone").update("source").result
    assert new.teacher == alone.teacher
    assert new.target.spec == "source"


@pytest.mark.parametrize(
    "model, says",
    [
        ("ViT-Z/none", "open_clip has no model 'ViT-Z'"),
        ("ViT-B-32/nothing", "ViT-B-32 has no weights 'nothing', and there is no such file"),
    ],
)
def test_a_model_that_is_not_there(open_clip, model, says):
    with pytest.raises(BiwaaError) as error:
        zero_shot.build(model)
    assert says in str(error.value)


def test_a_file_of_something_else_is_told(open_clip, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(BiwaaError, match=r"ViT-S-32-alt/.*w\.pt cannot be built"):
        zero_shot.build(f"ViT-S-32-alt/{tmp_path / 'w.pt'}")


def test_weights_of_ones_own_are_read(open_clip, tmp_path):
    from safetensors.torch import save_model

    first, _, _ = zero_shot.build(SMALLEST)
    with torch.no_grad():
        first.logit_scale.fill_(1.5)
    save_model(first, str(tmp_path / "w.safetensors"))
    second, _, _ = zero_shot.build(f"ViT-S-32-alt/{tmp_path / 'w.safetensors'}")
    assert float(second.logit_scale.detach()) == 1.5


def test_without_the_hub_the_ways_out_are_named(open_clip, monkeypatch, tmp_path):
    def nowhere():
        raise OSError("no network")

    monkeypatch.setattr(zero_shot, "reach_hub", nowhere)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BiwaaError) as error:
        zero_shot.build(DEFAULT)
    assert str(error.value).startswith(
        f"no weights of {DEFAULT} (no network). Three ways out: connect to the hub once;"
    )


def test_features_have_nothing_to_look_at():
    images = FeatureRows(np.ones((3, 4), np.float32), "x")
    with pytest.raises(BiwaaError, match="give its scores as --teacher"):
        ZeroShot(SMALLEST).scores({"x": images}, ("a", "b"), open_fabric("cpu", "32-true"))
