"""What goes with what: every kind of source with every way of asking for more, and these with each other.

Each pair leaves a run or is refused in one sentence, as the table of docs/combinations.md says.
"""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import biwaa
from biwaa.errors import BiwaaError
from biwaa.tensors import load_tensors, save_tensors

ROWS, WIDTH = 12, 8
LABELS = np.repeat(["cat", "dog", "eel"], ROWS)
PAGE = Path(__file__).parents[1] / "docs" / "combinations.md"


def place(seed):
    """Rows of three classes, stretched and moved its own way."""
    centres = 2.0 * np.random.default_rng(0).normal(size=(3, WIDTH))
    rng = np.random.default_rng(seed)
    rows = np.repeat(centres, ROWS, axis=0) + 0.6 * rng.normal(size=(len(LABELS), WIDTH))
    return (rows * rng.uniform(0.5, 2, size=WIDTH) + rng.normal(size=WIDTH)).astype(np.float32)


TARGET = (place(9), LABELS)
SCORES = {name: 3.0 * (name == LABELS) + np.random.default_rng(5).normal(size=len(LABELS)) for name in set(LABELS)}
GIVEN = 6
MORE = {
    "teacher": {"teacher": SCORES},
    "its scores of the source": {"teacher": SCORES, "teacher_source": SCORES},
    "target labels": {"target_labels": [name if row % GIVEN == 0 else None for row, name in enumerate(LABELS)]},
    "unknown": {"unknown": "0.25"},
    "target shift": {"target_shift": "per-class:10"},
    "held out": {"held_out": (place(10), LABELS)},
    "another method": {"method": "mcc", "freeze_backbone": True, "batch_size": 8, "steps": 2, "baseline": False},
}
KINDS = ("one source", "several sources", "a model with statistics", "a head alone", "no source")
REASONS = {
    ("teacher", "another method"): "does not learn from a teacher",
    ("unknown", "another method"): "for the method prototypes",
    ("a model with statistics", "another method"): "the method is prototypes",
    ("a model with statistics", "its scores of the source"): "leave --teacher-source out",
    ("a head alone", "another method"): "the method is prototypes",
    ("a head alone", "its scores of the source"): "leave --teacher-source out",
    ("a head alone", "teacher"): "leave the other teacher out",
    ("no source", "another method"): "does not learn from a teacher",
    ("no source", "its scores of the source"): "--teacher-source needs a --source",
}
"""Some words of each refusal."""
PAIRS = [
    *itertools.product(KINDS, MORE),
    *(pair for pair in itertools.combinations(MORE, 2) if pair != ("teacher", "its scores of the source")),
]


def read_table():
    """(row, column) -> whether they go together, as the page's first table has it."""
    text = PAGE.read_text(encoding="utf-8")
    lines = text[text.index("\n|") + 1 :].partition("\n\n")[0].splitlines()
    head, _, *rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    marks = {"yes": True, "no": False}
    return {
        (row[0], column): marks[cell]
        for row in rows
        for column, cell in zip(head[1:], row[1:], strict=True)
        if cell
    }  # fmt: skip


TABLE = read_table()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Every kind of source."""
    folder = tmp_path_factory.mktemp("sources")
    one = (place(1), LABELS)
    run = biwaa.adapt(one, TARGET[0], out=folder / "run", verbose=False)
    state, facts = load_tensors(run.folder / "model.safetensors")
    kept = {name: part for name, part in state.items() if not name.startswith(("known.", "plain."))}
    save_tensors(folder / "head.safetensors", kept, **facts)
    return dict(zip(KINDS, (one, [one, (place(2), LABELS)], run, folder / "head.safetensors", None), strict=True))


@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
def test_each_pair_works_or_is_refused_in_a_sentence(sources, pair):
    kind, more = (pair[0], pair[1:]) if pair[0] in KINDS else (KINDS[0], pair)
    given = {"teacher": SCORES} if kind == "no source" else {}
    for name in more:
        given |= MORE[name]
    if kind == "several sources" and "teacher_source" in given:
        given["teacher_source"] = {name: np.tile(values, 2) for name, values in SCORES.items()}
    taught = ("teacher", pair[1]) if pair[0] == "its scores of the source" else pair
    said = REASONS.get(pair) or REASONS.get(taught)
    assert TABLE[pair] == (said is None)
    if said is None:
        run = biwaa.adapt(sources[kind], TARGET, verbose=False, **given)
        assert run.result.finished
        assert (run.result.target.labels_given > 0) == ("target labels" in more)
        assert ("unknown" in run.result.classes) == ("unknown" in more)
        assert (run.result.teacher is not None) == ("teacher" in given)
        assert bool(run.result.remembered) == (kind in KINDS[2:4])
        return
    with pytest.raises(BiwaaError) as refusal:
        biwaa.adapt(sources[kind], TARGET, verbose=False, **given)
    assert said in str(refusal.value)
    assert re.fullmatch(r"[^\n]+\.", str(refusal.value))
