"""Every help fits a screen of 40 lines and 80 columns, has an example that parses, and hides no flag."""

import dataclasses
import functools
import inspect
import re
import shlex

import pytest
import tyro

from biwaa.cli import COMMANDS, WITH_RECIPE, _with_settings, main
from biwaa.cli.help import about, all_options
from biwaa.named_recipes import NAMED
from biwaa.recipe import GROUP_OF, Recipe, load_recipe

LINES, COLUMNS = 40, 80


def options_of(name):
    """Its flags; with them all settings, for a command that takes a recipe."""
    return all_options(COMMANDS[name], COMMANDS[name].recipe if name in WITH_RECIPE else None)


def printed(capsys, *words):
    assert main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], [], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_every_help_fits_a_screen(words, capsys):
    lines = printed(capsys, *words).splitlines()
    assert 5 <= len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("recipe", NAMED)
def test_it_fits_under_every_recipe(recipe, capsys):
    for name in ("train", "bench"):
        text = printed(capsys, name, "--recipe", recipe, "-h")
        assert len(text.splitlines()) <= LINES
        assert f"in the recipe {recipe}" in text
    steps = load_recipe(recipe).schedule.steps
    assert re.search(rf"--steps N .*\[{steps}\]", text)


def test_the_overview_names_every_command(capsys):
    text = printed(capsys, "--help")
    assert re.findall(r"^  (\w+) ", text, flags=re.M) == list(COMMANDS)
    assert "Example: biwaa train --source" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_parses(name, capsys, monkeypatch):
    """The parser that reads the command line reads it; nothing is done."""
    _, _, example = about(COMMANDS[name])
    assert f"Example: {example}\n" in printed(capsys, name, "--help")
    words = shlex.split(example)
    assert words[:2] == ["biwaa", name]
    given = {}
    if name in WITH_RECIPE:
        monkeypatch.setitem(WITH_RECIPE, name, lambda flags, settings: given.update(vars(flags), settings=settings))
    else:
        recorded = functools.wraps(COMMANDS[name])(lambda **found: given.update(found))
        monkeypatch.setitem(COMMANDS, name, recorded)
    assert main(words[1:]) == 0
    wanted = [option.name for option in options_of(name) if option.default is tyro.MISSING]
    assert all(given[one] not in (None, ()) for one in wanted)
    if name in WITH_RECIPE:
        assert given["settings"] == load_recipe(given["recipe"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_listed(name, capsys, monkeypatch):
    """Those of --help-all are those that the parser takes and the one of all commands, each with its meaning."""
    monkeypatch.setenv("COLUMNS", "400")
    if name in WITH_RECIPE:
        parse = functools.partial(_with_settings, name, COMMANDS[name], COMMANDS[name].recipe, ["--help"])
    else:
        parse = functools.partial(tyro.cli, COMMANDS[name], args=["--help"])
    with pytest.raises(SystemExit):
        parse()
    known = set(re.findall(r"--(?!no-|help\b)[a-z][a-z0-9-]*", re.sub(r"│ *[^-│].*", "", capsys.readouterr().out)))
    text = printed(capsys, name, "--help-all")
    listed = {flag.replace("[no-]", "") for flag in re.findall(r"^  (--[a-z\[\]0-9-]+)", text, flags=re.M)}
    assert listed == known | {"--plugin"}
    assert all(option.meaning for option in options_of(name))


def test_settings_of_every_day_are_settings():
    for name in WITH_RECIPE:
        known = [option.name for option in options_of(name) if option.heading]
        assert set(COMMANDS[name].EVERYDAY) <= set(known)
        assert sorted(known) == sorted(GROUP_OF)


def test_settings_stand_under_the_headings_of_their_groups(capsys):
    """A group's heading is its docstring, each of its settings is below it, and the order is the recipe's."""
    text = printed(capsys, "train", "--help-all")
    headings = {"": "Method and seed"}
    for field in dataclasses.fields(Recipe):
        if dataclasses.is_dataclass(field.type):
            headings[field.name] = inspect.getdoc(field.type).partition(".")[0]
    assert len(set(headings.values())) == len(headings)
    lines = text.splitlines()
    assert [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")] == list(headings.values())
    under = ""
    found = {}
    for line in lines:
        if line.endswith(":") and not line.startswith(" "):
            under = line[:-1]
        elif flag := re.match(r"  --(?:\[no-\])?([a-z-]+)", line):
            found.setdefault(flag[1].replace("-", "_"), []).append(under)
    assert {name: found[name] for name in GROUP_OF} == {name: [headings[group]] for name, group in GROUP_OF.items()}


def test_help_of_what_does_not_exist(capsys):
    assert main(["trian", "--help"]) == 2
    assert main(["train", "--recipe", "nothing", "--help"]) == 2
    assert "no recipe 'nothing'" in capsys.readouterr().err
