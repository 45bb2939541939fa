"""Label shift: the requested shares, the same images every time; and the report of runs."""

import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import SMALL, train_pair, write_images
from hypothesis import given, settings

from biwaa.domains.domain import Domain
from biwaa.domains.shift import check_rule, class_shares, shifted_rows, subsample
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.images.images import ArrayImages
from biwaa.judging.label_shift import total_variation
from biwaa.recipe import recipe_from

TINY = {**SMALL, "steps": 6, "rounds": 1, "batch_size": 6, "image_size": 12, "resize": 12, "bottleneck": 8,
        "discriminator": 16}  # fmt: skip


@given(st.lists(st.integers(1, 60), min_size=2, max_size=8), st.floats(1, 100), st.booleans(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_subsets_have_the_shares_and_are_the_largest(counts, ratio, backwards, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rule = f"{'reversed' if backwards else 'long-tail'}:{ratio:.3f}"
    shares, _ = class_shares(rule, len(counts))
    rows = subsample(labels, shares, seed)
    kept = np.bincount(labels[rows], minlength=len(counts))
    total = min(count / share for count, share in zip(counts, shares, strict=True))
    assert len(set(rows.tolist())) == len(rows)
    assert (kept >= 1).all()
    for have, count, share in zip(kept, counts, shares, strict=True):
        assert have <= count
        assert have == max(1, int(total * share + 1e-9))
    assert any(have == count for have, count in zip(kept, counts, strict=True))
    assert (rows == subsample(labels, shares, seed)).all()


def test_a_class_without_images_sets_no_bound():
    rows = subsample(np.array([0] * 10 + [2] * 10), np.array([0.5, 0.3, 0.2]), 0)
    assert len(rows) == 10 + 4


def test_shares_by_rule():
    shares, _ = class_shares("long-tail:100", 3)
    np.testing.assert_allclose(shares / shares[-1], [100, 10, 1])
    np.testing.assert_allclose(class_shares("reversed:100", 3)[0], shares[::-1])
    drawn, seed = class_shares("dirichlet:0.5:7", 4)
    np.testing.assert_allclose(drawn, np.random.default_rng(7).dirichlet([0.5] * 4))
    assert seed == 7
    for rule in ("long-tail", "long-tail:0.5", "dirichlet:0", "dirichlet:-1", "uniform", "long-tail:2:3", ""):
        with pytest.raises(BiwaaError, match="no label shift"):
            class_shares(rule, 3)


def test_runs_report_predicted_and_true_distributions(tmp_path):
    counts = {"cat": 20, "dog": 20, "eel": 20}
    source = open_domain(str(write_images(tmp_path / "source", counts, seed=0, size=12)))
    target = open_domain(str(write_images(tmp_path / "target", counts, seed=1, size=12)))
    recipe = recipe_from({**TINY, "source_shift": "long-tail:4", "target_shift": "reversed:4"}, "test")
    result = train_pair(source, target, recipe, tmp_path / "run").result
    assert result.source.images == result.target.images == 20 + 10 + 5
    assert (result.source.shift, result.target.shift) == ("long-tail:4", "reversed:4")
    found = result.label_shares
    assert found.source == {"cat": 0.571429, "dog": 0.285714, "eel": 0.142857}
    assert found.true_target == {"cat": 0.142857, "dog": 0.285714, "eel": 0.571429}
    stage = result.stage("round 0")
    predicted, true = stage.predicted_shares, found.true_target
    assert stage.distance_to_true == pytest.approx(sum(abs(predicted[k] - true[k]) for k in true) / 2, abs=1e-5)
    assert found.source_to_true == pytest.approx(3 / 7, abs=1e-5)
    rows = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 36


def test_a_target_without_labels_cannot_be_shifted(tmp_path):
    source = open_domain(str(write_images(tmp_path / "source", {"cat": 9, "dog": 9}, seed=0, size=12)))
    bare = write_images(tmp_path / "bare", {"all": 12}, seed=1, size=12) / "all"
    recipe = recipe_from({**TINY, "target_shift": "long-tail:4"}, "test")
    with pytest.raises(BiwaaError, match="has no labels, so its classes cannot be subsampled"):
        train_pair(source, open_domain(str(bare)), recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_total_variation():
    assert total_variation(np.array([0.5, 0.5, 0]), np.array([0.5, 0.25, 0.25])) == 0.25
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1


@given(st.lists(st.integers(1, 30), min_size=2, max_size=8), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_number_of_images_is_selected_the_same_every_time(counts, number, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = tuple(str(k) for k in range(len(counts)))
    domain = Domain("x", ArrayImages(np.zeros((len(labels), 2, 2), np.uint8), "x"), names, labels)
    rows = shifted_rows(domain, f"per-class:{number}:{seed}")
    assert (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows], minlength=len(counts)).tolist() == [min(number, count) for count in counts]
    some = shifted_rows(domain, f"images:{number}:{seed}")
    assert len(set(some.tolist())) == len(some) == min(number, len(labels))
    assert (rows == shifted_rows(domain, f"per-class:{number}:{seed}")).all()
    assert (some == shifted_rows(domain, f"images:{number}:{seed}")).all()
    assert (shifted_rows(domain, f"images:{number}:0") == shifted_rows(domain, f"images:{number}")).all()


def test_images_need_no_labels_to_be_counted():
    domain = Domain("x", ArrayImages(np.zeros((9, 2, 2), np.uint8), "x"))
    assert len(shifted_rows(domain, "images:4")) == 4
    other = shifted_rows(domain, "images:4:1")
    assert other.tolist() != shifted_rows(domain, "images:4").tolist()
    with pytest.raises(BiwaaError, match="x has no labels, so its classes cannot be subsampled to per-class:2"):
        shifted_rows(domain, "per-class:2")
    for rule in ("images", "images:0", "images:1.5", "per-class:-1", "per-class:5:x", "images:5:1:2"):
        with pytest.raises(BiwaaError, match="no label shift"):
            check_rule(rule)
