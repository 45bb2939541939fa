"""`biwaa bench`: the grid through the installed command, what it refuses, and what becomes of failures."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import COMMAND, SMALL, SMALL_FILE, benched, command, install_plugin, installed
from test_catalogue import lay_out
from test_report import Page

from biwaa.bench import engine
from biwaa.bench.command import _number, choose_engine, plan, rounds_text
from biwaa.bench.grid import Bench, enrol, load_bench
from biwaa.bench.render import protocol
from biwaa.bench.rows import Row, collect, gains, over_seeds, task_means
from biwaa.bench.rows import finished as finished_runs
from biwaa.bench.suites import IN_ROUNDS, STUDIES, TITLES, Variant, resolve, variants
from biwaa.bench.tables import published, published_rows, tables
from biwaa.cli import main
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.errors import BiwaaError
from biwaa.methods import METHODS
from biwaa.recipe import load_recipe, recipe_from, task_settings
from biwaa.report.write import write_report
from biwaa.result import Accuracy, Cost, read_result

WORDS = ["digits", "--recipe", str(SMALL_FILE), "--steps", "8", "--batch-size", "16", "--tasks", "plain2photographs"]
FROZEN = {"freeze_backbone": True, "weights": "auto"}
SETTINGS = recipe_from({**SMALL, "steps": 8, "batch_size": 16, "rounds": 1}, "test").flat()


def bench(folder, *words):
    return benched(*WORDS, "--out", folder, *words)


def small(variant_names=("source_only", "mcc"), seeds=(1, 2), **settings):
    """A bench on the bundled digits."""
    every = {**SETTINGS, **settings}
    chosen = variants("methods", recipe_from(every, "test"), variant_names)
    return Bench("digits", "methods", every, {}, ("plain2photographs",), tuple(chosen), seeds)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A bench of three methods and two seeds, run through the command."""
    folder = tmp_path_factory.mktemp("bench") / "tables"
    done = bench(folder, "--methods", "mcc", "biwaa", "dann@2", "--seeds", "1", "2")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_whole_table_through_the_command(finished):
    folder, done = finished
    assert {path.name for path in folder.iterdir()} == {
        "bench.json", "bench.lock", "locks", "runs", "table.md", "table.csv", "table.tex", "table.json", "table.png",
    }  # fmt: skip
    names = {path.name for path in (folder / "runs").iterdir() if path.is_dir()}
    assert names == {
        f"plain2photographs.{variant}.{seed}"
        for variant in ("source_only", "mcc", "biwaa", "dann@2")
        for seed in (1, 2)
    }
    run = folder / "runs" / "plain2photographs.biwaa.1"
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml",
        "run.json",
        "result.json",
        "log.jsonl",
        "predictions.csv",
        "labels.csv",
    }
    assert load_recipe(str(run / "recipe.yaml")).seed == 1
    assert not load_recipe(str(run / "recipe.yaml")).schedule.baseline
    text = (folder / "table.md").read_text()
    assert done.stdout.strip() == text.strip()
    for told in ("| source-only |", "| BIWAA, 2 rounds |", "| DANN, 2 rounds |", "oracle (target labels)", "round 1"):
        assert told in text
    assert "digits/methods: 8/8 runs" in done.stderr
    assert (folder / "table.png").read_bytes().startswith(b"\x89PNG")
    assert r"\toprule" in (folder / "table.tex").read_text()
    rows = list(csv.DictReader((folder / "table.csv").open()))
    result = read_result(run)
    last = next(r for r in rows if (r["variant"], r["seed"], r["figure"]) == ("biwaa", "1", "last"))
    assert float(last["over_images"]) == pytest.approx(100 * result.stages[-1].accuracy.over_images, abs=1e-3)
    assert "rounds: biwaa 2, dann@2 2, all others 1; METHOD@N trains a method in N rounds" in done.stderr
    assert int(last["images"]) == 2 * 8 * 32


def test_the_page_of_a_bench(finished, tmp_path):
    """Every task and method with its source-only, by the figures of the table; every table of table.md."""
    folder, _ = finished
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    held = load_bench(folder)
    rows = collect(held, finished_runs(held.works(folder, Path())))
    for variant in held.variants:
        values = [row.accuracy["last"].over_images for row in rows if row.variant == variant.name]
        assert f"{variant.title} {sum(values) / len(values):.1f}" in page.text
    assert [it["class"] for it in page.all("table")].count("sortable") == 1 + len(tables(held, rows))
    assert "8 of 8 runs are finished" in page.text
    assert len(page.all("svg")) == 1
    empty = tmp_path / "empty"
    enrol(held, empty)
    assert "0 of 8 runs are finished" in Page(write_report(empty).read_text(encoding="utf-8")).text


def test_finished_runs_are_never_run_again(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/result.json")}
    done = bench(folder, "--methods", "mcc", "--seeds", "1", "2", "3")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((folder / "runs").glob("*/result.json"))) == len(before) + 2
    assert load_bench(folder).seeds == (1, 2, 3)
    assert "10 of 12 runs are finished." in done.stdout
    assert "| BIWAA, 2 rounds | " in done.stdout
    gains_part = done.stdout.split("Points over source-only")[1].split("##")[0]
    assert "MCC" in gains_part
    assert "BIWAA" not in gains_part  # it lacks a seed, so it is compared with none
    assert "10 of 12 runs are finished." in benched(folder, "--show").stdout


def test_other_settings_are_refused(finished):
    folder, _ = finished
    for words, told in (
        (("--learning-rate", "0.5"), "have learning_rate = 0.01, not 0.5"),
        (("--seed", "3"), "a bench takes --seeds"),
        (("--method", "mcc"), "a bench takes --methods"),
    ):
        done = bench(folder, *words)
        assert done.returncode == 2
        assert told in done.stderr
    done = benched(*WORDS[1:5], "digits/parts", "--tasks", WORDS[-1], "--out", folder)
    assert "holds the bench digits/methods, not digits/parts" in done.stderr


@pytest.mark.parametrize(
    "words,told",
    [
        (["nope", "--out", "x"], "no benchmark is called 'nope': there are digits,"),
        (["digits/nope", "--out", "x"], "no study 'nope': there are methods, parts"),
        (["digits", "--out", "x", "--tasks", "A2B"], "no task 'A2B' in digits: there are mnist2usps"),
        (["digits", "--out", "x", "--tasks", "plain>mars"], "no task 'plain>mars' in digits"),
        (["digits", "--out", "x", "--methods", "magic"], "no method is called 'magic': there are biwaa"),
        (["digits/parts", "--out", "x", "--methods", "magic"], "no variant 'magic' in parts: did you mean 'semantic'?"),
        (["digits", "--out", "x", "--methods", "cdna"], "did you mean 'cdan'"),
        (["digits", "--out", "x", "--methods", "fixmatch", "--freeze-backbone"], "fixmatch needs images"),
        (["digits", "--out", "x"], "mnist is missing; usps is missing"),
        (["digits"], "name the folder for runs and tables with --out"),
        (["nowhere", "--show"], "nowhere holds no bench"),
        ([*WORDS, "--out", "x", "--methods", "linear_probe"], "needs a pretrained backbone: give --weights"),
        ([*WORDS, "--out", "x", "--methods", "mcc@²"], "no method 'mcc@²' in methods: METHOD@ROUNDS trains"),
        ([*WORDS, "--out", "x", "--processes", "0"], "processes must be at least 1"),
        ([*WORDS, "--out", "x", "--seeds"], "name at least one seed"),
        ([*WORDS, "--out", "x", "--backbone", "resnet5"], "resnet5"),
        ([*WORDS, "--out", "x", "--source-shift", "odd"], "no label shift 'odd'"),
        (["digits", "--out", "x", "--tasks", "plain2photographs", "--cluster", "slurm"], "there is no sbatch here"),
    ],
)
def test_what_is_wrong_is_said(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BIWAA_DATA", raising=False)
    assert main(["bench", *words]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_half_present_benchmark_names_what_can_run(tmp_path, capsys):
    assert main(["bench", "digits", "--out", str(tmp_path / "x"), "--data-root", str(tmp_path)]) == 2
    assert "--tasks plain2photographs can run with what is there" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path, capsys):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    assert main(["bench", *WORDS, "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no bench (holiday.jpg)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    works = small().works(tmp_path, Path())
    adapt = engine.adapt

    def failing(source, target, *, recipe, **kwargs):
        if recipe.method == "mcc" and recipe.seed == 1:
            raise ValueError("a bug")
        return adapt(source, target, recipe=recipe, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "adapt", failing)
        outcomes = [engine.train_one(work) for work in works]
    assert [outcome.state for outcome in outcomes] == ["finished", "failed", "finished", "finished"]
    assert works[1].failed.read_text() == "ValueError: a bug\n"
    assert "Traceback" in works[1].run.with_name(f"{works[1].name}.log").read_text()
    assert engine.train_one(works[1]).state == "finished"
    assert not works[1].failed.exists()


def test_a_run_that_keeps_losing_its_process_fails(tmp_path):
    work = small().works(tmp_path, Path())[0]
    work.run.parent.mkdir()
    work.running.write_text(str(engine.TRIES))
    outcome = engine.train_one(work)
    assert outcome.state == "failed"
    assert "its process died 3 times" in outcome.reason
    assert engine.train_one(work).state == "finished"


def test_a_killed_process_is_replaced(tmp_path):
    """SIGKILL to a worker in the middle of a run: it is taken up again, its neighbour too, and the grid ends whole."""
    works = small(("source_only", "mcc"), (1,), steps=200, log_every=10).works(tmp_path, Path())
    killed = []

    def kill():
        for _ in range(600):
            time.sleep(0.1)
            log = works[0].run / "log.jsonl"
            if works[0].running.exists() and log.exists() and log.stat().st_size:
                children = subprocess.run(
                    ["pgrep", "-P", str(os.getpid()), "-f", "spawn_main"], capture_output=True, text=True
                )
                killed.append(int(children.stdout.split()[0]))
                os.kill(killed[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = list(engine.train_all(works, lambda todo: engine.local(todo, 2)))
    killer.join()
    assert killed
    assert sorted(outcome.name for outcome in outcomes) == sorted(work.name for work in works)
    assert {outcome.state for outcome in outcomes} == {"finished"}


@pytest.mark.parametrize(
    ("number", "code", "told"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupt_ends_all_its_processes_and_the_bench_goes_on(number, code, told, tmp_path):
    words = [COMMAND, "bench", *WORDS, "--out", tmp_path / "b", "--methods", "mcc", "--seeds", "1", "--processes", "2",
             "--steps", "100", "--log-every", "10"]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    markers = tmp_path / "b" / "runs"
    for _ in range(1200):
        time.sleep(0.05)
        if list(markers.glob("*/log.jsonl")):
            break
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert f"{told}; the same command goes on" in errors
    assert "Traceback" not in errors
    for _ in range(100):
        time.sleep(0.1)
        left = [pid for pid in children if Path(f"/proc/{pid}").exists()]
        if not left:
            break
    assert children
    assert not left
    assert not list(markers.glob("*.running"))  # an interrupt is no death
    done = benched(*words[2:])
    assert done.returncode == 0, done.stderr


def test_a_device_may_change_and_tasks_come_in_parts(tmp_path, monkeypatch):
    """Settings of single tasks belong to the bench, whichever tasks an invocation names; the newest device counts."""
    special = {"plain>photographs": {"learning_rate": 0.02}}
    recipe = recipe_from(SETTINGS, "test")
    first = plan("digits", recipe, special, ("plain2photographs",), ("mcc",), (1,), tmp_path)
    other = recipe.replace(device="cpu")
    second = plan("digits", other, special, ("photographs>plain",), ("mcc",), (2,), tmp_path)
    enrol(first, tmp_path / "b")
    both = enrol(second, tmp_path / "b")
    assert both.tasks == ("plain2photographs", "photographs2plain")
    assert both.settings["device"] == "cpu"
    rates = {work.name: work.recipe["learning_rate"] for work in both.works(tmp_path, tmp_path)}
    assert rates["plain2photographs.mcc.1"] == 0.02
    assert rates["photographs2plain.mcc.1"] == recipe.optimizer.learning_rate
    for wrong, told in (
        ({"plain2photographs": {"learning_rate": "3e-4"}}, "the settings of the task plain2photographs: Expected"),
        ({"plain2photographs": {"learn": 1}}, "unknown setting 'learn'"),
        ({"A2B": {}}, "no task 'A2B'"),
    ):
        with pytest.raises(BiwaaError, match=told):
            plan("digits", recipe, wrong, ("plain2photographs",), ("mcc",), (1,), tmp_path)
    (tmp_path / "r.yaml").write_text("tasks: [A2D]\n")
    with pytest.raises(BiwaaError, match="tasks must hold settings by task"):
        task_settings(str(tmp_path / "r.yaml"))


def test_a_bench_without_a_gpu_names_the_faster_way(monkeypatch, capsys):
    monkeypatch.setattr("biwaa.bench.command._check_weights", lambda *_: None)
    monkeypatch.setattr("biwaa.training.suited.has_gpu", lambda _: False)
    for frozen in (False, True):
        recipe = load_recipe("robust").replace(freeze_backbone=frozen)
        plan("digits", recipe, {}, ("plain2photographs",), ("mcc",), (42,), Path("nowhere"))
        assert ("--freeze-backbone is many times faster" in capsys.readouterr().err) is not frozen


def test_studies_of_biwaa_train_biwaa():
    recipe = load_recipe("paper").replace(method="dann")
    for study in ("parts", "scale", "distribution", "rounds", "compute"):
        for variant in variants(study, recipe, ()):
            if variant.name != "source_only":
                assert resolve(variant, recipe, 1).method == "biwaa"


def test_the_study_of_robust_takes_that_recipe_apart():
    """Every variant but source-only is the recipe's method with one thing changed that the method reads."""
    recipe = load_recipe("robust")
    found = {variant.name: resolve(variant, recipe, recipe.seed) for variant in variants("robust", recipe, ())}
    assert found.pop("source_only").schedule.rounds == 1
    full = recipe.replace(method="mcc_teacher", baseline=False)
    assert found.pop("full") == full
    whole = full.flat()
    for name, variant in found.items():
        assert variant.method == "mcc_teacher"
        different = [key for key, value in variant.flat().items() if value != whole[key]]
        assert len(different) == 1, name


@pytest.mark.parametrize("start", ["paper", "biwaa", "robust"])
def test_the_study_of_recipes_trains_what_they_say(start):
    """Whatever recipe it starts from, which gives the schedule alone."""
    recipe = load_recipe(start).replace(rounds=3, batch_size=8, freeze_backbone=False)
    found = {variant.name: resolve(variant, recipe, 5) for variant in variants("recipes", recipe, ())}
    frame = ("smooth_rounds", "round_update")
    for name in ("paper", "biwaa"):
        named, mine = load_recipe(name), found[name]
        assert mine.biwaa == named.biwaa
        assert {key: mine.flat()[key] for key in frame} == {key: named.flat()[key] for key in frame}
        assert mine.schedule.rounds == 3
    assert (found["paper"].schedule.scouts, found["biwaa"].schedule.scouts) == (1, 2)
    assert found["robust"].method == "mcc_teacher"
    beside, safe = found["dann_teacher"], found["biwaa"]  # the same teacher without the paper's losses
    assert (beside.schedule, beside.biwaa.earlier_rounds) == (safe.schedule, safe.biwaa.earlier_rounds)
    assert not any((beside.biwaa.weighting, beside.biwaa.alignment, beside.biwaa.separation))
    assert found["source_only_long"].schedule.steps == 2 * found["source_only"].schedule.steps
    assert {variant.data.batch_size for variant in found.values()} == {8}


def test_rounds_are_announced():
    """What a method or study does with --rounds is printed before training."""
    recipe = recipe_from({**SETTINGS, "rounds": 4}, "test")

    def text(study, *names):
        chosen = tuple(variants(study, recipe, names))
        return rounds_text(Bench("digits", study, recipe.flat(), {}, ("plain2photographs",), chosen, (1,)))

    hint = "METHOD@N trains a method in N rounds"
    assert text("methods", "mcc", "biwaa") == f"rounds: biwaa 4, all others 1; {hint}"
    assert text("methods", "mcc_teacher", "biwaa", "dann", "mcc", "bnm") == (
        f"rounds: mcc_teacher 4, biwaa 4, all others 1; {hint}"
    )
    assert text("methods", "mcc") == f"rounds: all 1; {hint}"
    assert text("methods", "biwaa") == f"rounds: biwaa 4, source_only 1; {hint}"
    assert text("methods", "dann@3", "mcc") == f"rounds: dann@3 3, all others 1; {hint}"
    assert text("parts") == "rounds: all 1; the study sets some of them itself"
    assert text("rounds") == "rounds: source_only 1, all others 4; the study sets some of them itself"
    for study in STUDIES:  # what the line says is what is trained
        for variant in variants(study, recipe, ()):
            number = resolve(variant, recipe, 1).schedule.rounds
            told = text(study)
            assert f"{variant.name} {number}" in told or f"all {number}" in told or f"all others {number}" in told


def test_a_method_with_a_teacher_is_called_so_only_where_there_is_one():
    robust, paper = load_recipe("robust"), load_recipe("paper")
    titles = [variants("methods", recipe, ("mcc_teacher",))[-1].title for recipe in (robust, paper)]
    assert titles == ["MCC + teacher, 5 rounds", "MCC + pseudo-labels of earlier rounds, 10 rounds"]
    assert set(IN_ROUNDS) < set(TITLES) == METHODS.built_in


@pytest.mark.parametrize(
    ("settings", "words", "others"),
    [
        (FROZEN, "features of each domain standardised by its own mean",
         ("CORAL", "BatchNorm")),
        ({**FROZEN, "statistics": "source"}, "both domains standardised by the source's",
         ("its own", "CORAL")),
        ({**FROZEN, "statistics": "coral"}, "given the target's covariance (CORAL)",
         ("BatchNorm",)),
        ({}, "trained end to end, BatchNorm's running averages over both domains' batches", ("standardised",)),
        ({"batch_norm": "target"}, "BatchNorm's running averages over the target's batches alone", ("both",)),
    ],
)  # fmt: skip
def test_the_protocol_says_how_features_are_normalised(settings, words, others):
    text = "\n".join(protocol(small(**settings)))
    assert words in text
    assert not any(other in text for other in others)
    assert "whose labels were not used in training" in text


def test_the_protocol_names_methods_that_have_ways_of_their_own():
    paper = load_recipe("paper")
    chosen = tuple(variants("methods", paper, ("pace", "linear_probe", "mcc")))
    text = "\n".join(protocol(Bench("office31", "methods", paper.flat(), {}, ("A2W",), chosen, (1,))))
    assert "PACE-like: backbone frozen, the features of each domain standardised by its own" in text
    assert "(CORAL)." in text
    assert "linear probe: backbone frozen" in text
    assert "MCC: " not in text
    frozen = paper.replace(freeze_backbone=True)
    text = "\n".join(protocol(Bench("office31", "methods", frozen.flat(), {}, ("A2W",), chosen, (1,))))
    assert "PACE-like: the features" in text
    assert "linear probe: " not in text
    # A method of a package that is not installed here.
    gone = (*chosen, Variant("gone", "gone", {"method": "gone"}))
    assert protocol(Bench("office31", "methods", paper.flat(), {}, ("A2W",), gone, (1,)))


@pytest.mark.parametrize("name", ["pacs-robust-report", "digits-robust", "digits-methods"])
def test_a_bench_of_an_earlier_version_is_refused_in_a_sentence(name, tmp_path, capsys):
    """Its settings meant something else; its tables are left as they are."""
    old = Path(__file__).parents[1] / "benchmarks" / "results" / name
    for entry in ("bench.json", "table.md"):
        shutil.copy(old / entry, tmp_path)
    folder = str(tmp_path)
    for words in (["bench", folder, "--show"], ["report", folder], ["bench", *WORDS, "--out", folder]):
        assert main(words) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        assert "holds a bench of another version of biwaa: read its table.md, or show it with that version." in errors
    assert (tmp_path / "table.md").read_bytes() == (old / "table.md").read_bytes()


def test_a_plugins_method_can_be_benched(tmp_path):
    """A package's or a file's, in the command and in the processes that train; a table of all methods leaves it out."""
    install_plugin(
        tmp_path,
        "import biwaa\nfrom biwaa.methods.mcc import Mcc\nbiwaa.register_method('mine')(type('Mine', (Mcc,), {}))\n",
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    (tmp_path / "my_method.py").write_text(re.search(r"```python\n(.*?register_method.*?)```", page, flags=re.S)[1])
    words = ["--methods", "mine", "mcc", "sharp@2", "--seeds", "1", "--plugin", str(tmp_path / "my_method.py")]
    done = installed("bench", *WORDS, "--out", tmp_path / "b", *words, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert "| mine |" in done.stdout
    assert "| sharp, 2 rounds |" in done.stdout
    rows = {
        row["variant"]: row for row in csv.DictReader((tmp_path / "b" / "table.csv").open()) if row["figure"] == "last"
    }
    assert rows["mine"]["over_images"] == rows["mcc"]["over_images"]
    assert "| mine |" in benched(tmp_path / "b", "--show").stdout  # also where it is not installed
    assert "mine" not in {variant.name for variant in variants("methods", load_recipe("paper"), ())}


def test_engines():
    frozen = choose_engine("none", {}, None, frozen=True)
    assert frozen.keywords["processes"] == engine.cores()
    assert choose_engine("none", {}, None, frozen=False).keywords["processes"] == 1
    assert choose_engine("none", {}, 3, frozen=False).keywords["processes"] == 3


def test_numbers_among_cluster_options():
    assert [_number(text) for text in ("4", "0.5", "4:00:00", "gpu")] == [4, 0.5, "4:00:00", "gpu"]


@pytest.mark.slow
def test_two_benches_on_one_folder_share_the_work(tmp_path):
    """The second begins when the first trains its first run."""
    words = [*WORDS, "--out", str(tmp_path / "b"), "--methods", "mcc", "--seeds", "1", "2"]
    first = subprocess.Popen([COMMAND, "bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not list(tmp_path.glob("b/runs/*.running")):
        time.sleep(0.01)
    second = benched(*words)
    _, errors = first.communicate()
    assert (first.returncode, second.returncode) == (0, 0), (errors, second.stderr)
    assert "4/4 runs" in errors
    assert "4/4 runs" in second.stderr
    runs = list((tmp_path / "b" / "runs").glob("*/log.jsonl"))
    assert len(runs) == 4
    for log in runs:  # nothing was trained twice: each run's log holds its one stage's steps once
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == sorted(set(steps))
    logs = "".join(path.read_text() for path in (tmp_path / "b" / "runs").glob("*.log"))
    assert logs.count("the model is in") == 4


def test_ray_survives_a_killed_worker(tmp_path):
    """A real local cluster of two nodes; one worker process dies in the middle of its run."""
    pytest.importorskip("ray")
    script = tmp_path / "on_ray.py"
    script.write_text(f"""
import os, signal, subprocess, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from biwaa.bench import engine
from biwaa.bench.render import write_tables
from biwaa.bench.grid import enrol
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_bench import small

folder = Path({str(tmp_path / "b")!r})
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
cluster.add_node(num_cpus=1)
bench = enrol(small(("source_only", "mcc"), (1,), steps=200, log_every=10), folder)
works = bench.works(folder, Path())

def kill():
    for _ in range(1200):
        time.sleep(0.1)
        log = works[0].run / "log.jsonl"
        if works[0].running.exists() and log.exists() and log.stat().st_size:
            workers = subprocess.run(["pgrep", "-f", "ray::train_one"], capture_output=True, text=True).stdout.split()
            os.kill(int(workers[0]), signal.SIGKILL)
            print("killed", workers[0], flush=True)
            return

threading.Thread(target=kill, daemon=True).start()
try:
    outcomes = list(engine.train_all(works, lambda todo: engine.ray(todo, {{"address": cluster.address}})))
    print(sorted(outcome.state for outcome in outcomes))
    print(write_tables(bench, folder))
finally:
    ray.shutdown()
    cluster.shutdown()
""")
    # Ray's workers are nice: with other tests on the same cores they would hardly ever run.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300,
                          env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "killed" in done.stdout
    assert "['finished', 'finished']" in done.stdout
    assert "runs are finished" not in done.stdout
    assert "| MCC |" in done.stdout


SBATCH = """#!/usr/bin/env python3
# Stands in for Slurm: runs the array's jobs one after another, as the script's own lines ask for them.
import os, re, shlex, subprocess, sys
text = open(sys.argv[-1]).read()
last = int(re.search(r"#SBATCH --array=0-(\\d+)", text).group(1))
print("Submitted batch job 77", flush=True)
words = shlex.split(re.search(r"^srun (.*)$", text, re.M).group(1))
command = words[next(index for index, word in enumerate(words) if "/python" in word) :]
if os.fork() == 0:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for index in range(last + 1):
        job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": f"{78 + index}", "SLURM_ARRAY_JOB_ID": "77",
               "SLURM_ARRAY_TASK_ID": str(index), "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
               "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "here"}
        subprocess.run(command, env={**os.environ, **job})
"""
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
for index in 0 1 2 3; do echo "77_$index|RUNNING|here"; done
"""


def test_slurm_through_submitit(tmp_path, monkeypatch):
    """submitit's real scripts and job folder, with a stand-in for the sbatch that a cluster has."""
    pytest.importorskip("submitit")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH), ("sacct", SACCT), ("scancel", "#!/bin/sh\n"), ("srun", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    words = ["--methods", "mcc", "--seeds", "1", "--cluster", "slurm", "--cluster-options", "time", "5"]
    done = command("bench", *WORDS, "--out", tmp_path / "b", *words)
    assert done.returncode == 0, done.stderr + "".join(p.read_text() for p in (tmp_path / "b" / "slurm").glob("*.err"))
    assert "digits/methods: 2/2 runs" in done.stderr
    assert "| MCC |" in done.stdout


def test_grid_of_every_benchmark_and_study():
    recipe = load_recipe("paper")
    for study in STUDIES:
        found = variants(study, recipe, ())
        assert len({variant.name for variant in found}) == len(found)
        for variant in found:
            assert variant.source_only in {other.name for other in found}
            assert resolve(variant, recipe, 5).schedule.baseline == (variant.name == "prototypes")
            assert resolve(variant, recipe, 5).seed == 5
    every = [variant.name for variant in variants("methods", recipe, ())]
    assert set(every) == set(METHODS)
    frozen = recipe.replace(freeze_backbone=True)
    assert set(every) - {variant.name for variant in variants("methods", frozen, ())} == {"fixmatch"}
    compute = {variant.name: resolve(variant, recipe, 1) for variant in variants("compute", recipe, ())}
    steps = {name: of.schedule.steps * of.schedule.rounds for name, of in compute.items() if name != "source_only"}
    assert len(set(steps.values())) == 1
    for entry in BENCHMARKS.values():
        grid = Bench(
            entry.name, "methods", recipe.flat(), {}, entry.tasks, tuple(variants("methods", recipe, ())), (1, 2)
        )
        works = grid.works(Path("d"), Path("r"))
        assert len({work.name for work in works}) == len(works) == 2 * len(entry.tasks) * len(every)
    forty = Bench("domainnet40", "methods", recipe.flat(), {}, ("R2C",), tuple(variants("methods", recipe, ())), (1,))
    assert forty.works(Path("d"), Path("r"))[0].held_out == "domainnet40:clipart/test"


def test_settings_of_single_tasks(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("learning_rate: 0.001\ntasks:\n  A2D: {learning_rate: 0.0003}\n")
    assert load_recipe(str(recipe)).optimizer.learning_rate == 0.001
    chosen = tuple(variants("methods", load_recipe("paper"), ("biwaa",)))
    special = {"A2D": {"learning_rate": 0.0003}}
    grid = Bench("office31", "methods", load_recipe(str(recipe)).flat(), special, ("A2W", "A2D"), chosen, (1,))
    rates = {work.name: work.recipe["learning_rate"] for work in grid.works(tmp_path, tmp_path)}
    assert rates["A2W.biwaa.1"] == 0.001
    assert rates["A2D.biwaa.1"] == rates["A2D.source_only.1"] == 0.0003


@pytest.mark.slow
@pytest.mark.parametrize("name,task,rate,network,rounds", [("office31", "A2D", 0.0003, ("resnet50", 32), 2),
                                                          ("office_home", "A2C", 0.001, ("cnn", 8), 1),
                                                          ("domainnet40", "R2C", 0.001, ("cnn", 8), 1)])  # fmt: skip
def test_the_papers_recipes_run_on_a_miniature(name, task, rate, network, rounds, tmp_path):
    """The documented command on the benchmark's own layout: ten crops, once ResNet-50; size and length are cut."""
    backbone, side = network
    entry = BENCHMARKS[name]
    source, target = entry.task(task)
    for domain in (source, target, f"{target}/test"):
        if domain in entry.domains:
            lay_out(entry, domain, entry.domains[domain].layouts[0], tmp_path / "data" / entry.folders[0])
    recipe = Path(__file__).parents[1] / "recipes" / f"{name}.yaml"
    words = [name, "--recipe", recipe, "--methods", "biwaa", "--data-root", tmp_path / "data",
             "--out", tmp_path / "table", "--tasks", task.lower(), "--seeds", "42", "--backbone", backbone,
             "--weights", "none", "--image-size", side, "--steps", "2", "--rounds", rounds, "--batch-size", "16",
             "--threads", "1"]  # fmt: skip
    done = benched(*words)
    assert done.returncode == 0, done.stderr
    assert f"warning: {name}:{source} is not the benchmark's" in done.stderr
    run = tmp_path / "table" / "runs" / f"{task}.biwaa.42"
    recipe = load_recipe(str(run / "recipe.yaml"))
    assert recipe.optimizer.learning_rate == rate
    assert (recipe.network.backbone, recipe.data.crops) == (backbone, 10)
    result = read_result(run)
    assert len(result.rounds) == rounds
    assert result.classes == entry.classes
    assert (result.held_out is not None) == (name == "domainnet40")
    assert ("held-out images |" in done.stdout) == (name == "domainnet40")
    assert "published: biwaa, resnet50 (last checkpoint" in done.stdout


def row(task, variant, seed, last, oracle=None):
    both = Accuracy(over_images=last, over_classes=last - 1)
    best = Accuracy(over_images=oracle or last, over_classes=0.0)
    cost = Cost(steps=10, images=20, seconds=1.5, this_sitting=1.5, steps_a_stage=10, images_a_step=2)
    return Row(
        task=task, variant=variant, seed=seed, accuracy={"last": both, "chosen": both, "oracle": best, "average": both},
        by_round=(last,), picked="round 0", source_to_true=1.0, predicted_to_true=2.0, cost=cost,
    )  # fmt: skip


def test_means_and_deviations():
    """Over tasks first, then over seeds; a seed that lacks a task has no mean."""
    rows = [row("A2B", "x", 1, 10.0), row("B2A", "x", 1, 20.0), row("A2B", "x", 2, 30.0), row("B2A", "x", 2, 50.0),
            row("A2B", "x", 3, 99.0)]  # fmt: skip
    means = task_means(rows, ("A2B", "B2A"), lambda r: r.accuracy["last"].over_images)
    assert means == [15.0, 40.0]
    assert over_seeds(means, 2) == "27.5 ± 17.7"
    assert over_seeds(means, 3) == "27.5 ± 17.7 (2 of 3 seeds)"
    assert over_seeds([1.25], 1) == "1.2"
    assert over_seeds([], 3) == "-"


def test_gains_show_harm():
    """Of each task the mean over the seeds; the worst is named; what lacks a run is compared with nothing."""
    grid = small(("source_only", "mcc"), (1, 2))
    base = [row("plain2photographs", "source_only", seed, value) for seed, value in ((1, 50.0), (2, 60.0))]
    found = gains(grid, [*base, row("plain2photographs", "mcc", 1, 47.0), row("plain2photographs", "mcc", 2, 61.0)])
    assert found == {"mcc": {"plain2photographs": -1.0}}
    assert gains(grid, [*base, row("plain2photographs", "mcc", 1, 47.0)]) == {}
    whole = [*base, row("plain2photographs", "mcc", 1, 47.0), row("plain2photographs", "mcc", 2, 61.0)]
    table = next(t for t in tables(grid, whole) if "Points over" in t.title)
    assert table.rows == (("MCC", "-1.0", "-1.0 (plain2photographs)", "1 of 1"),)


def test_published_figures_stand_below():
    rows = published()
    assert len(rows) > 400
    assert all(row["protocol"] and row["source"] and 0 < float(row["accuracy"]) <= 100 for row in rows)
    for row_ in rows:
        if row_["task"] != "mean":
            BENCHMARKS[row_["benchmark"]].task(row_["task"])
    grid = Bench("office31", "methods", load_recipe("paper").flat(), {}, BENCHMARKS["office31"].tasks, (), (1,))
    dann = next(line for line in published_rows(grid) if line[0].startswith("published: dann"))
    assert dann[0] == "published: dann, resnet50 (best epoch on the target test set)"
    assert dann[1:] == ("91.4", "97.9", "100.0", "83.6", "73.3", "70.4", "86.1")
    some = dataclasses.replace(grid, tasks=("A2W",))
    assert next(line for line in published_rows(some) if "dann" in line[0])[1:] == ("91.4", "")


def test_the_pool_holds_source_only_and_every_round(finished):
    """Choice and oracle recomputed from result.json."""
    folder, _ = finished
    bench_ = load_bench(folder)
    rows = collect(bench_, finished_runs(bench_.works(folder, Path())))
    for found in rows:
        mine, base = (
            read_result(folder / "runs" / f"{found.task}.{name}.{found.seed}")
            for name in (found.variant, "source_only")
        )
        pool = [
            (stage.validators["nuclear_norm"], stage.accuracy.over_images) for stage in (*base.stages, *mine.stages)
        ]
        assert found.accuracy["chosen"].over_images == pytest.approx(100 * max(pool)[1], abs=1e-9)
        assert found.accuracy["oracle"].over_images == pytest.approx(100 * max(a for _, a in pool), abs=1e-9)
    titles = [table.title for table in tables(bench_, rows)]
    assert any("by how the model is selected" in title for title in titles)
    with pytest.raises(BiwaaError, match="holds no bench"):
        load_bench(folder / "runs")
