"""DomainAdapter: scikit-learn's own checks, and what those do not know: a second domain."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import biwaa

FAST = biwaa.DomainAdapter(rounds=1, steps=30, learning_rate=0.01, batch_size=36)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no target rows", "ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([FAST], expected_failed_checks=lambda _: {})
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def shifted():
    """Two classes; the target is scaled and moved so far that the source's classifier is lost there."""
    rng = np.random.default_rng(0)
    y = np.repeat([3, 7], 60)
    centres = np.where((y == 3)[:, None], [0.0, 0.0], [4.0, 4.0])
    source, target = rng.normal(centres, 1.0), rng.normal(centres, 1.0) * [1, 3] + [6, -20]
    return np.vstack([source, target]), np.tile(y, 2), np.repeat([1, -2], 120)


def test_target_labels_are_never_read(shifted):
    rows, y, domain = shifted
    wrong = np.where(domain > 0, y, 99)
    fits = [FAST.fit(rows, labels, sample_domain=domain).predict_proba(rows) for labels in (y, wrong)]
    assert np.array_equal(*fits)
    assert FAST.classes_.tolist() == [3, 7]
    adapted = FAST.score(rows, y, sample_domain=domain)
    with pytest.warns(UserWarning, match="no target rows"):
        alone = biwaa.DomainAdapter(rounds=1, steps=30, learning_rate=0.01).fit(rows[domain > 0], y[domain > 0])
    assert adapted > 0.9
    assert alone.score(rows[domain < 0], y[domain < 0]) < 0.7


def test_pipeline_cross_validation_and_search(shifted):
    rows, y, domain = shifted
    pipeline = make_pipeline(StandardScaler(), FAST)
    params = {"domainadapter__sample_domain": domain}
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    assert cross_val_score(pipeline, rows, y, params=params, cv=folds).min() > 0.4
    search = GridSearchCV(FAST, {"method": ["mcc", "source_only"]}, cv=folds, error_score="raise")
    search.fit(rows, y, sample_domain=domain)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_images_and_a_run_folder(tmp_path):
    rng = np.random.default_rng(0)
    y = np.array(["dark", "light"]).repeat(20)
    images = rng.normal(np.where(y == "dark", 60, 190)[:, None, None], 20, (40, 12, 12)).clip(0, 255).astype(np.uint8)
    settings = {"image_size": 12, "resize": 12, "bottleneck": 8, "discriminator": 16}
    adapter = biwaa.DomainAdapter("demo", rounds=1, steps=20, settings=settings, out=tmp_path / "run", random_state=1)
    domain = np.tile([1, -1], 20)
    assert adapter.fit(images, y, sample_domain=domain).score(images, y, sample_domain=domain) > 0.9
    assert adapter.run_.folder == tmp_path / "run"
    again = biwaa.load(tmp_path / "run").predict_proba(images)
    assert np.abs(adapter.predict_proba(images) - again).max() < 1e-6


@pytest.mark.parametrize(
    "settings, given, message",
    [
        ({"method": "nope"}, {"sample_domain": [1, 1, -1, -1]}, "no method is called 'nope'"),
        ({"method": "nope"}, {}, "no method is called 'nope'"),
        ({"settings": {"stepps": 1}}, {}, "did you mean 'steps'"),
        ({}, {"sample_domain": [1, 0]}, "positive for source and negative for target"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:no target rows")
def test_what_cannot_be_fitted(settings, given, message):
    with pytest.raises(ValueError, match=message):
        biwaa.DomainAdapter(**settings).fit(np.eye(4), [0, 1, 0, 1], **given)
