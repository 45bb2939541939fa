"""Every help fits a screen of 40 lines and 80 columns, has an example that parses, and hides no flag."""

import functools
import re
import shlex

import pytest
import tyro

from biwaa.cli import COMMANDS, defaults, main
from biwaa.cli.help import about, options
from biwaa.recipe import NAMED, Recipe

LINES, COLUMNS = 40, 80


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
    steps = NAMED[recipe].get("steps", Recipe.steps)
    assert re.search(rf"--steps N .*\[{steps}\]", text)


def test_the_overview_names_every_command(capsys):
    text = printed(capsys, "--help")
    assert re.findall(r"^  (\w+) ", text, flags=re.M) == list(COMMANDS)
    assert "Example: biwaa train --source" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_parses(name, capsys):
    """Read by the parser that reads what people type, but not done."""
    _, _, example = about(COMMANDS[name])
    assert f"Example: {example}\n" in printed(capsys, name, "--help")
    words = shlex.split(example)
    assert words[:2] == ["biwaa", name]
    given = {}
    start = defaults(name, words[2:])
    if start is None:
        recorded = functools.wraps(COMMANDS[name])(lambda **found: given.update(found))
        tyro.cli(recorded, args=words[2:], prog=name)
    else:
        given = vars(tyro.cli(COMMANDS[name], args=words[2:], default=start))
    wanted = [option.name for option in options(COMMANDS[name], start) if option.default is tyro.MISSING]
    assert all(given[one] not in (None, ()) for one in wanted)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_told(name, capsys, monkeypatch):
    """Those of --help-all are those that tyro takes, each with what it is for."""
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        tyro.cli(COMMANDS[name], args=["--help"], **({"default": start} if (start := defaults(name)) else {}))
    known = set(re.findall(r"--(?!no-|help\b)[a-z][a-z0-9-]*", re.sub(r"│ *[^-│].*", "", capsys.readouterr().out)))
    text = printed(capsys, name, "--help-all")
    told = {flag.replace("[no-]", "") for flag in re.findall(r"^  (--[a-z\[\]0-9-]+)", text, flags=re.M)}
    assert told == known
    assert all(option.meaning for option in options(COMMANDS[name], defaults(name)))


def test_settings_of_every_day_are_settings():
    for name in ("train", "bench"):
        known = [option.name for option in options(COMMANDS[name], defaults(name)) if option.heading]
        assert set(COMMANDS[name].EVERYDAY) <= set(known)
        assert len(known) == len(vars(Recipe()))


def test_help_of_what_is_not_there(capsys):
    assert main(["trian", "--help"]) == 2
    assert main(["train", "--recipe", "nothing", "--help"]) == 2
    assert "no recipe 'nothing'" in capsys.readouterr().err
