"""A model as a source: what its file keeps, adapting from it, a head alone, chains, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_sources import places, standardised

import biwaa
from biwaa.cli import main
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.inference.evaluate import evaluate_run
from biwaa.models.known import check_backbone, open_known
from biwaa.models.saved import load_model
from biwaa.report.run_page import run_page
from biwaa.share import model_card
from biwaa.solvers.prototypes import adapt_prototypes
from biwaa.solvers.remembered import Memory, Remembered, solve_remembered
from biwaa.tensors import load_tensors, save_tensors

CLASSES = 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run, and rows and labels of a third place."""
    (source, target, third), labels = places(2)
    run = biwaa.adapt((source, labels), target, out=tmp_path_factory.mktemp("known") / "run", verbose=False)
    return run, third, labels


def right(run):
    return run.result.accuracy.adapted.over_images


@pytest.mark.parametrize("width", [16, 300])  # as many features as axes, and more
def test_statistics_do_what_the_rows_do(width):
    (source, target), labels = places(1, rows=300, width=width, noise=2.5)
    here, there, truth = standardised(source), standardised(target), torch.from_numpy(labels)
    known = Remembered.of(here, truth, CLASSES)
    assert known.counts.tolist() == [60] * CLASSES
    spread = (here - known.means[truth]).square().sum(dim=1).mean()
    beyond = width - len(known.within)
    torch.testing.assert_close(known.within.trace() + known.rest * beyond, spread)
    found = adapt_prototypes(here, truth, there, CLASSES)
    assert (found is not None) == bool(known.guided)
    head = solve_remembered(Memory(known._replace(guided=torch.tensor(1.0)), None), there)
    from biwaa.solvers.prototypes import follow_prototypes

    with_rows = (follow_prototypes(here, truth, there, CLASSES).argmax(dim=1) == truth).float().mean()
    assert (head.scores(there).argmax(dim=1) == truth).float().mean() > with_rows - 0.03


def test_a_run_is_a_source_and_so_is_the_run_that_comes_of_it(trained, tmp_path):
    run, third, labels = trained
    with_images = biwaa.adapt((places(2)[0][0], labels), (third, labels), verbose=False)
    first = biwaa.adapt(run, (third, labels), out=tmp_path / "second", verbose=False)
    assert right(first) > right(with_images) - 0.02
    assert first.result.source.spec == str(run.folder)
    assert first.result.remembered.images == 135  # a tenth was held out
    assert first.result.baseline.accuracy.over_images == pytest.approx(with_images.result.baseline.accuracy.over_images)
    again = biwaa.adapt(str(tmp_path / "second" / "model.safetensors"), (third, labels), verbose=False)
    assert right(again) == right(first)
    np.savez(tmp_path / "source.npz", source_x=places(2)[0][0], source_y=labels)
    there, _ = evaluate_run(first.folder, open_domain(f"{tmp_path}/source.npz:source"), "cpu", 32, False, "source")
    assert there.accuracy.over_images > 0.95  # it has that place's statistics too
    known = (load_model(folder).memory for folder in (run.folder, tmp_path / "second"))
    for one, other in zip(*(memory.statistics for memory in known), strict=True):
        torch.testing.assert_close(one, other)
    page = run_page(tmp_path / "second")
    assert "which remembers 135 images" in page
    assert f"what a model remembers of `{run.folder.name}`" in model_card(tmp_path / "second", "me/model")


def test_a_model_without_statistics_is_a_teacher(trained, tmp_path):
    run, third, labels = trained
    state, facts = load_tensors(run.folder / "model.safetensors")
    kept = {name: part for name, part in state.items() if not name.startswith(("known.", "plain."))}
    save_tensors(tmp_path / "old.safetensors", kept, **facts)
    found = biwaa.adapt(tmp_path / "old.safetensors", (third, labels), verbose=False)
    assert found.result.remembered.images is None
    own = load_model(run.folder).network
    said = own(torch.from_numpy(third)).logits.argmax(dim=1).numpy()
    assert found.result.baseline.accuracy.over_images == pytest.approx((said == labels).mean())
    assert right(found) >= (said == labels).mean()


def test_statistics_hold_no_row_and_nothing_of_the_target(trained):
    run, _, labels = trained
    source = places(2)[0][0]
    state, _ = load_tensors(run.folder / "model.safetensors")
    kept = {name: part for name, part in state.items() if name.startswith(("known.", "plain."))}
    assert len(kept) == 11
    assert max(part.numel() for part in kept.values()) <= 16 * 16
    other = biwaa.adapt((source, labels), places(2, seed=5)[0][0], verbose=False)
    same, _ = load_tensors(other.folder / "model.safetensors")
    for name, part in kept.items():
        torch.testing.assert_close(part, same[name], rtol=1e-3, atol=1e-3)


def test_what_a_model_as_a_source_refuses(trained, tmp_path, capfd):
    run, third, labels = trained

    def said(**settings):
        with pytest.raises(BiwaaError) as error:
            biwaa.adapt(settings.pop("source", run), settings.pop("target", third), verbose=False, **settings)
        return str(error.value)

    known = open_known("run", run.folder / "model.safetensors")
    known = replace(known, backbone=replace(known.backbone, name="resnet18"))
    check_backbone(known, "ResNet-18", "auto", None)
    for words, other in {"--backbone vgg11": ("vgg11", "auto", None), "--weights": ("resnet18", "x.pth", None),
                         "--image-size 64": ("auto", "auto", 64)}.items():  # fmt: skip
        with pytest.raises(BiwaaError, match=f"leave {words} out"):
            check_backbone(known, *other)
    assert "the method is prototypes" in said(method="dann", freeze_backbone=True)
    assert "--classes names others" in said(classes="a,b")
    assert "--source-shift would take some: leave it out" in said(source_shift="images:9")
    assert "--statistics source is of them: leave it out" in said(statistics="source")
    assert "is a source by itself" in said(source=[str(run.folder), (third, labels)])
    assert "would be replaced" in said(out=run.folder, overwrite=True)
    assert "is a model of rows of 16 features" in said(target=third[:, :9])
    assert "is a model of rows of 16 features" in said(target=np.zeros((9, 8, 8, 3), dtype=np.uint8))
    assert "only in target: 9" in said(target=(third, np.where(labels == 4, 9, labels)))
    state, facts = load_tensors(run.folder / "model.safetensors")
    save_tensors(tmp_path / "bad.safetensors", state | {"known.means": torch.zeros(2, 16)}, **facts)
    assert "is not a model that biwaa wrote" in said(source=tmp_path / "bad.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    assert "junk.safetensors" in said(source=tmp_path / "junk.safetensors")
    np.savez(tmp_path / "f.npz", t_x=third, t_y=labels)
    assert main(["check", str(run.folder), f"{tmp_path / 'f.npz'}:t"]) == 0
    assert "a model of 5 classes on features, with statistics of 135 images" in capfd.readouterr().out


def test_where_neighbours_are_no_guide_source_only_is_the_teacher(trained):
    memory, there = load_model(trained[0].folder).memory, standardised(trained[1])
    unsure = Memory(memory.statistics._replace(guided=torch.tensor(0.0)), memory.head)
    taught = solve_remembered(Memory(None, memory.head), there)
    torch.testing.assert_close(solve_remembered(unsure, there).scores(there), taught.scores(there))
    assert not torch.allclose(solve_remembered(memory, there).scores(there), taught.scores(there))
