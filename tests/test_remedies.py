"""What a message tells the user to do is done here, as it says, and works."""

import re
import shlex
import shutil

import numpy as np
import pytest
from conftest import write_images
from test_bad_input import biwaa, refused, train

from biwaa import adapt
from biwaa.domains.spec import open_domain
from biwaa.domains.trainable import check_batch
from biwaa.errors import BiwaaError
from biwaa.recipe import load_recipe
from biwaa.training import suited


def domains(place, source, target):
    """Two domains of two classes with so many images each."""
    return [
        write_images(place / name, {"cat": count, "dog": count}, seed=seed)
        for seed, (name, count) in enumerate((("source", source), ("target", target)))
    ]


def flags(done):
    """The flags and values that an error tells to set."""
    line = next(line for line in done.stderr.splitlines() if "error:" in line)
    return re.findall(r"(--[a-z-]+) (\d+)", line[line.rindex("set ") :])


def as_told(done):
    return [word for pair in flags(done) for word in pair]


@pytest.mark.parametrize(
    "source, target, told",
    [
        (8, 7, ["--batch-size", "14"]),
        (8, 5, ["--batch-size", "10"]),  # of both, so that the target does not refuse what the source allows
        (5, 8, ["--source-held-out", "0"]),
        (1, 1, ["--source-held-out", "0", "--batch-size", "2"]),
    ],
)
def test_too_few_images_for_a_batch(tmp_path, source, target, told):
    """`check` and `train` refuse alike, and what they advise is enough."""
    pair = domains(tmp_path, source, target)
    size = ["--batch-size", "6" if source == 5 else "72"]
    for done in (biwaa("check", *pair, *size), train(*pair, tmp_path / "run", *size)):
        refused(done)
        assert as_told(done) == told
    # The last flag of a name counts.
    done = biwaa("check", *pair, *size, *told)
    assert done.returncode == 0, done.stderr
    assert "can be adapted" in done.stdout
    if source == 1:  # the others differ in size alone
        assert train(*pair, tmp_path / "run", *size, *told).returncode == 0


def test_what_the_held_out_share_leaves_counts(tmp_path):
    source, target = domains(tmp_path, 20, 20)
    done = biwaa("check", source, target, "--batch-size", "40")
    refused(done, "36 images", "without the 4 that --source-held-out 0.1 keeps")
    assert biwaa("check", source, target, *as_told(done)).returncode == 0


def test_one_image_needs_another(tmp_path):
    """No size of a batch helps, so none is advised."""
    source, target = domains(tmp_path, 8, 1)
    shutil.rmtree(target / "dog")
    (target / "cat" / "0.png").rename(target / "0.png")
    (target / "cat").rmdir()
    for done in (biwaa("check", source, target), train(source, target, tmp_path / "run")):
        refused(done, "one image to train on", "add images")
        assert "--" not in done.stderr
    shutil.copy(source / "cat" / "0.png", target / "1.png")
    assert biwaa("check", source, target).returncode == 0
    with pytest.raises(BiwaaError, match="no image to train on"):
        check_batch(2, open_domain(str(source)), open_domain(str(target)).select([]))


@pytest.mark.parametrize("words", [("--batch-size", "1"), ("--source-held-out", "1"), ("--batch-size", "0")])
def test_check_takes_what_training_takes(tmp_path, words):
    pair = domains(tmp_path, 8, 8)
    refused(biwaa("check", *pair, *words))
    refused(train(*pair, tmp_path / "run", *words))


def test_check_plans_with_the_default_recipe(monkeypatch):
    """Heads that are solved need no batch; a machine with a GPU trains in batches."""
    assert load_recipe("robust").data.source_held_out == 0.1
    assert "0.1" in biwaa("check", "--help").stdout
    monkeypatch.setattr(suited, "has_gpu", lambda _: False)
    assert suited.least_images_here("robust") == 2
    monkeypatch.setattr(suited, "has_gpu", lambda _: True)
    assert suited.least_images_here("robust") == load_recipe("robust").data.batch_size == 72


def test_three_images_are_enough_without_a_gpu(tmp_path, monkeypatch):
    """For `check`, and for heads that are solved."""
    source, target = domains(tmp_path, 12, 2)
    (target / "cat" / "1.png").unlink()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert biwaa("check", source, target).returncode == 0
    rows, labels = np.random.default_rng(0).normal(size=(24, 6)), np.arange(24) % 2
    rows[:, 0] += 5 * labels
    assert adapt((rows, labels), rows[:3], verbose=False).result.target.images == 3


def test_unreadable_images_are_skipped_where_the_flag_exists(tmp_path, tiny_run):
    source, target = domains(tmp_path, 8, 8)
    (source / "cat" / "0.png").write_text("no image")
    done = biwaa("check", source)
    refused(done, "or train with --skip-unreadable")
    assert train(source, target, tmp_path / "run", "--skip-unreadable").returncode == 0
    done = biwaa("evaluate", tiny_run, source)
    refused(done, "pass --skip-unreadable")
    assert biwaa("evaluate", tiny_run, source, "--skip-unreadable").returncode == 0


def test_a_frozen_backbone_without_weights_is_not_told_to_start_at_random(tmp_path):
    pair = domains(tmp_path, 8, 8)
    done = train(*pair, tmp_path / "run", "--weights", "auto", "--freeze-backbone")
    refused(done, "freeze another --backbone")
    assert "--weights none" not in done.stderr
    refused(train(*pair, tmp_path / "other", "--weights", "auto"), "pass --weights none to start at random")
    assert train(*pair, tmp_path / "other", "--weights", "none", "--device", "auto").returncode == 0


def test_other_devices(tmp_path):
    pair = domains(tmp_path, 8, 8)
    done = train(*pair, tmp_path / "run", "--device", "mps")
    refused(done, "use --device auto.")  # as the test above does


def test_a_list_elsewhere_names_its_root(tmp_path):
    source, _ = domains(tmp_path, 2, 2)
    for name, text in (("list.txt", "cat/0.png 0\ndog/0.png 1\n"), ("list.csv", "path,label\ncat/0.png,cat\n")):
        (tmp_path / name).write_text(text)
        refused(biwaa("check", tmp_path / name), f"with {tmp_path / name}@ROOT")
        assert biwaa("check", f"{tmp_path / name}@{source}").returncode == 0


def test_batches_that_processes_cannot_share():
    with pytest.raises(BiwaaError, match="set --batch-size 6") as caught:
        load_recipe("robust").replace("flags", devices=3, batch_size=8)
    size = int(str(caught.value).split()[-1].rstrip("."))
    assert load_recipe("robust").replace("flags", devices=3, batch_size=size).data.batch_size == 6


def test_commands_in_messages_can_be_pasted(tmp_path):
    """A folder with a space, and a root that is not the default one."""
    root = tmp_path / "my data"
    write_images(root / "pacs" / "photo", {"dog": 2})
    done = biwaa("bench", "pacs", "--out", tmp_path / "bench", "--tasks", "P2S", "--data-root", root)
    refused(done, "not complete")
    pasted = re.search(r"`biwaa (.+?)`", done.stderr)
    assert pasted
    done = biwaa(*shlex.split(pasted[1]))
    assert "no image of" in done.stdout
    done = train("pacs:photo", "pacs:photo", tmp_path / "run", "--data-root", root)
    refused(done, "lacks 6 of its 7 classes")
    pasted = re.search(r"`biwaa (.+?)`", done.stderr)
    assert pasted
    assert "<- missing" in biwaa(*shlex.split(pasted[1])).stdout
