"""Label-free scores against others' code: scikit-learn and scipy, and skada where somebody has installed it.

skada is no dependency: `pip install --target DIR --no-deps skada pot` and `PYTHONPATH=DIR` run what is skipped here.
"""

import numpy as np
import pytest
import scipy.stats
import sklearn
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import completeness_score, homogeneity_score, normalized_mutual_info_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from biwaa.judging.evidence import Evidence
from biwaa.judging.importance import controlled_risk, density_ratio
from biwaa.judging.mixval import MIX, interpolation_consistency, mixval
from biwaa.judging.validators import (
    dev,
    negative_entropy,
    snd,
    v_measure,
)

CLASSES, WIDTH = 4, 12


def blobs(images, seed, shift=0.0, noise=1.5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    return 3 * np.eye(CLASSES, WIDTH)[labels] + shift + noise * rng.normal(size=(images, WIDTH)), labels


# scikit-learn and scipy.


def test_v_measure_is_normalised_mutual_information():
    features, labels = blobs(300, 0)
    evidence = Evidence(torch.eye(CLASSES)[torch.from_numpy(labels)], torch.from_numpy(features))
    classes, clusters = evidence.grouping
    assert v_measure(evidence) == pytest.approx(normalized_mutual_info_score(classes, clusters), rel=1e-9)
    parts = homogeneity_score(classes, clusters), completeness_score(classes, clusters)
    assert v_measure(evidence) == pytest.approx(scipy.stats.hmean(parts), rel=1e-9)


def test_control_variate_is_a_regression_on_the_weights():
    """What a straight line through (weight, weighted loss) gives for the weight 1."""
    rng = np.random.default_rng(3)
    losses, weights = rng.integers(0, 2, 80).astype(float), rng.lognormal(size=80)
    line = LinearRegression().fit(weights[:, None], weights * losses)
    assert controlled_risk(losses, weights) == pytest.approx(line.predict([[1.0]])[0], rel=1e-9)


def test_density_ratio_is_near_that_of_discriminant_analysis():
    """Gaussians of one covariance: both models are right, so both give nearly the same ratio."""
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(3000, 5)), rng.normal(size=(1500, 5)) + 0.4
    x = rng.normal(size=(200, 5))
    peer = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(np.concatenate([source, target]), [0] * 3000 + [1] * 1500)
    log_odds = peer.decision_function(x)
    assert np.abs(np.log(density_ratio(source, target, x)) - log_odds).max() < 0.3
    assert np.corrcoef(np.log(density_ratio(source, target, x)), log_odds)[0, 1] > 0.99


# skada.


@pytest.fixture
def metrics():
    """skada.metrics; it turns a global switch of scikit-learn at import, which is turned back afterwards."""
    before = sklearn.get_config()["enable_metadata_routing"]
    pytest.importorskip("skada")
    sklearn.set_config(enable_metadata_routing=True)
    yield pytest.importorskip("skada.metrics")
    sklearn.set_config(enable_metadata_routing=before)


@pytest.fixture(params=[LogisticRegression(C=0.05), DecisionTreeClassifier(max_depth=6, random_state=0)])
def task(request, metrics):
    """A fitted source-only pipeline of skada's; X, labels (the target's masked) and domains of both."""
    from skada import make_da_pipeline

    (source, labels), (target, _) = blobs(240, 5), blobs(160, 6, shift=0.4)
    x = np.concatenate([source, target])
    domain = np.concatenate([np.ones(240), -2 * np.ones(160)]).astype(int)
    y = np.concatenate([labels, -np.ones(160)]).astype(int)  # -1 masks a target label
    model = make_da_pipeline(FunctionTransformer(), clone(request.param)).fit(x, y, sample_domain=domain)
    return model, x, y, domain


def on_target(model, x, domain):
    return model.predict_proba(x[domain < 0], sample_domain=domain[domain < 0])


@pytest.mark.filterwarnings(
    "ignore:divide by zero", "ignore:invalid value"
)  # skada multiplies 0 by log 0, then repairs it
def test_skada_entropy(metrics, task):
    """skada's mean is over images and classes, so K times smaller: the same order of candidates."""
    model, x, y, domain = task
    peer = CLASSES * metrics.PredictionEntropyScorer()(model, x, y, sample_domain=domain)
    assert negative_entropy(torch.from_numpy(on_target(model, x, domain))) == pytest.approx(peer, rel=1e-9)


def test_skada_soft_neighbourhood_density(metrics, task):
    """skada gives each image the cosine -1 with itself instead of leaving it out: less than 1e-8 of a nat."""
    model, x, y, domain = task
    peer = metrics.SoftNeighborhoodDensity()(model, x, y, sample_domain=domain)
    assert snd(torch.from_numpy(on_target(model, x, domain))) == pytest.approx(peer, abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_skada_mixval(metrics, task, seed):
    """With skada's pairs, the consistency over each kind; skada averages the two where the paper averages ranks."""
    model, x, y, domain = task
    target = x[domain < 0]
    p = torch.from_numpy(on_target(model, x, domain))
    partner = np.random.RandomState(seed).permutation(len(target))
    mixed = MIX * target + (1 - MIX) * target[partner]
    pairs = torch.from_numpy(np.stack([np.arange(len(target)), partner], axis=1))
    evidence = Evidence(
        p, mixed=torch.from_numpy(model.predict_proba(mixed, sample_domain=domain[domain < 0])), pairs=pairs
    )
    found = interpolation_consistency(evidence)
    for value, kind in zip(found, ("intra", "inter"), strict=True):
        scorer = metrics.MixValScorer(alpha=MIX, ice_type=kind, random_state=seed)
        assert value == pytest.approx(scorer(model, x, y, sample_domain=domain), rel=1e-9)
    both = metrics.MixValScorer(alpha=MIX, random_state=seed)(model, x, y, sample_domain=domain)
    assert np.mean(found) == pytest.approx(both, rel=1e-9)
    assert mixval([evidence]) == [1.0]


class Ours(ClassifierMixin, BaseEstimator):
    """Our density ratio as the domain classifier that skada asks for: of class 1, the source, against class 0."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        self.source_, self.target_ = x[y == 1], x[y == 0]
        return self

    def predict_proba(self, x):
        odds = density_ratio(self.source_, self.target_, x) * len(self.target_) / len(self.source_)
        return np.stack([odds / (1 + odds), 1 / (1 + odds)], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_skada_deep_embedded_validation(metrics, task, seed):
    """The same split, weights and 0/1 loss.

    The loss is passed as a column: the row that skada 0.6.0's own loss returns becomes a matrix with the weights.
    """
    model, x, y, domain = task

    def wrong(labels, probabilities):
        return (probabilities.argmax(axis=1) != labels).astype(float)[:, None]

    source, labels = x[domain > 0], y[domain > 0]
    trained, held_out, _, held_out_labels = train_test_split(
        source, labels, test_size=0.33, random_state=np.random.RandomState(seed)
    )
    evidence = Evidence(
        torch.from_numpy(on_target(model, x, domain)),
        features=torch.from_numpy(x[domain < 0]),
        source_probabilities=torch.from_numpy(
            model.predict_proba(held_out, sample_domain=np.ones(len(held_out), dtype=int), allow_source=True)
        ),
        source_features=torch.from_numpy(held_out),
        source_labels=torch.from_numpy(held_out_labels),
        trained_features=torch.from_numpy(trained),
    )
    ours = metrics.DeepEmbeddedValidation(Ours(), loss_func=wrong, random_state=seed)
    assert dev(evidence) == pytest.approx(ours(model, x, y, sample_domain=domain), rel=1e-6)
    # With skada's own classifier the weights differ, the judgement little.
    theirs = metrics.DeepEmbeddedValidation(loss_func=wrong, random_state=seed)
    assert dev(evidence) == pytest.approx(theirs(model, x, y, sample_domain=domain), abs=0.1)
