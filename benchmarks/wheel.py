"""Builds the wheel, installs it into an empty environment and uses it from another folder.

    python benchmarks/wheel.py

The environment has no packages of its own but this wheel; dependencies come from the environment that runs the script.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
FLAGS = ["--source", "digits:plain", "--target", "digits:photographs", "--recipe", "demo", "--steps", "2", "--quiet",
         "--source-shift", "per-class:20", "--target-shift", "images:100"]  # fmt: skip


def run(words: list[str], folder: Path) -> str:
    """Standard output of a program that must end well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["BIWAA_CACHE"] = str(folder / "cache")
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Build, install, train, predict."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)], folder)
        (wheel,) = folder.glob("*.whl")
        members = zipfile.ZipFile(wheel).namelist()
        others = [entry for entry in members if not entry.startswith(("biwaa/", "biwaa-"))]
        assert not others, others
        venv.create(folder / "env", symlinks=True)
        binaries = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        run([*PIP, "--python", str(binaries / "python"), "install", "--no-deps", str(wheel)], folder)
        (packages,) = (folder / "env").glob("lib/python*/site-packages")
        # Plain paths run after the environment's own packages; the editable install's finder among them is left out.
        (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        where = run([str(binaries / "python"), "-c", "import biwaa; print(biwaa.__file__)"], folder).strip()
        assert Path(where).is_relative_to(packages), where
        command = str(binaries / "biwaa")
        run([command, "train", *FLAGS, "--out", "run"], folder)
        run([command, "evaluate", "run", "digits:photographs", "--quiet"], folder)
        print(f"{wheel.name}: {len(members)} files; installed by itself, trained and evaluated from another folder")


if __name__ == "__main__":
    main()
