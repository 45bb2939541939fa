"""`biwaa suggest`: what it takes, the table and the page that it writes, and that nothing of a user's is lost."""

import csv
import re
import shlex
from html import unescape

import pytest
import torch
from test_solvers import shifted
from test_target_labels import rows_of, some

import biwaa
from biwaa.cli import main
from biwaa.judging.suggestion import suggested_rows


def clouds():
    """Three clouds of 40 images; the model is unsure of the first two."""
    generator = torch.Generator().manual_seed(0)
    features = torch.eye(3).repeat_interleave(40, dim=0) + 0.05 * torch.randn(120, 3, generator=generator)
    unsure = torch.tensor([0.6, 0.6, 0.999]).repeat_interleave(40)
    return torch.stack([unsure, 1 - unsure], dim=1), features


def test_suggestions_are_unsure_spread_and_new():
    probabilities, features = clouds()
    nothing = torch.zeros(0, dtype=torch.long)
    rows = suggested_rows(probabilities, features, 6, nothing)
    of = (rows // 40).bincount(minlength=3).tolist()
    assert of[0] >= 2
    assert of[1] >= 2
    assert of[2] <= 1
    assert len(set(rows.tolist())) == 6
    again = suggested_rows(probabilities, features, 6, rows)
    assert not set(again.tolist()) & set(rows.tolist())
    every = suggested_rows(probabilities, features, 500, rows)
    assert sorted([*every.tolist(), *rows.tolist()]) == list(range(120))
    assert torch.equal(rows, suggested_rows(probabilities, features, 6, nothing))


@pytest.mark.parametrize("kind", ["all alike", "all sure", "one"])
def test_suggestions_of_odd_targets(kind):
    count = 1 if kind == "one" else 9
    features = torch.ones(count, 2) if kind == "all alike" else torch.randn(count, 2)
    probabilities = torch.tensor([[1.0, 0.0]]).repeat(count, 1)
    rows = suggested_rows(probabilities, features, 4, torch.zeros(0, dtype=torch.long))
    assert len(set(rows.tolist())) == min(4, count)


def test_the_table_and_the_page(tiny_run, tmp_path, capsys):
    out, page = tmp_path / "to_label.csv", tmp_path / "to_label.html"
    assert main(["suggest", str(tiny_run), "--count", "5", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "5 images to label" in told
    rows = rows_of(out)
    assert len({row["path"] for row in rows}) == 5
    assert not any(row["label"] for row in rows)
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert text.count("<select") == 5
    assert [unescape(name) for name in re.findall('data-path="([^"]*)"', text)] == [row["path"] for row in rows]
    assert main(["suggest", str(tiny_run), "--out", str(out)]) == 2  # somebody may have filled it in
    assert "is there already" in capsys.readouterr().err
    assert main(["suggest", str(tiny_run), "--out", str(tmp_path / "a.txt")]) == 2
    assert "is no .csv file" in capsys.readouterr().err
    assert main(["suggest", str(tiny_run), "--count", "0", "--out", str(tmp_path / "b.csv")]) == 2
    assert main(["suggest", str(tmp_path), "--out", str(tmp_path / "b.csv")]) == 2


def test_the_loop_through_the_commands(tiny_run, tmp_path, capsys, monkeypatch):
    """Suggest, label, train again with the command that it printed, suggest anew: earlier labels go with the new."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "to_label.csv"
    assert main(["suggest", str(tiny_run), "--count", "4", "--out", str(out)]) == 0
    command = shlex.split(capsys.readouterr().out.strip().splitlines()[-1].removeprefix("then: "))
    first = rows_of(out)
    with out.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((row["path"], row["path"].split("/")[-2]) for row in first)])
    run = tmp_path / "second"
    assert command[:2] == ["biwaa", "train"]
    assert main([*command[1:-1], str(run)]) == 0
    assert "32 of 36 images" in capsys.readouterr().out
    assert main(["suggest", str(run), "--count", "3", "--out", "more.csv"]) == 0
    second = rows_of(tmp_path / "more.csv")
    assert [row["label"] != "" for row in second] == [True] * 4 + [False] * 3
    assert {row["path"] for row in second[:4]} == {row["path"] for row in first}
    assert main(["suggest", str(run), "--count", "50", "--out", "all.csv"]) == 0
    assert "no more than 32 without a label: leave some" in capsys.readouterr().out
    assert main(["suggest", str(run), "--measure", "--count", "50"]) == 0  # a file beside to_label.csv
    told, measured = capsys.readouterr().out, rows_of(tmp_path / "to_measure.csv")
    assert "no more than 32" in told
    assert "biwaa evaluate" in told
    assert not {row["path"] for row in measured} & {row["path"] for row in first}


def test_rows_of_arrays_are_suggested_by_number(tmp_path, capsys):
    source, labels, target = shifted(rows=200, noise=2.5)
    given = some(labels, 20)
    run = biwaa.adapt((source, labels), target, target_labels=given, out=tmp_path / "run", verbose=False)
    rows = run.suggest(30)
    assert len(set(rows.tolist())) == 30
    assert (given[rows] < 0).all()
    given[rows] = labels[rows]
    again = biwaa.adapt((source, labels), target, target_labels=given, verbose=False)
    assert again.result.target.labels_given == 50
    assert main(["suggest", str(run.folder), "--out", str(tmp_path / "rows.csv")]) == 0
    assert "50 rows to label are in" in capsys.readouterr().out
    assert not (tmp_path / "rows.html").exists()  # nothing to show
    assert rows_of(tmp_path / "rows.csv")[-1]["path"].startswith("target[")
