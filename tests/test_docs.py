"""The site: built as `make docs` builds it, without warning, dead link or request, with every name of the code."""

import html
import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from test_report import browser, requests, visit  # noqa: F401 - browser is a fixture

import biwaa
import biwaa.functional
from biwaa.cli import COMMANDS, defaults
from biwaa.cli.help import about, options
from biwaa.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}


class Links(HTMLParser):
    """What a page names, loads and links to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded, self.tags = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and {"stylesheet", "icon", "preload", "preconnect"} & set(found.get("rel", "").split()):
            self.loaded.append(found["href"])
        if found.get(LOADS.get(tag)):
            self.loaded.append(found[LOADS[tag]])

    handle_startendtag = handle_starttag


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; both notebooks have been run for it."""
    for module in ("sphinx", "furo", "myst_nb", "latex2mathml"):
        pytest.importorskip(module)
    words = re.search(r"\$\(BIN\)/sphinx-build (.+) docs build/docs", (ROOT / "Makefile").read_text())[1].split()
    assert "--fail-on-warning" in words
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, "docs", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING:" not in done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def text_of(path):
    return html.unescape(re.sub(r"<[^>]*>", "", path.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_every_link_leads_somewhere(site, pages):
    assert len(pages) > 25
    dead = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = to.is_file() and (not parts.fragment or to not in pages or unquote(parts.fragment) in pages[to].ids)
            dead += [] if found else [f"{path.name}: {link}"]
    assert not dead


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site, pages):
    for path, page in pages.items():
        assert not [address for address in page.loaded if re.match(r"(\w+:)?//", address)], path
        assert "require.js" not in page.loaded
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(['\"]?|@import\s*['\"])(\w+:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_formulas_are_drawn(pages):
    for path, page in pages.items():
        if path.parent.name == "concepts":
            assert page.tags.count("math") >= 2, path
            assert not re.search(r"\\(frac|sum|mathrm|lVert)|\$\$", text_of(path)), path
    assert all("mathjax" not in " ".join(page.loaded).lower() for page in pages.values())


@pytest.mark.slow
def test_every_command_and_setting_is_in_the_reference(site, pages):
    text = text_of(site / "commands.html")
    for name, command in COMMANDS.items():
        assert f"biwaa-{name}" in pages[site / "commands.html"].ids
        assert about(command)[2] in text
        flags = [option for option in options(command, defaults(name)) if not option.heading]
        for option in [*flags, *options(Recipe)]:
            assert option.words in text, (name, option.words)


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site, pages):
    ids = pages[site / "reference.html"].ids
    assert {f"biwaa.{name}" for name in biwaa.__all__} <= ids
    assert {f"biwaa.functional.{name}" for name in biwaa.functional.__all__} <= ids
    assert {"biwaa.Run.predict", "biwaa.DomainAdapter.fit", "biwaa.methods.method.Method.losses"} <= ids
    listed = importlib.import_module("biwaa.judging.validators").VALIDATORS
    chosen = text_of(site / "concepts" / "choosing.html")
    assert all(name in chosen for name in listed)


@pytest.mark.slow
def test_notebooks_were_run(site, pages):
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code), (
            "commit it without outputs"
        )
        page = site / "notebooks" / f"{path.stem}.html"
        assert page.read_text().count('class="cell_output') >= len(code) - 1
        assert len([image for image in pages[page].loaded if image.endswith(".png")]) >= 1


@pytest.mark.slow
def test_pages_in_a_browser(site, browser):  # noqa: F811
    """Nothing logged, nothing fetched from elsewhere; formulas have a size; no sideways scrolling on a phone."""
    for name in ("index", "concepts/weighting", "commands", "notebooks/why"):
        visit(browser, site / f"{name}.html", width=390)
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"], name
        assert requests(browser) <= {"file", "data"}, name
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390, name
    heights = "return [...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().height)"
    visit(browser, site / "concepts" / "weighting.html")
    assert min(browser.execute_script(heights)) > 5


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def test_links_hold_in_the_repository():
    """The same pages are read there, as files."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, fragment = target.partition("#")
            if ":" in path:
                continue
            to = (page.parent / path).resolve() if path else page
            assert to.exists(), (page.name, target)
            generated = to.name == "commands.md" and fragment == "settings"
            if fragment and to.suffix == ".md" and not generated:
                headings = re.findall(r"^#+ (.+)$", to.read_text(), flags=re.M)
                assert fragment in map(slug, headings), (page.name, target)


def test_relinking(monkeypatch):
    pytest.importorskip("sphinx")
    pytest.importorskip("latex2mathml")
    monkeypatch.syspath_prepend(str(DOCS))
    relink = importlib.import_module("site_parts").relink
    page, readme = DOCS / "concepts" / "trust.md", ROOT / "README.md"
    for written, text, expected in (
        (readme, "[a](docs/robust.md#x)", "[a](../robust.md#x)"),
        (readme, "![a](docs/images/demo.png)", "![a](../images/demo.png)"),
        (readme, "[results](benchmarks/results)", "results"),
        (page, "[a](../../README.md#what-was-measured)", "[a](../results.md#what-was-measured)"),
        (page, "[a](../../README.md)", "[a](../index.md)"),
        (page, "[a](choosing.md) [b](#warnings) [c](mailto:x)", "[a](choosing.md) [b](#warnings) [c](mailto:x)"),
    ):
        assert relink(text, written, page) == expected
