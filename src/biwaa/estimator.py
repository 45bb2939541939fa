"""`DomainAdapter`: adaptation as a scikit-learn classifier."""

import warnings
from os import PathLike
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from biwaa.api import adapt
from biwaa.domains.domain import Domain
from biwaa.domains.labels import LabelKind, missing
from biwaa.domains.objects import as_images
from biwaa.errors import BiwaaError
from biwaa.methods import METHODS
from biwaa.progress import quiet
from biwaa.recipe import AUTO, Recipe, load_recipe

MOST_SEED = 2**31 - 1000


class DomainAdapter(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns from labelled source rows and unlabelled target rows of one X.

    `sample_domain` tells them apart, as in the library skada: positive is source, negative is target. The values of `y`
    at target rows are never read. Both pass through a Pipeline alike, and tools that split rows (`cross_val_score`,
    `GridSearchCV`) split `sample_domain` along when it is passed in their `params`. Without it every row is source, and
    the classifier is trained on labelled rows alone.

    X is (N, F) features, trained as on a frozen backbone, or (N, H, W[, 3]) images in uint8, for which `settings` names
    the backbone.

    It passes scikit-learn's `check_estimator` on features, without a target; `tests/test_estimator.py` runs it.

    Args:
        recipe: a named recipe or a YAML file.
        method: of adaptation; None for the recipe's, here as below.
        rounds: trainings from scratch.
        steps: of each.
        learning_rate: initial.
        batch_size: rows of each domain in a step; cut to what there is.
        settings: any other fields of `biwaa.Recipe`.
        random_state: seed; None for the recipe's, so that a fit can be repeated unless it is told not to be.
        out: run folder, made again at each fit; None for a temporary one.
        verbose: show progress on standard error.

    Attributes:
        classes_: (K,) as `y` has them.
        run_: the finished `biwaa.Run` where `out` was given, else None.
        result_: what its result.json says.
        n_features_in_: F, where X was features.
    """

    def __init__(
        self,
        recipe: str = "robust",
        *,
        method: str | None = None,
        rounds: int | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        settings: dict[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        out: str | PathLike[str] | None = None,
        verbose: bool = False,
    ) -> None:
        self.recipe = recipe
        self.method = method
        self.rounds = rounds
        self.steps = steps
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.settings = settings
        self.random_state = random_state
        self.out = out
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike, sample_domain: ArrayLike | None = None) -> Self:  # noqa: N803
        """Adapt from the rows with positive `sample_domain` to those with a negative one.

        Args:
            X: (N, F) features or (N, H, W[, 3]) images in uint8.
            y: (N,) classes; values at target rows are never read.
            sample_domain: (N,) positive for source, negative for target; None: all are source.

        Raises:
            ValueError: the rows cannot be trained on; the message says why.
        """
        rows = self._rows(X, reset=True)
        labels = column_or_1d(y, warn=True) if y is not None else self._no_labels()
        check_consistent_length(rows, labels)
        domain = self._domains(sample_domain, len(rows))
        source, target = rows[domain > 0], rows[domain < 0]
        labels = self._source_labels(y, labels, domain > 0)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"the source has one class ({self.classes_}): a classifier needs two or more.")
        settings: dict[str, Any] = {}
        if not len(target):
            warnings.warn("no target rows in sample_domain: trained on the labelled rows alone", stacklevel=2)
            # The run wants a target to predict and refuses the same array twice.
            target, settings = source[::-1], {"method": "source_only", "baseline": False, "rounds": 1, "choice": "last"}
        recipe = self._resolved(np.bincount(numbers), len(target), settings)
        try:
            run = adapt(
                self._domain(source, numbers), target, out=self.out, recipe=recipe, overwrite=True, verbose=self.verbose
            )
        except BiwaaError as error:
            raise ValueError(str(error)) from error
        self.result_ = run.result
        self._classifier = run.classifier  # in memory; a temporary folder goes with `run`
        self.run_ = run if self.out is not None else None
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """(N, K) probabilities of `classes_`, as calibrated as the run's estimate of the accuracy is right."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        try:
            with quiet(not self.verbose):
                found: NDArray[np.float64] = self._classifier.predict_proba(rows).astype(np.float64)
        except BiwaaError as error:
            raise ValueError(str(error)) from error
        return found

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """(N,) classes as `y` had them."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, X: ArrayLike, y: ArrayLike, sample_domain: ArrayLike | None = None) -> float:  # noqa: N803
        """Accuracy over rows; with `sample_domain` over the target's alone."""
        if sample_domain is None:
            return float(super().score(X, y))
        target = self._domains(sample_domain, len(np.asarray(y))) < 0
        return float(super().score(np.asarray(X)[target], np.asarray(y)[target]))

    def _rows(self, X: ArrayLike, reset: bool) -> NDArray[Any]:  # noqa: N803
        if isinstance(X, np.ndarray) and X.dtype == np.uint8 and X.ndim in (3, 4):
            if X.ndim == 3 and X.shape[-1] in (1, 3, 4):
                raise ValueError(f"X of shape {X.shape} is one picture, and X holds rows of them: give X[None].")
            return X
        return np.asarray(validate_data(self, X, reset=reset, dtype=np.float32))

    def _source_labels(self, y: ArrayLike, labels: NDArray[Any], source: NDArray[np.bool_]) -> NDArray[Any]:
        """Labels of the source rows, none of them missing; here -1 is a class as any other."""
        if labels.dtype.kind not in "iub":
            gone = int(missing(np.asarray(y, dtype=object).ravel()[source], marks=()).sum())
            if gone:
                raise ValueError(f"{gone} of {int(source.sum())} source rows have no label in y: label or remove them.")
        kept = labels[source]
        kept = np.asarray(kept.tolist()) if kept.dtype.kind == "O" else kept  # None stood at target rows
        check_classification_targets(kept)
        return kept

    def _domain(self, rows: NDArray[Any], numbers: NDArray[np.int64]) -> Domain:
        """The source rows by the names of `classes_`, so that the run and its model have them too."""
        values = self.classes_
        whole = values.dtype.kind == "f" and (values == np.round(values)).all()  # NaN stood at target rows
        kind: LabelKind = "integer" if whole or values.dtype.kind in "iu" else "text"
        kind = "boolean" if values.dtype.kind == "b" else kind
        names = tuple(str(value) for value in (values.astype(np.int64) if whole else values).tolist())
        return Domain("source", as_images(rows, "source"), names, numbers.astype(np.int64), label_kind=kind)

    def _no_labels(self) -> NDArray[Any]:
        raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")

    def _domains(self, given: ArrayLike | None, rows: int) -> NDArray[Any]:
        if given is None:
            return np.ones(rows)
        domain = check_array(given, ensure_2d=False, dtype=np.float64)
        if domain.shape != (rows,) or not domain.all():
            raise ValueError(f"sample_domain must be {rows} numbers, positive for source and negative for target.")
        return np.asarray(domain)

    def _resolved(self, counts: NDArray[np.int64], targets: int, forced: dict[str, Any]) -> Recipe:
        """All settings; batches and the held-out share are cut to what there is."""
        named = ("method", "rounds", "steps", "learning_rate", "batch_size")
        given = {name: value for name in named if (value := getattr(self, name)) is not None}
        if self.random_state is not None:
            given["seed"] = int(check_random_state(self.random_state).randint(MOST_SEED))
        try:
            base = load_recipe(self.recipe)
            base = base.replace("DomainAdapter", **(self.settings or {}) | given)
            if base.method != AUTO:
                METHODS[base.method]  # an unknown one is refused, though without a target another is used
            base = base.replace("DomainAdapter", **forced)
            held = np.minimum(np.round(base.data.source_held_out * counts), counts - 1).sum()
            batch = max(2, min(base.data.batch_size, int(counts.sum() - held), targets))
            share = base.data.source_held_out if held else 0.0
            return base.replace("DomainAdapter", batch_size=batch, source_held_out=share)
        except BiwaaError as error:
            raise ValueError(str(error)) from error
