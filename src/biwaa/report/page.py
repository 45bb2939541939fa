"""From sections to one self-contained file: everything escaped, nothing fetched, a policy that forbids to."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from biwaa.errors import printable
from biwaa.report.section import Section
from biwaa.version import __version__


def file_name(path: str) -> str:
    """The last part of a path, and the folder that it lies in."""
    return "/".join(path.split("/")[-2:])


def render(title: str, heading: Sequence[str], meta: str, sections: Sequence[Section]) -> str:
    """The page.

    Args:
        title: of the document.
        heading: one part, or source and target.
        meta: a line below it.
        sections: in their order.
    """
    return filled("page.html", "script.js", title, heading=heading, meta=meta, sections=sections)


def filled(template: str, script: str, title: str, **facts: Any) -> str:
    """A template with its facts, the one script that its policy allows, and the style that all pages share."""
    folder = resources.files("biwaa.report") / "templates"
    read = {name: (folder / name).read_text(encoding="utf-8") for name in (template, "head.html", "style.css", script)}
    loader = jinja2.DictLoader(read)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, loader=loader)
    environment.filters |= {"plain": printable, "file": file_name}  # a name must not be able to hide itself
    digest = base64.b64encode(hashlib.sha256(read[script].encode()).digest()).decode()
    return environment.get_template(template).render(
        facts
        | {
            "title": title,
            "footer": f"Written by biwaa {__version__}. One file: it fetches nothing and sends nothing.",
            "style": Markup(read["style.css"]),
            "script": Markup(read[script]),
            "script_hash": f"sha256-{digest}",
        }
    )
