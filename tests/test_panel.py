"""The panel: a miniature through the installed command, what it leaves out and refuses, and the joint table's means."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import benched, write_images

from biwaa.bench.grid import Bench
from biwaa.bench.panel import PARTS, panel_recipe, plan_panel
from biwaa.bench.rows import Row
from biwaa.bench.standings import standings
from biwaa.bench.suites import PANEL_STUDY, Variant, variants
from biwaa.cli import main
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.shift import check_rule
from biwaa.methods import METHODS
from biwaa.recipe import load_recipe
from biwaa.result import Accuracy, Cost, read_result

TINY = [
    "--backbone", "cnn", "--weights", "none", "--no-freeze-backbone", "--image-size", "12", "--resize", "12",
    "--augment", "none", "--crops", "1", "--steps", "2", "--rounds", "2", "--scouts", "1", "--batch-size", "8",
    "--bottleneck", "8", "--source-held-out", "0.5", "--methods", "mcc", "--seeds", "1",
]  # fmt: skip


def panel(folder, root, *words):
    return benched("panel", "--out", folder, "--data-root", root, *TINY, *words)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with two tiny data sets: satellite in images, Office-Home in features."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("rsscn7", "aid")):
        counts = dict.fromkeys(BENCHMARKS["satellite"].classes, 6)
        write_images(root / "remote_sensing" / name, counts, size=12, seed=seed)
    entry, rng = BENCHMARKS["office_home_clip"], np.random.default_rng(0)
    labels = np.repeat(np.arange(len(entry.classes)), 2)
    arrays = {}
    for name in entry.domains:
        arrays |= {f"{name}_x": np.eye(65)[labels] + rng.normal(0, 0.1, (130, 65)), f"{name}_y": labels}
    np.savez(root / "office_home_clip.npz", **arrays, classes=np.array(entry.classes))
    return root


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A panel of three tasks of two data sets; a third is not there."""
    folder = tmp_path_factory.mktemp("panel") / "out"
    done = panel(folder, root, "--tasks", "satellite", "office_home_clip:A2C", "office10")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_miniature_through_the_command(finished):
    folder, done = finished
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"satellite", "office_home_clip"}
    assert "6 of 6 runs are finished" in done.stdout
    assert done.stdout.strip() == (folder / "table.md").read_text().strip()
    assert "| satellite (2 tasks) | office_home_clip (1 task) | mean over data sets |" in done.stdout
    assert "Features computed elsewhere, no backbone" in (folder / "office_home_clip" / "table.md").read_text()
    rows = {
        (row["figure"], row["variant"]): row for row in csv.DictReader((folder / "table.csv").open(encoding="utf-8"))
    }
    values = {
        path.name.rpartition(".")[0]: 100 * read_result(path).rounds[-1].accuracy.over_images
        for path in folder.glob("*/runs/*.1")
    }
    two = (values["R2A.mcc"] + values["A2R.mcc"]) / 2
    assert float(rows["last", "mcc"]["satellite"]) == pytest.approx(two, abs=1e-3)
    assert float(rows["last", "mcc"]["mean"]) == pytest.approx((two + values["A2C.mcc"]) / 2, abs=1e-3)
    assert float(rows["last", "source_only"]["seconds"]) > 0


def test_what_is_not_there_is_left_out_by_name(finished):
    folder, done = finished
    told = "left out office10: Office-31, the ten classes shared with Caltech-256 is not complete below"
    assert told in done.stderr
    assert "To get it: the archive of Office-31" in done.stderr
    assert "**Left out: office10.** Office-31, the ten classes" in done.stdout
    assert list(json.loads((folder / "table.json").read_text())["left_out"]) == ["office10"]


def test_a_panel_goes_on_and_is_shown(finished, root):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/runs/*/result.json")}
    done = panel(folder, root, "--tasks", "fifty_images:R2A", "office_home_clip:art>clipart")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    result = read_result(folder / "fifty_images.satellite" / "runs" / "R2A.mcc.1")
    assert (result.target.shift, result.target.images) == ("images:50", 42)  # all of a smaller one
    shown = benched(folder, "--show")
    assert "8 of 8 runs are finished" in shown.stdout
    assert "| fifty_images (1 task) |" in shown.stdout
    assert "Left out: office10" in shown.stdout
    other = panel(folder, root, "--tasks", "satellite", "--learning-rate", "0.5")
    assert other.returncode == 2
    assert "have learning_rate = 0.0003, not 0.5" in other.stderr


@pytest.mark.parametrize(
    "words,told",
    [
        (["--tasks", "mars"], "the panel has no data set 'mars': there are pacs, office10, satellite"),
        (["--tasks", "label_shift:A2W"], "no task 'A2W' in the panel's label_shift: did you mean 'A2C'?"),
        (["--methods", "magic"], "no method is called 'magic'"),
        (["--tasks", "pacs"], "none of the panel's data sets that were asked for is complete below"),
        (["--recipe", "special.yaml"], "special.yaml has settings for single tasks of a benchmark"),
    ],
)
def test_what_is_wrong_is_said(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("special.yaml").write_text("tasks: {P2A: {steps: 3}}\n")
    assert main(["bench", "panel", "--out", "x", "--data-root", ".", *words]) == 2
    assert told in capsys.readouterr().err
    assert not Path("x").exists()


def test_a_folder_of_other_things_is_left_alone(root, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    words = ["bench", "panel", "--out", str(tmp_path), "--data-root", str(root), *TINY, "--tasks", "satellite"]
    assert main(words) == 2
    assert "is not empty and holds no panel (thesis.tex)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_frozen_features_are_the_default(tmp_path):
    recipe = panel_recipe("robust")
    assert (recipe.network.backbone, recipe.network.freeze_backbone) == ("tf_efficientnet_lite0", True)
    assert recipe.method == "auto"
    (tmp_path / "mine.yaml").write_text("backbone: alexnet\n")
    assert panel_recipe(str(tmp_path / "mine.yaml")).network.backbone == "alexnet"


def test_every_part_is_a_bench(root):
    """Tasks and rules exist, names are unique, and small domains fill their batches."""
    assert len({part.name for part in PARTS}) == len(PARTS)
    recipe = load_recipe("robust")
    for part in PARTS:
        entry = BENCHMARKS[part.benchmark]
        assert {entry.task_name(*entry.task(task)) for task in part.known} <= set(entry.tasks)
        own = part.recipe(recipe)
        for rule in (own.data.source_shift, own.data.target_shift):
            check_rule(rule)
        assert own.data.batch_size == (24 if part.small else recipe.data.batch_size)
    assert sum(len(part.known) for part in PARTS if part.data_set == "label_shift") == 6
    frozen = recipe.replace(backbone="cnn", weights="none")
    benches, left_out = plan_panel(frozen, ("five_a_class", "label_shift:art>clipart"), ("mcc",), (1,), root)
    assert list(benches) == ["label_shift.office_home_clip", "five_a_class.satellite", "five_a_class.office_home_clip"]
    assert benches["five_a_class.satellite"].settings["source_shift"] == "per-class:5"
    assert list(left_out) == ["five_a_class.pacs", "five_a_class.office10"]


def test_the_panels_methods():
    names = [variant.name for variant in variants(PANEL_STUDY, load_recipe("robust"), ())]
    wanted = ["source_only", "mcc", "pace", "self_training", "prototypes", "mcc_teacher"]
    assert names == [name for name in wanted if name in METHODS]
    assert [v.name for v in variants(PANEL_STUDY, load_recipe("robust"), ("dann@2",))] == ["source_only", "dann@2"]


def row(task, variant, seed, value, error=None, seconds=1.0):
    accuracy = Accuracy(over_images=value, over_classes=value)
    cost = Cost(steps=1, images=1, seconds=seconds, this_sitting=1.0, steps_a_stage=1, images_a_step=1)
    return Row(
        task=task, variant=variant, seed=seed, accuracy={"last": accuracy}, by_round=(value,), picked="",
        source_to_true=0.0, predicted_to_true=0.0, cost=cost, estimate_error=error,
    )  # fmt: skip


def test_the_mean_is_over_data_sets():
    """Three tasks of one data set, in two parts, and one of another: each data set counts once."""
    both = (Variant("source_only", "source-only"), Variant("mcc", "MCC"))
    benches = {
        "shift.pacs": Bench("pacs", PANEL_STUDY, {}, {}, ("P2A", "A2C"), both, (1, 2)),
        "shift.satellite": Bench("satellite", PANEL_STUDY, {}, {}, ("R2A",), both, (1, 2)),
        "office10": Bench("office10", PANEL_STUDY, {}, {}, ("A2W",), both, (1, 2)),
    }
    measured = {"shift.pacs": (("P2A", 60, 70), ("A2C", 50, 49.5)), "shift.satellite": (("R2A", 70, 68),),
                "office10": (("A2W", 90, 92),)}  # fmt: skip
    rows = {
        name: [
            found
            for task, source_only, mcc in tasks
            for seed in (1, 2)
            for found in (
                row(task, "source_only", seed, source_only + seed),
                row(task, "mcc", seed, mcc + seed, error=10.0 if name == "office10" else 4.0, seconds=seed),
            )
        ]
        for name, tasks in measured.items()
    }
    base, mcc = standings(benches, rows, "last")
    assert base.data_sets == {"shift": 61.5, "office10": 91.5}
    assert mcc.data_sets == {"shift": 64.0, "office10": 93.5}
    assert mcc.mean == (64.0 + 93.5) / 2
    assert (mcc.worst_points, mcc.worst_task) == (-2.0, "shift.satellite R2A")
    assert (mcc.harmed, mcc.tasks) == (1, 4)  # half a point is no harm
    assert (mcc.estimate_error, mcc.seconds) == (7.0, 1.5)
    assert base.estimate_error is None
    rows["shift.satellite"].pop()  # one seed of one task
    _, mcc = standings(benches, rows, "last")
    assert mcc.data_sets == {"shift": None, "office10": 93.5}
    assert (mcc.mean, mcc.tasks) == (None, 3)


def test_no_panel_is_shown_of_another_file(tmp_path, capsys):
    for text, told in (("{}", "holds no panel"), ('{"left_out": {}}', "holds no bench of the panel yet")):
        (tmp_path / "panel.json").write_text(text)
        assert main(["bench", str(tmp_path), "--show"]) == 2
        assert told in capsys.readouterr().err


def test_a_second_place_is_made_of_one(tmp_path):
    """The script's halves share no photograph, the other half is spoiled, and every run makes the same files."""
    script = Path(__file__).parents[1] / "benchmarks" / "grocery.py"
    photographs = write_images(tmp_path / "photographs", {"apple": 5, "pear": 4}, size=40)
    made = []
    for name in ("one", "two"):
        subprocess.run([sys.executable, script, photographs, tmp_path / name], check=True, capture_output=True)
        place = tmp_path / name / "grocery_corrupted"
        made.append({path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*.*")})
    assert made[0] == made[1]
    names = {name: {path.rpartition(".")[0].partition("/")[2] for path in made[0] if path.startswith(f"{name}/")}
             for name in ("clean", "corrupted1", "corrupted2", "corrupted3")}  # fmt: skip
    assert len(names["clean"]) == 5
    assert len(names["corrupted1"]) == 4
    assert not names["clean"] & names["corrupted1"]
    assert names["corrupted1"] == names["corrupted2"] == names["corrupted3"]
    for path, bytes_ in made[0].items():
        if path.startswith("clean/"):
            assert bytes_ == (photographs / path.partition("/")[2]).read_bytes()
