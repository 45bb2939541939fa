"""Recipes: groups of settings whose names are flags, files grouped or flat, and one sentence for each mistake."""

import dataclasses
import re
import types
from typing import Literal, Union, get_args, get_origin, get_type_hints

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given, settings

from biwaa.cli import WITH_RECIPE, main
from biwaa.errors import BiwaaError
from biwaa.named_recipes import NAMED
from biwaa.recipe import (
    GROUP_OF,
    RESUMABLE,
    Recipe,
    dump_recipe,
    load_recipe,
    recipe_digest,
    recipe_from,
    task_settings,
)

GROUPS = {field.name: field.type for field in dataclasses.fields(Recipe) if dataclasses.is_dataclass(field.type)}
quick = settings(max_examples=60, deadline=None)


def kind_of(name):
    return get_type_hints(GROUPS.get(GROUP_OF[name], Recipe))[name]


DEFAULTS = Recipe().flat()
SPECIAL = {
    "unknown": st.sampled_from(["off", "auto", "0.3"]),
    "checkpoint_every": st.one_of(st.integers(1, 10**6), st.sampled_from(["10m", "0.5m", "3"])),
    "resize": st.one_of(st.none(), st.integers(300, 600)),
    "image_size": st.one_of(st.none(), st.integers(1, 299)),
    "threads": st.one_of(st.none(), st.integers(1, 64)),
    "devices": st.just(1),
    "num_nodes": st.just(1),
    "batch_size": st.integers(2, 1000),
    "steps": st.integers(1, 10**7),
    "crop_area": st.floats(0.01, 1.0),
    "seed": st.integers(0, 2**31 - 1),
}
"""Settings whose type alone leaves too much open."""


def values(name):
    """Values that the setting may take."""
    if name in SPECIAL:
        return SPECIAL[name]
    kind = kind_of(name)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is float:
        return st.floats(0.01, 0.9)
    if kind == bool | None:
        return st.none() | st.booleans()
    return {bool: st.booleans(), int: st.integers(1, 1000), str: st.text(max_size=20)}[kind]


changes = st.lists(st.sampled_from(sorted(GROUP_OF)), unique=True, max_size=8).flatmap(
    lambda names: st.fixed_dictionaries({name: values(name) for name in names})
)
"""Some settings with values that they may take."""


def grouped(flat):
    """The same settings under their groups' names."""
    found = {}
    for name, value in flat.items():
        (found.setdefault(GROUP_OF[name], {}) if GROUP_OF[name] else found)[name] = value
    return found


def test_every_setting_has_one_name_one_group_and_a_meaning():
    named = [field.name for group in GROUPS.values() for field in dataclasses.fields(group)]
    named += [field.name for field in dataclasses.fields(Recipe) if field.name not in GROUPS]
    assert len(set(named)) == len(named) == len(GROUP_OF) == len(DEFAULTS)
    assert not set(named) & set(GROUPS)
    assert set(GROUP_OF.values()) == {"", *GROUPS}
    assert set(RESUMABLE) <= set(named)
    for name in GROUP_OF:
        kind = kind_of(name)
        plain = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
        assert all(part in (bool, int, float, str, type(None)) or get_origin(part) is Literal for part in plain), name


def test_every_setting_is_a_flag(monkeypatch):
    """Typed as a flag, each changes itself alone."""
    found = []
    monkeypatch.setitem(WITH_RECIPE, "train", lambda flags, recipe: found.append(recipe))
    words = ["train", "--source", "a", "--target", "b", "--out", "c", "--recipe", "paper"]
    other = {
        "resize": 512, "image_size": 99, "devices": 2, "num_nodes": 3, "checkpoint_every": 77, "steps": 7, "seed": 7,
        "crops": 1, "method": "mcc", "backbone": "cnn", "weights": "none", "choice": "snd",
        "source_shift": "reversed:2", "target_shift": "long-tail:2", "batch_size": 72, "threads": 3,
        "unknown": "0.3",
    }  # fmt: skip
    for name, value in DEFAULTS.items():
        kind = kind_of(name)
        if name in other:
            changed = other[name]
        elif isinstance(value, bool):
            changed = not value
        elif get_origin(kind) is Literal:
            changed = next(choice for choice in get_args(kind) if choice != value)
        else:
            changed = 0.25 if kind is float else value + 1
        flag = name.replace("_", "-")
        given_words = [f"--{flag}" if changed is True else f"--no-{flag}"] if isinstance(value, bool) else [
            f"--{flag}", str(changed)
        ]  # fmt: skip
        assert main([*words, *given_words]) == 0
        assert {key: now for key, now in found.pop().flat().items() if now != DEFAULTS[key]} == {name: changed}, name


@given(changes)
@quick
def test_grouped_and_flat_files_are_the_same_recipe(tmp_path_factory, changed):
    path = tmp_path_factory.mktemp("recipe") / "mine.yaml"
    found = []
    for settings_ in (changed, grouped(changed)):
        path.write_text(yaml.safe_dump(settings_), encoding="utf-8")
        found.append(load_recipe(str(path)))
    assert found[0] == found[1] == recipe_from(changed, "test") == Recipe().replace(**changed)
    assert found[0].flat() == DEFAULTS | changed


@given(st.sampled_from(sorted(NAMED)), changes)
@quick
def test_a_dumped_recipe_is_read_back(tmp_path_factory, base, changed):
    recipe = load_recipe(base).replace(**{"resize": 600, **changed})
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == [
        field.name for field in dataclasses.fields(Recipe)
    ]
    assert recipe_digest(load_recipe(str(path))) == recipe_digest(recipe)


def test_replace_changes_what_it_is_given_and_nothing_else():
    robust = load_recipe("robust")
    changed = robust.replace(rounds=3, schedule={"steps": 7}, device="cpu")
    assert robust == load_recipe("robust")
    assert changed.flat() == robust.flat() | {"rounds": 3, "steps": 7, "device": "cpu"}
    assert robust.replace() == robust
    with pytest.raises(BiwaaError, match=r"^mine: unknown setting 'round'; did you mean 'rounds'\?$"):
        robust.replace("mine", round=3)
    with pytest.raises(BiwaaError, match="batch_size must be at least 2, not 1"):
        robust.replace(batch_size=1)


def test_the_digest_is_of_what_decides_the_figures():
    recipe = load_recipe("demo")
    digest = recipe_digest(recipe)
    for name, other in {"device": "cpu", "log_every": 7, "checkpoint_every": "7m"}.items():
        assert name in RESUMABLE
        assert recipe_digest(recipe.replace(**{name: other})) == digest, name
    own = recipe.flat()
    others = {name: own[name] + 1 for name in ("seed", "rounds", "learning_rate", "confusion")}
    for name, other in (others | {"batch_norm": "shared" if own["batch_norm"] == "target" else "target"}).items():
        assert recipe_digest(recipe.replace(**{name: other})) != digest, name


@pytest.mark.parametrize(
    "text, message",
    [
        ("data: {rounds: 3}", r"rounds does not belong under data but under schedule\.$"),
        ("schedule: {seed: 3}", r"seed does not belong under schedule but at the top\.$"),
        ("schedule: {round: 3}", r"unknown setting 'round'; did you mean 'rounds'\?$"),
        ("stepps: 3", r"unknown setting 'stepps'; did you mean 'steps'\?$"),
        ("xyzzy: 3", r"unknown setting 'xyzzy'; known are method, seed, .*threads\.$"),
        ("steps: many", r"Expected `int`, got `str` - at `\$\.schedule\.steps`\.$"),
        ("schedule: 3", r"unknown setting 'schedule'; .*\.$"),
        ("schedule: {steps: 0}", r"steps must be at least 1, not 0\.$"),
        ("augment: flip", r"Invalid enum value 'flip' - at `\$\.data\.augment`\.$"),
        ("- a", r"must hold settings as `name: value` lines\.$"),
        ("a: [", r"is not readable as YAML: .*\.$"),
        ("tasks: 3", None),
    ],
)  # fmt: skip
def test_every_mistake_in_a_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    if message is None:
        assert load_recipe(str(path)) == Recipe()  # only bench reads tasks, and it refuses these
        with pytest.raises(BiwaaError, match="tasks must hold settings by task"):
            task_settings(str(path))
        return
    with pytest.raises(BiwaaError) as error:
        load_recipe(str(path))
    sentence = str(error.value)
    assert re.search(message, sentence), sentence
    assert "\n" not in sentence


def test_words_that_yaml_takes_for_something_else(tmp_path):
    """`off` is false in YAML, and 0.3 a number; where a setting is a word, it is the word again."""
    path = tmp_path / "mine.yaml"
    path.write_text("unknown: off\nabsent_classes: off\nfreeze_backbone: on\n")
    found = load_recipe(str(path)).flat()
    assert (found["unknown"], found["absent_classes"], found["freeze_backbone"]) == ("off", "off", True)
    path.write_text("unknown: 0.3\n")
    assert load_recipe(str(path)).flat()["unknown"] == "0.3"


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"seed": -1}, "seed must lie between 0"), ({"batch_size": 7, "devices": 2}, "set --batch-size 6"),
        ({"resize": 100, "image_size": 200}, "must not be smaller than image_size"),
        ({"source_held_out": 0.95}, "source_held_out must lie between 0 and 0.9"),
        ({"confusion_temperature": 0.0}, "confusion_temperature must be above 0"),
        ({"confusion": -1.0}, "confusion must be at least 0"),
        ({"checkpoint_every": "soon"}, "minutes as in 10m"), ({"dropout": 2.0}, "dropout must lie"),
        ({"steps": 10**8}, "steps must be at most"),
    ],
)  # fmt: skip
def test_values_out_of_range(changed, message):
    with pytest.raises(BiwaaError, match=message):
        recipe_from(changed, "test")


def test_settings_of_single_tasks(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 3\ntasks:\n  A2D: {learning_rate: 0.0003}\n")
    assert load_recipe(str(path)) == Recipe().replace(steps=3)
    assert task_settings(str(path)) == {"A2D": {"learning_rate": 0.0003}}
    assert task_settings("robust") == {}
