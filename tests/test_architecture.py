"""The rooms and the way between them: a module imports only from rooms above its own, and no imports go in a circle.

Every import counts, those within functions and for types too. The order is that of the table in docs/architecture.md.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import biwaa

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "biwaa"
ROOMS = (
    "version", "errors", "files", "tensors", "progress", "checks", "registry", "paths", "ranks", "device",
    "result", "predictions", "evaluations", "functional", "teachers", "solvers", "images", "domains", "models",
    "settings", "methods", "named_recipes", "recipe", "judging", "inference", "training", "api", "estimator",
    "bench", "report", "share", "demo", "cli", "__main__", "__init__",
)  # fmt: skip
"""From the ground up; `biwaa/__init__.py` names what the package offers, so it is above all."""


def modules(root: Path) -> dict[str, Path]:
    """Every module below `root` by its dotted name without the package's; the package itself is `__init__`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(text: str) -> Iterator[str]:
    """What a module imports of the package, wherever in it the import is."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the room"
            if node.module == "biwaa":
                yield from (alias.name for alias in node.names)
            elif node.module and node.module.startswith("biwaa."):
                yield from (f"{node.module.removeprefix('biwaa.')}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("biwaa.") for alias in node.names if alias.name.startswith("biwaa."))


def graph(root: Path) -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    known = modules(root)
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for imported in imports(path.read_text(encoding="utf-8")):
            module = imported if imported in known else imported.rpartition(".")[0]
            assert module in known, f"{name} imports {imported}, which does not exist"
            found[name].add(module)
    return found


def room(module: str) -> str:
    return module.partition(".")[0]


def upward(found: dict[str, set[str]]) -> list[str]:
    """Imports from a room below."""
    return sorted(
        f"{module} imports {other}"
        for module, others in found.items()
        for other in others
        if room(module) != room(other) and ROOMS.index(room(module)) < ROOMS.index(room(other))
    )


def circle(found: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, if any do."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_has_its_place():
    assert {room(module) for module in modules(SOURCES)} == set(ROOMS)
    assert len(set(ROOMS)) == len(ROOMS)


def test_no_import_points_up():
    assert upward(graph(SOURCES)) == []


def test_no_imports_go_in_a_circle():
    assert circle(graph(SOURCES)) == []


def test_the_page_has_the_rooms_in_this_order():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [re.findall(r"`(\w+)/?`", line.split("|")[1]) for line in table]
    start = 0
    for row in rows:  # within a row of the page the order is free
        assert sorted(row) == sorted(ROOMS[start : start + len(row)])
        start += len(row)
    assert ROOMS[start:] == ("__main__", "__init__")


@pytest.mark.parametrize(
    "module, text, found",
    [
        ("images/store.py", "def late():\n    import biwaa.training.run\n", "images.store imports training.run"),
        ("errors.py", "import biwaa.files\n", "errors imports files"),
        ("result.py", "from biwaa import api\n", "result imports api"),
        ("functional.py", "if TYPE_CHECKING:\n    from biwaa.cli import main\n", "functional imports cli"),
        ("cli/__init__.py", "from biwaa.errors import BiwaaError\n", None),
    ],
)  # fmt: skip
def test_an_import_that_points_up_is_found(tmp_path, module, text, found):
    for name in ("errors.py", "files.py", "result.py", "api.py", "functional.py"):
        (tmp_path / name).write_text("def main(): ...\n")
    for name in ("images/store.py", "training/run.py", "cli/__init__.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("def main(): ...\n")
    (tmp_path / module).write_text(text)
    assert upward(graph(tmp_path)) == ([found] if found else [])


def test_a_circle_within_a_room_is_found(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.py").write_text("from biwaa.images.b import one\n")
    (tmp_path / "images" / "b.py").write_text("def one():\n    from biwaa.images import a\n")
    assert set(circle(graph(tmp_path))) == {"images.a", "images.b"}
    assert upward(graph(tmp_path)) == []


def test_every_public_name_is_there():
    for name in biwaa.__all__:
        assert getattr(biwaa, name).__name__ in (name, "register"), name
    assert set(biwaa.__all__) <= set(dir(biwaa))
