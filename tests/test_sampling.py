"""Batches: balance, epochs, and streams that can be replayed."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from biwaa.training.sampling import balanced_batches, uniform_batches


def labels_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_visits_are_even_and_an_epoch_repeats_no_image(counts, batch_size, seed):
    labels = labels_of(counts)
    kept = [k for k, n in enumerate(counts) if n * len(counts) // batch_size >= 1] or list(range(len(counts)))
    batches = list(itertools.islice(balanced_batches(labels, batch_size, seed, drop_small=True), 7))
    assert all(len(batch) == batch_size for batch in batches)
    assert set(labels[np.concatenate(batches)].tolist()) <= set(kept)
    epoch = min(counts[k] * len(kept) // batch_size for k in kept)
    first = np.concatenate(batches[: max(1, epoch)])
    shown = np.bincount(labels[first], minlength=len(counts))[kept]
    assert shown.max() - shown.min() <= 1
    if epoch >= 1:
        assert len(set(first.tolist())) == len(first)
    for visit in range(len(first) // len(kept)):
        assert sorted(labels[first[visit * len(kept) : (visit + 1) * len(kept)]].tolist()) == kept


def test_small_classes_stay_in_the_source_and_go_from_the_target():
    labels = labels_of([50, 50, 2])
    source = np.concatenate(list(itertools.islice(balanced_batches(labels, 36, 0, drop_small=False), 3)))
    target = np.concatenate(list(itertools.islice(balanced_batches(labels, 36, 0, drop_small=True), 3)))
    assert np.bincount(labels[source]).tolist() == [36, 36, 36]
    assert np.bincount(labels[target], minlength=3).tolist() == [54, 54, 0]


def test_one_predicted_class_is_no_obstacle():
    batch = next(balanced_batches(np.zeros(40, dtype=np.int64), 36, 0, drop_small=True))
    assert len(set(batch.tolist())) == 36


def test_uniform_is_without_replacement_and_streams_replay():
    epoch = np.concatenate(list(itertools.islice(uniform_batches(25, 8, 3), 3)))
    assert len(set(epoch.tolist())) == 24
    for make in (lambda: uniform_batches(25, 8, 3), lambda: balanced_batches(labels_of([9, 30]), 8, 3, True)):
        one, two = itertools.islice(make(), 20), itertools.islice(make(), 20)
        assert all((a == b).all() for a, b in zip(one, two, strict=True))
