"""What the site needs beyond its themes: MathML, links into the repository, and the command reference from the code."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from biwaa.cli import COMMANDS, WITH_RECIPE
from biwaa.cli.help import Option, about, all_options, options, usage
from biwaa.recipe import NAMED, Recipe, load_recipe

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
ELSEWHERE = {
    ROOT / "README.md": DOCS / "index.md",
    ROOT / "CONTRIBUTING.md": DOCS / "contributing.md",
    ROOT / "CHANGELOG.md": DOCS / "changelog.md",
}
"""The page that shows a file from above docs/."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it with Sphinx."""
    app.add_html_math_renderer("mathml", (_formula("inline"), None), (_formula("block"), None))
    app.connect("source-read", _page)
    app.connect("include-read", _included)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": False}


def _formula(display: str) -> Callable[[Any, nodes.Node], None]:
    def visit(writer: Any, node: nodes.Node) -> None:
        text = convert(" ".join(node.astext().split()), display=display)
        writer.body.append(f'<div class="formula">{text}</div>' if display == "block" else text)
        raise nodes.SkipNode

    return visit


def _page(app: Sphinx, name: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        if name == "commands":
            source[0] = source[0].replace("<!-- commands -->", command_reference())
        source[0] = relink(source[0], path, path)


def _included(app: Sphinx, path: Path, name: str, source: list[str]) -> None:
    source[0] = relink(source[0], (DOCS / path).resolve(), Path(app.env.doc2path(name)))


def relink(text: str, written: Path, shown: Path) -> str:
    """Change links that work in the repository so that they work on the site.

    Args:
        text: Markdown.
        written: the file that holds it.
        shown: the page that shows it.
    """

    def change(found: re.Match[str]) -> str:
        image, label, target, fragment = found[1], found[2], found[3], found[4] or ""
        if not target or ":" in target:
            return found[0]
        path = (written.parent / target).resolve()
        path = ELSEWHERE.get(path, path)
        if path.is_dir():
            return label
        return f"{image}[{label}]({os.path.relpath(path, shown.parent)}{fragment})"

    return LINK.sub(change, text)


def _signature(app: Sphinx, what: str, name: str, *_: object) -> tuple[str, str] | None:
    """The recipe's settings are in the command reference, so its signature does not repeat them."""
    return ("", "") if name == "biwaa.Recipe" else None


def command_reference() -> str:
    """Every command with its flags, then every setting, as Markdown."""
    parts: list[str] = []
    for name, command in COMMANDS.items():
        recipe = getattr(command, "recipe", None) if name in WITH_RECIPE else None
        found = all_options(command, recipe)
        sentence, more, example = about(command)
        flags = [option for option in found if not option.heading]
        parts += [f"## biwaa {name}", f"{sentence} {more}".strip(), f"```text\n{usage(name, found)}\n```"]
        parts += [f"Example: `{example}`", _table(("flag", "meaning", "default"), [_row(option) for option in flags])]
        if recipe:
            parts.append(f"And every [setting](#settings); they start from the recipe `{recipe}`.")
    parts.append("## Settings")
    parts.append("Flags of `biwaa train` and `biwaa bench`, keys of a recipe's YAML file, keywords of `biwaa.adapt`.")
    settings = {name: options(Recipe, load_recipe(name)) for name in NAMED}
    values = {name: {option.name: option.default for option in found} for name, found in settings.items()}
    groups: dict[str, list[tuple[str, ...]]] = {}
    for option in settings["paper"]:
        here = {name: of[option.name] for name, of in values.items()}
        other = (f"{name} {_shown(value)}" for name, value in here.items() if value != option.default)
        row = (f"`{option.words}`", option.meaning, _shown(option.default), ", ".join(other))
        groups.setdefault(option.heading or "Method and seed", []).append(row)
    for heading, rows in groups.items():
        parts += [f"### {heading}", _table(("flag", "meaning", "paper", "other recipes"), rows)]
    return "\n\n".join(parts)


def _row(option: Option) -> tuple[str, str, str]:
    default = f"`{option.default_words}`" if option.default_words else ""
    return f"`{option.words}`", option.meaning, default


def _shown(value: object) -> str:
    return {None: "unset", True: "on", False: "off"}[value] if value is None or isinstance(value, bool) else str(value)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    escaped = [tuple(cell.replace("|", "\\|").replace("$", "\\$") for cell in row) for row in [head, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])
