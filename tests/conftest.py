"""One thread, a cache of the tests' own, where the real images are, and what is run or made once for several tests."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from PIL import Image

from biwaa.bench import engine
from biwaa.cli import main
from biwaa.recipe import recipe_from
from biwaa.training.prepare import Pair
from biwaa.training.run import Options, train_run

torch.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden"
SMALL_FILE = Path(__file__).parent / "small.yaml"
SMALL = yaml.safe_load(SMALL_FILE.read_text())
"""Settings for tests to change."""
TINY = recipe_from(
    {**SMALL, "steps": 40, "rounds": 1, "batch_size": 8, "image_size": 12, "resize": 14, "crops": 10,
     "augment": "crop_flip", "bottleneck": 8, "discriminator": 16, "log_every": 20, "source_held_out": 0.2},
    "test",
)  # fmt: skip
"""A run of a second."""


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """No test may read or fill the user's cache; the commands the tests start inherit this one."""
    os.environ["BIWAA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_root():
    """Folder of real images; tests that need it skip where it is missing."""
    root = Path(os.environ.get("BIWAA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip("no real images: set BIWAA_DATA to a folder with pacs/, office10/ and digits.npz")
    return root


AS_SEEN = {"COLUMNS": "200", "NO_COLOR": "1"}
COMMAND = Path(sys.executable).parent / "biwaa"


def command(*words) -> subprocess.CompletedProcess:
    """What the installed command does, here: a process of its own would first import for seconds."""
    out, err = io.StringIO(), io.StringIO()
    with patch.dict(os.environ, AS_SEEN), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def installed(*words, cwd=None, **environment) -> subprocess.CompletedProcess:
    """The installed command, in a process of its own; `environment` beside the tests' own."""
    return subprocess.run(
        [COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, timeout=900,
        env={**os.environ, **AS_SEEN, **environment},
    )  # fmt: skip


def benched(*words) -> subprocess.CompletedProcess:
    """What `biwaa bench` does, here; its runs are trained here too, one after the other."""
    with patch.object(engine, "local", lambda works, processes: map(engine.train_one, works)):
        return command("bench", *words)


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of several processes of tests makes for all of them; not to be written to."""
    mine = tmp_path_factory.getbasetemp()
    place = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / name
    with FileLock(f"{place}.lock"):
        if not (place / "whole").exists():
            place.mkdir(exist_ok=True)
            make(place)
            (place / "whole").touch()
    return place


def write_images(folder: Path, counts: dict[str, int], size: int = 20, seed: int = 0, suffix: str = ".png") -> Path:
    """Class folders of noise around a brightness of the class's own, easy to tell apart."""
    rng = np.random.default_rng(seed)
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            level = 40 + 170 * number // max(len(counts) - 1, 1)
            pixels = rng.normal(level, 12, (size, size, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}{suffix}")
    return folder


def install_plugin(folder: Path, code: str, entries: str = "mine = mine\n") -> Path:
    """A package `mine` as pip leaves it in `folder`; its file of entry points."""
    (folder / "mine.py").write_text(code)
    info = folder / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    file = info / "entry_points.txt"
    file.write_text(f"[biwaa.plugins]\n{entries}")
    return file


def train_pair(source, target, recipe, out, *, held_out=None, **options):
    """`train_run` of two domains; `options` are those of `Options`."""
    return train_run(Pair(source, target, held_out), recipe, out, Options(**options))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, _own_cache):
    """A finished run's folder, with its domains `source` and `target` next to it; not to be written to."""
    import biwaa

    place = tmp_path_factory.mktemp("tiny")
    write_images(place / "source", {"cat": 20, "dog": 20, "eel": 20}, seed=0, size=16)
    write_images(place / "target", {"cat": 12, "dog": 12, "eel": 12}, seed=1, size=20)
    return biwaa.adapt(place / "source", place / "target", out=place / "run", recipe=TINY, verbose=False).folder
