"""What is shipped: the wheel by itself, and the versions that it names."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_oldest_versions_are_those_that_the_project_allows():
    """Every lower bound of pyproject.toml is in constraints-oldest.txt, and nothing else does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(entry for extra in project["optional-dependencies"].values() for entry in extra),
    ]
    bounds = [re.match(r"([\w-]+)>=([\w.]+)", entry) for entry in wanted]
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == sorted(f"{b[1]}=={b[2]}" for b in bounds if b)


def test_the_pythons_that_are_tested_are_those_that_are_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    tested = re.findall(r'python: "(3\.\d+)"', (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert sorted(set(tested)) == named
    assert project["requires-python"] == f">={named[0]}"
    assert f"in {' '.join(named)};" in (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_the_wheel_works_by_itself():
    """Built, installed into an environment of its own that borrows the dependencies, used from another folder."""
    script = ROOT / "benchmarks" / "wheel.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "installed by itself, trained and evaluated from another folder" in done.stdout
