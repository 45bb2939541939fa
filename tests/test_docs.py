"""The site: built as `make docs` builds it, without warning, dead link or request, with every name of the code."""

import html
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import made_once
from test_report import browser, requests, visit  # noqa: F401 - browser is a fixture

import biwaa
import biwaa.functional
from biwaa.cli import COMMANDS
from biwaa.cli.help import about, options
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.recipe import Recipe, load_recipe

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

    def build(out):
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", *words, "docs", str(out)],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert "WARNING:" not in done.stderr

    return made_once(tmp_path_factory, "site", build)


@pytest.fixture(scope="module")
def pages(site):
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def all_flags(command):
    """A command's own flags; those with settings start from their recipe."""
    start = command.starting_from(command.recipe) if hasattr(command, "starting_from") else None
    return [option for option in options(command, start) if not option.heading]


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
        flags = all_flags(command)
        for option in [*flags, *options(Recipe, load_recipe("paper"))]:
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


def test_every_test_that_a_page_names_is_there():
    code = "".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    known = {*re.findall(r"def (test_\w+)", code), *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    for page in DOCS.rglob("*.md"):
        assert set(re.findall(r"\btest_\w+", page.read_text())) <= known, page.name


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
        (page, "[a](../../README.md)", "[a](../index.md)"),
        (page, "[a](choosing.md) [b](#warnings) [c](mailto:x)", "[a](choosing.md) [b](#warnings) [c](mailto:x)"),
    ):
        assert relink(text, written, page) == expected


def benches(page):
    """Every `biwaa bench` of a page's shell blocks: the suite, and the words after each flag."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.S)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if line.startswith("biwaa bench"):
            suite, *flags = re.split(r"\s+--", line.removeprefix("biwaa bench "))
            yield suite.strip(), {words[0].replace("-", "_"): words[1:] for words in map(shlex.split, flags)}


def test_commands_of_the_results_are_those_of_their_tables():
    """A command gives the benchmark, tasks, seeds, variants and settings that its folder's bench.json states."""
    found = 0
    for suite, flags in benches(DOCS / "results.md"):
        if suite == "panel":  # many benches in one command
            continue
        folder = ROOT / "benchmarks" / "results" / Path(flags.pop("out")[0]).name
        bench = json.loads((folder / "bench.json").read_text())
        settings = bench["settings"]
        benchmark, _, study = suite.partition("/")
        assert (benchmark, study or "methods") == (bench["benchmark"], bench["study"]), folder.name
        entry = BENCHMARKS[benchmark]
        every = [entry.task_name(*entry.task(task)) for task in entry.tasks]
        assert set(flags.pop("tasks", every)) == set(bench["tasks"]), folder.name
        assert list(map(int, flags.pop("seeds", [42, 43, 44]))) == bench["seeds"], folder.name
        recipe, then = flags.pop("recipe")[0], dict[str, str]()
        if bench.get("format", 1) == 1:
            without_losses_of_biwaa = settings.get("confusion") == 1 and settings.get("adversarial") == 0
            assert (recipe != "paper") == without_losses_of_biwaa, folder.name
            then = {"mcc_teacher": "biwaa"}  # one method held both when these tables were made
        else:
            named = load_recipe(str(ROOT / recipe) if recipe.endswith(".yaml") else recipe).flat()
            decided = {*flags, "seed", "method", "backbone"}
            differ = {
                name for name, value in named.items() if name not in decided and settings.get(name, value) != value
            }
            assert not differ - {"freeze_backbone"}, folder.name  # a recipe may leave it open
        variants = {variant["name"] for variant in bench["variants"]} - {"source_only"}
        named_ones = {then.get(name, name) for name in flags.pop("methods", variants)} - {"source_only"}
        assert named_ones == variants, folder.name
        flags.pop("data_root")
        for name, words in flags.items():
            value = settings[name]
            assert value is True if not words else type(value)(words[0]) == value, (folder.name, name)
        found += 1
    assert found > 25


def test_every_table_is_named_on_the_results_page():
    page = (DOCS / "results.md").read_text()
    folders = [path.name for path in (ROOT / "benchmarks" / "results").iterdir() if path.is_dir()]
    assert not [name for name in folders if f"`{name}`" not in page]
    for name in folders:
        text = (ROOT / "benchmarks" / "results" / name / "table.md").read_text()
        score = re.search(r"the highest ([a-z ]+);", text)[1]
        column = {"information maximisation": 1, "nuclear norm": 2}[score]
        rows = [line.split("|") for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert any(f"`{name}`" in row[column] for row in rows), (name, score)
