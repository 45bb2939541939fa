"""What docs/reliability.md promises: nothing is lost, nothing runs that should not, the same comes out again."""

import csv
import json
import os
import platform
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import SMALL, write_images
from PIL import Image

import biwaa
from biwaa import files
from biwaa.cli import main
from biwaa.images.images import FileImages
from biwaa.images.store import decode
from biwaa.recipe import dump_recipe, load_recipe, recipe_from
from biwaa.tensors import load_tensors
from biwaa.training import fit, folder
from biwaa.training import run as training_run
from biwaa.training.checkpoints import Due

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import kill

TINY = recipe_from(
    {**SMALL, "steps": 8, "rounds": 1, "batch_size": 6, "image_size": 12, "resize": 12, "bottleneck": 8,
     "discriminator": 8, "log_every": 4, "checkpoint_every": 3, "device": "cpu"},
    "test",
)  # fmt: skip
OUTPUTS = ("model.safetensors", "predictions.csv")


@pytest.fixture(autouse=True)
def _without_page():
    """Half of the time of a tiny run is its page, which is no subject here."""
    with mock.patch("biwaa.report.write.write_report", lambda path, **_: path / "report.html"):
        yield


@pytest.fixture
def pair(tmp_path):
    return (
        write_images(tmp_path / "source", {"cat": 8, "dog": 8}, seed=0, size=12),
        write_images(tmp_path / "target", {"cat": 7, "dog": 7}, seed=1, size=12),
    )


@pytest.fixture
def train(pair, tmp_path):
    """`biwaa train` with tiny settings; the exit code."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(TINY))

    def call(out, *more):
        words = ["train", "--source", pair[0], "--target", pair[1], "--recipe", recipe, "--out", out, *more]
        return main([str(word) for word in words])

    return call


def contents(run):
    return {name: (run / name).read_bytes() for name in OUTPUTS}


def sentence(capsys):
    """The one sentence on standard error."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("biwaa: ")]
    return line


def fail_at(monkeypatch, step, act):
    """Let `act` happen in place of a training step."""
    steps = iter(range(10_000))
    original = fit.training_step

    def failing(*args, **kwargs):
        if next(steps) == step:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(fit, "training_step", failing)


def throw(error):
    raise error


# --- killed, asked to end -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode, kills", [("end to end, teacher", 3), ("two processes", 2)])
def test_killed_runs_end_with_the_same_bytes(mode, kills, tmp_path):
    """The real command, killed at instants of several kinds, the first and the second process; kill.py takes more."""
    short = ["--steps", "12", "--checkpoint-every", "2"]
    small = ["--source-shift", "per-class:10", "--target-shift", "images:100"]
    found = kill.measure(mode, [*kill.MODES[mode], *short, *small], kills, tmp_path, random.Random(0))
    assert sum(found["kills"].values()) == kills
    assert found["runs"] == found["runs_with_the_same_bytes"]


@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_end_a_run_that_can_be_resumed(train, tmp_path, monkeypatch, capsys, number, code, word):
    assert train(tmp_path / "whole") == 0
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        fail_at(patch, 8 + 5, lambda: os.kill(os.getpid(), number))
        capsys.readouterr()
        assert train(tmp_path / "cut") == code
    assert signal.getsignal(signal.SIGTERM) is before
    assert sentence(capsys) == f"biwaa: {word}; `--resume` goes on from step 3 of round 0"
    assert main(["train", "--resume", "--out", str(tmp_path / "cut")]) == 0  # its recipe and images are its own
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_checkpoints_by_the_clock(train, tmp_path, monkeypatch, capsys):
    assert train(tmp_path / "whole", "--no-baseline") == 0
    with monkeypatch.context() as patch:
        fail_at(patch, 6, lambda: throw(KeyboardInterrupt()))
        assert train(tmp_path / "cut", "--no-baseline", "--checkpoint-every", "0.000001m") == 130
    _, facts = load_tensors(tmp_path / "cut" / "checkpoints" / "unfinished.safetensors")
    assert facts["step"] == 5  # after each step, and proven by the next
    assert train(tmp_path / "cut", "--no-baseline", "--resume") == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    for wrong in ("0", "0m", "ten", "-3", "1e3m"):
        assert train(tmp_path / "wrong", f"--checkpoint-every={wrong}") == 2
        assert "10m" in capsys.readouterr().err


def test_what_a_killed_process_was_writing_is_removed(train, tmp_path, monkeypatch):
    cached = tmp_path / "cache"
    monkeypatch.setenv("BIWAA_CACHE", str(cached))
    run = tmp_path / "run"
    assert train(run) == 0
    before = sorted(path for path in run.rglob("*"))
    mine = run / ".gitignore"
    mine.write_text("*")
    left = [run / ".model.safetensors.abc_1234", run / "checkpoints" / ".candidate.safetensors.abcdefgh",
            run / "checkpoints" / ".tmpAbC123"]  # fmt: skip
    for path in left:
        path.write_bytes(b"half")
    key = min(path.parent.name for path in cached.glob("*/rows.npy"))
    (cached / f".{key}.abcdefgh").mkdir()
    (cached / key / "unreadable.json").unlink()
    assert train(run, "--resume") == 0
    assert sorted(path for path in run.rglob("*")) == sorted([*before, mine])
    assert not (cached / f".{key}.abcdefgh").exists()


def test_two_processes_cannot_train_in_one_folder(train, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run) == 0
    before = contents(run)
    with files.lock_folder(run):
        assert train(run, "--overwrite") == 2
        assert "another process is at work in" in capsys.readouterr().err
    assert contents(run) == before
    assert train(run, "--resume") == 0


@pytest.mark.parametrize("moves", [1, 3, 6])
def test_an_overwriting_that_is_killed_loses_no_model(train, tmp_path, monkeypatch, moves):
    """Killed between any two of the moves that set the old run aside; then begun again."""
    run = tmp_path / "run"
    assert train(run) == 0
    before = contents(run)
    renames = iter(range(100))
    original = Path.rename

    def rename(path, target):
        if next(renames) == moves:
            raise KeyboardInterrupt
        return original(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        assert train(run, "--overwrite") == 130
    kept = next(path for path in (run, run / folder.HALFWAY, run / "replaced") if (path / OUTPUTS[0]).exists())
    assert (kept / OUTPUTS[0]).read_bytes() == before[OUTPUTS[0]]
    assert train(run) == 2  # nothing goes unless it is asked for
    assert train(run, "--overwrite", "--seed", "7") == 0
    assert not (run / "replaced").exists()
    assert contents(run) != before


# --- full disk, no memory, images and folders that change ---------------------------------------------------------


@pytest.fixture
def small_files():
    """No file may grow beyond so many bytes: what a full disk is to a process, but with another number."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no right to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_named_and_the_run_goes_on_later(train, tmp_path, small_disk, monkeypatch, capsys):
    assert train(tmp_path / "whole") == 0
    ballast = small_disk / "ballast"

    def fill():
        try:
            with ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            pass

    for step in (5, 5 + 4):
        with monkeypatch.context() as patch:
            fail_at(patch, step, fill)
            capsys.readouterr()
            assert train(small_disk / "run", *["--resume"] * (small_disk / "run").exists()) == 2
        line = sentence(capsys)
        assert "No space left on device" in line
        assert "run/" in line
        assert "--resume" in line
        left = [path.name for path in (small_disk / "run").rglob(".*")]
        assert not left
        ballast.unlink()
    assert train(small_disk / "run", "--resume") == 0
    assert contents(small_disk / "run") == contents(tmp_path / "whole")


def test_a_full_cache_is_an_error_and_no_crash(train, tmp_path, small_disk, monkeypatch, capsys):
    """Pixels are written through mapped memory: without room the process would be killed by a bus error."""
    monkeypatch.setenv("BIWAA_CACHE", str(small_disk))
    assert train(tmp_path / "run", "--resize", "600") == 2
    assert "No space left on device" in (line := sentence(capsys))
    assert str(small_disk) in line
    assert not [path for path in small_disk.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("most", [100, 12_000])
def test_files_that_cannot_be_written_whole(train, tmp_path, small_files, capsys, most):
    assert train(tmp_path / "whole") == 0
    capsys.readouterr()
    small_files(most)
    assert train(tmp_path / "run") == 2
    assert "File too large" in sentence(capsys)
    small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert train(tmp_path / "run", "--resume") == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError(),
     RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")],
    ids=["cuda", "python", "cpu"],
)  # fmt: skip
def test_memory_that_runs_out_in_a_step(train, tmp_path, monkeypatch, capsys, error):
    with monkeypatch.context() as patch:
        fail_at(patch, 8 + 5, lambda: throw(error))
        assert train(tmp_path / "run") == 2
    assert (line := sentence(capsys)).startswith("biwaa: error: memory ran out with batches of 6 images (")
    assert "try --batch-size 3 (a run of its own: --resume cannot change it)" in line
    assert line.endswith("What was finished is kept.")
    assert (tmp_path / "run" / "checkpoints" / "source-only.safetensors").exists()
    assert train(tmp_path / "run", "--resume") == 0


def test_an_allocation_that_really_fails(train, tmp_path, capsys):
    assert train(tmp_path / "run", "--bottleneck", str(10**12)) == 2
    assert "memory ran out" in sentence(capsys)


@pytest.mark.parametrize("size, advice", [(3, "try --batch-size 2 "), (2, "no batch is smaller")])
def test_advice_on_memory_for_the_smallest_batches(train, tmp_path, monkeypatch, capsys, size, advice):
    fail_at(monkeypatch, 2, lambda: throw(MemoryError()))
    assert train(tmp_path / "run", "--batch-size", size) == 2
    assert advice in sentence(capsys)


LIMITED = """
import re, resource, sys
import numpy as np, torch
from pathlib import Path
from sklearn.cluster import KMeans
import biwaa.training.run
from biwaa.cli import main
# What libraries take once and for all, and would wait for in vain, they take before the limit is set.
KMeans(3, n_init=1).fit(np.random.rand(300, 16) @ np.random.rand(16, 16))
torch.nn.functional.conv2d(torch.zeros(2, 3, 9, 9), torch.zeros(4, 3, 3, 3, requires_grad=True)).sum().backward()
taken = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (taken + 1000 * 2**20, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_halving_the_batch_as_advised_ends_in_a_run(tmp_path):
    """A process with 1000 MiB to spend: the first batch does not fit, and a later one of those that it names does."""
    classes = {"cat": 130, "dog": 130}
    for name, seed in (("source", 0), ("target", 1)):
        write_images(tmp_path / name, classes, seed=seed, size=64)
    recipe = tmp_path / "recipe.yaml"
    changed = {"image_size": 64, "resize": 64, "steps": 2, "baseline": False, "log_every": 1}
    recipe.write_text(dump_recipe(TINY.replace(**changed)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back

    def words(size):
        return ["train", "--source", str(tmp_path / "source"), "--target", str(tmp_path / "target"), "--recipe",
                str(recipe), "--out", str(tmp_path / f"run{size}"), "--batch-size", str(size)]  # fmt: skip

    def run(size):
        command = [sys.executable, "-c", LIMITED, *words(size)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode in (0, 2), done.stderr
        return done

    assert main(words(8)) == 0  # decodes: its threads would take memory of the first of the others alone
    sizes, done = [256], run(256)
    while done.returncode:
        sizes.append(int(re.search(r"memory ran out .* try --batch-size (\d+)", done.stderr)[1]))
        done = run(sizes[-1])
    assert len(sizes) > 1
    assert sizes == [256 >> halvings for halvings in range(len(sizes))]


def test_images_that_change_before_a_resumption(train, pair, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_at(patch, 8 + 5, lambda: throw(KeyboardInterrupt()))
        assert train(run) == 130
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    image = pair[1] / "cat" / "0.png"
    content, times = image.read_bytes(), (image.stat().st_atime_ns, image.stat().st_mtime_ns)
    image.unlink()
    capsys.readouterr()
    assert train(run, "--resume") == 2
    assert "target_images differ" in sentence(capsys)
    image.write_bytes((pair[1] / "dog" / "0.png").read_bytes())
    assert train(run, "--resume") == 2
    assert "target_images differ" in sentence(capsys)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    image.write_bytes(content)
    os.utime(image, ns=times)
    assert train(run, "--resume") == 0


def test_a_run_folder_that_vanishes(train, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    fail_at(monkeypatch, 8 + 1, lambda: run.rename(tmp_path / "moved"))
    assert train(run) == 2
    assert "was moved or emptied" in sentence(capsys)
    monkeypatch.undo()
    assert train(tmp_path / "moved", "--resume") == 0


# --- hostile files ------------------------------------------------------------------------------------------------


def test_a_pickle_given_as_weights_runs_nothing(train, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    for name in ("evil.pth", "evil.safetensors"):
        torch.save({"state_dict": Evil()}, tmp_path / name)
        assert train(tmp_path / "run", "--weights", tmp_path / name) == 2
        assert "is not a state dict of tensors" in sentence(capsys)
    np.savez(tmp_path / "evil.npz", a_x=np.array([Evil()], dtype=object))
    assert main(["check", f"{tmp_path / 'evil.npz'}:a"]) == 2
    assert "not readable as arrays" in sentence(capsys)
    assert not (tmp_path / "pwned").exists()


def test_nothing_in_the_sources_unpickles():
    sources = {path: path.read_text() for path in (Path(files.__file__).parent).rglob("*.py")}
    for path, text in sources.items():
        assert "import pickle" not in text, path
        assert text.count("torch.load(") <= text.count("weights_only=True"), path
        assert text.count("np.load(") == text.count("allow_pickle=False"), path
        assert "yaml.load(" not in text, path


def test_images_that_are_not_what_they_seem(tmp_path):
    good = Image.new("RGB", (8, 8), "red")
    good.save(tmp_path / "png-inside.png")
    (tmp_path / "png-inside.png").rename(tmp_path / "0-png-inside.jpg")
    good.save(tmp_path / "1.gif", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    header = struct.pack(">4sIIBBBBB", b"IHDR", 17000, 16000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "2-bomb.png").write_bytes(bomb + struct.pack(">I4s", 0, b"IDAT") + bytes(4))
    whole = (tmp_path / "1.gif").read_bytes()
    (tmp_path / "3-cut.gif").write_bytes(whole[:20])
    (tmp_path / "4-empty.png").touch()
    good.save(tmp_path / "other.eps")  # Pillow would start Ghostscript for it
    (tmp_path / "other.eps").rename(tmp_path / "5-eps.png")
    paths = tuple(sorted(tmp_path.iterdir()))
    rows = list(decode(FileImages(paths), 8))
    assert len(rows) == 6
    for row in rows[:2]:
        assert row.shape == (8, 8, 3)
        assert row[..., 0].min() > 250
        assert row[..., 1:].max() < 5
    assert all(isinstance(row, str) for row in rows[2:])
    assert rows[2] == "more than 268 million pixels: save it smaller"


def test_links_that_go_round_are_passed_over(train, pair, tmp_path):
    (pair[0] / "cat" / "round").symlink_to(pair[0])
    (pair[0] / "cat" / "self.png").symlink_to(pair[0] / "cat" / "self.png")
    (pair[0] / "nowhere").symlink_to(tmp_path / "gone")
    assert train(tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["source"]["images"] == 16


ODD = ["new\nline", "carriage\rreturn", "a,b", 'quo"te', "<script>alert(1)</script>", "\u202eright to left",
       "=cmd|'/C calc'!A0", "+1", "@sum", "\x1b[2J", "tab\t", "nbsp\u00a0", "\u2028", "-", " lead",
       "x" * 200]  # fmt: skip


def test_names_come_out_of_predictions_as_they_are(train, pair, tmp_path, capsys):
    names = [f"{odd}.png".encode() for odd in ODD if "/" not in odd] + [b"caf\xe9.png", b"\xff\xfe.png"]
    names += [b"slash<.png"]
    image = (pair[1] / "cat" / "0.png").read_bytes()
    folder_ = os.fsencode(pair[1] / "dog")
    for name in names:
        Path(os.fsdecode(folder_ + b"/" + name)).write_bytes(image)
    for domain in pair:
        (domain / "cat").rename(domain / "<script>")
        (domain / "dog").rename(domain / ("n" * 250))
    folder_ = os.fsencode(pair[1] / ("n" * 250))
    expected = {folder_ + b"/" + name for name in names}
    assert train(tmp_path / "run") == 0
    with (tmp_path / "run" / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert expected <= {os.fsencode(row["path"]) for row in rows}
    assert {row["label"] for row in rows} <= {"<script>", "n" * 250}
    broken = Path(os.fsdecode(folder_ + b"/\x1b[2J\n\xe2\x80\xae.png"))
    broken.write_bytes(b"")
    capsys.readouterr()
    assert train(tmp_path / "again") == 2
    line = sentence(capsys)
    assert "\\x1b[2J\\n\\u202e.png" in line
    assert main(["predict", str(tmp_path / "run"), str(pair[1]), "--out", str(tmp_path / "p.csv")]) == 0
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert expected <= {os.fsencode(row["path"]) for row in csv.DictReader(file)}


def test_lists_of_every_make(pair, tmp_path, capsys):
    """Windows' ends of lines, a byte order mark, absolute paths, paths upwards, names with odd spaces."""
    (pair[0] / "cat" / "a\u2028b\x0c.png").write_bytes((pair[0] / "cat" / "0.png").read_bytes())
    listing = tmp_path / "list.txt"
    lines = [f"{pair[0]}/cat/0.png 0", "cat/../../source/cat/1.png 0", "cat/a\u2028b\x0c.png 0", "dog/0.png\t1"]
    listing.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert main(["check", f"{listing}@{pair[0]}", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts == {"spec": f"{listing}@{pair[0]}", "images": 4, "classes": {"0": 3, "1": 1}} or facts["classes"] == {
        "cat": 3,
        "dog": 1,
    }
    listing.write_bytes("cat/0.png 0".encode("utf-16"))
    assert main(["check", f"{listing}@{pair[0]}"]) == 2
    assert "not a text file in UTF-8" in sentence(capsys)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (2, "no checkpoint was written yet, so `--resume` starts from the beginning"),
        (8 + 2, "`--resume` goes on after source-only, since no later checkpoint was written yet"),
    ],
)
def test_an_interrupt_says_from_where_the_run_goes_on(train, pair, tmp_path, monkeypatch, capsys, step, told):
    with monkeypatch.context() as patch:
        fail_at(patch, step, lambda: throw(KeyboardInterrupt()))
        assert train(tmp_path / "run", "--checkpoint-every", "5m") == 130
    assert sentence(capsys) == f"biwaa: interrupted; {told}"
    assert biwaa.adapt(*pair, out=tmp_path / "run", resume=True, verbose=False).result.finished
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "prepare", lambda *_: throw(KeyboardInterrupt()))
        assert train(tmp_path / "new") == 130
    assert sentence(capsys) == "biwaa: interrupted; nothing was trained yet: the same command starts again"
    assert main(["train", "--resume", "--out", str(tmp_path / "new")]) == 2
    assert "holds no run to go on with: name --source and --target" in sentence(capsys)


def test_the_clock_is_asked_seldom():
    """Processes that train together wait for each other when one asks; checkpoints are still in time."""
    now, asked = [0.0], []
    fabric = types.SimpleNamespace(broadcast=lambda answer: asked.append(now[0]) or answer)
    with mock.patch("biwaa.training.checkpoints.time", types.SimpleNamespace(perf_counter=lambda: now[0])):
        due, written = Due(TINY.replace(checkpoint_every="5m").machine, 0, fabric), []
        for step in range(1, 2001):
            now[0] += 0.5
            if due(step):
                written.append(now[0])
                due.kept(step)
    assert written == pytest.approx([300, 600, 900], abs=10)
    assert len(asked) < 60


# --- the same again -----------------------------------------------------------------------------------------------


def test_a_run_is_repeated_by_its_recipe(train, pair, tmp_path, capsys):
    assert train(tmp_path / "a", "--seed", "5", "--steps", "6", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first == json.loads((tmp_path / "a" / "result.json").read_text())
    assert set(first["fingerprints"]) == {"recipe", "classes", "source_images", "target_images"}
    assert train(tmp_path / "twice", "--recipe", tmp_path / "a" / "recipe.yaml") == 0  # of two the last
    assert contents(tmp_path / "twice") == contents(tmp_path / "a")
    words = ["train", "--source", str(pair[0]), "--target", str(pair[1])]
    capsys.readouterr()
    for name, flags in {"b": [], "c": ["--seed", "6"], "d": ["--log-every", "1"]}.items():
        recipe = ["--recipe", str(tmp_path / "a" / "recipe.yaml")]
        assert main([*words, *recipe, "--out", str(tmp_path / name), "--json", *flags]) == 0
    results = [json.loads((tmp_path / name / "result.json").read_text())["fingerprints"] for name in "abcd"]
    assert results[0] == results[1] == results[3] != results[2]
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "d")
    assert all(contents(tmp_path / "a")[name] != contents(tmp_path / "c")[name] for name in OUTPUTS)
    assert (tmp_path / "b" / "recipe.yaml").read_bytes() == (tmp_path / "a" / "recipe.yaml").read_bytes()


def test_a_run_keeps_its_number_of_threads(train, pair, tmp_path, monkeypatch):
    """Sums over more threads round otherwise: who goes on with a run, or repeats it by its recipe, has as many."""
    short, seen = ("--steps", "4", "--no-baseline"), []
    with monkeypatch.context() as patch:
        fail_at(patch, 3, lambda: throw(KeyboardInterrupt()))
        assert train(tmp_path / "a", *short, "--threads", "2") == 130
    with monkeypatch.context() as patch:
        fail_at(patch, 0, lambda: seen.append(torch.get_num_threads()))
        assert train(tmp_path / "a", *short, "--resume") == 0
    with monkeypatch.context() as patch:
        fail_at(patch, 0, lambda: seen.append(torch.get_num_threads()))
        assert train(tmp_path / "c", "--recipe", tmp_path / "a" / "recipe.yaml") == 0
    assert (seen, torch.get_num_threads()) == ([2, 2], 1)
    assert contents(tmp_path / "a") == contents(tmp_path / "c")
    assert train(tmp_path / "d", *short) == 0
    assert load_recipe(str(tmp_path / "d" / "recipe.yaml")).machine.threads == 1
    found = [json.loads((tmp_path / name / "result.json").read_text())["fingerprints"] for name in "ad"]
    assert found[0] == found[1]


# --- what is touched, what is printed --------------------------------------------------------------------------------

WATCHED = """
import os, sys
allowed = tuple(os.path.realpath(path) for path in sys.argv[1].split(os.pathsep))
def watch(event, arguments):
    # ctypes and matplotlib look so for libraries and fonts
    program = event in ("subprocess.Popen", "os.system") and str(arguments[0]) not in ("/sbin/ldconfig", "fc-list")
    if program or (event.startswith("socket.") and event != "socket.__new__"):
        print("FORBIDDEN", event, arguments, file=sys.__stderr__)
    path = None
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        writes = any(letter in (arguments[1] or "") for letter in "wax+") or (
            arguments[1] is None and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        path = arguments[0] if writes else None
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink"):
        path = arguments[1] if event == "os.rename" else arguments[0]
    if path is not None and not os.path.realpath(os.fsdecode(path)).startswith(allowed):
        print("FORBIDDEN", event, path, file=sys.__stderr__)
sys.addaudithook(watch)
from biwaa.cli import main
code = main(sys.argv[2:])
sys.exit(code)
"""


@pytest.mark.slow
def test_nothing_is_written_elsewhere_and_no_network_is_used(pair, tmp_path):
    """Every opening, making and renaming, and every socket, of a run without a home to write to."""
    run, cache, recipe = tmp_path / "run", tmp_path / "cache", tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(TINY))
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    temporary = tmp_path / "temporary"  # PyTorch makes empty folders in the system's
    temporary.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "TORCH", "MPL"))
    }
    environment |= {
        "HOME": str(home),
        "BIWAA_CACHE": str(cache),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
    }
    allowed = os.pathsep.join((str(run), str(cache), str(temporary), os.devnull))
    words = ["train", "--source", pair[0], "--target", pair[1], "--recipe", recipe, "--out", run, "--quiet", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, allowed, *map(str, words)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "FORBIDDEN" not in done.stderr
    assert done.stderr == ""  # quiet
    assert json.loads(done.stdout)["finished"]
    assert not list(home.iterdir())


def test_quiet(train, tmp_path, capsys):
    assert train(tmp_path / "loud") == 0
    loud = capsys.readouterr()
    assert "source-only: 8/8 steps" in loud.err
    assert "predicting" not in loud.err  # over in a moment
    assert train(tmp_path / "run", "--quiet") == 0
    quiet = capsys.readouterr()
    assert quiet.err == ""
    assert quiet.out == loud.out
    assert main(["check", str(tmp_path / "gone"), "--quiet"]) == 2
    assert "no such folder" in sentence(capsys)
    assert train(tmp_path / "again") == 0
    assert "source-only: 8/8 steps" in capsys.readouterr().err  # quiet for the one command


FAULTS = """
import resource, torch
from biwaa.device import keep_freed_memory
print(keep_freed_memory())
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
@pytest.mark.parametrize(("given", "keeps"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_what_a_step_frees_is_kept_for_the_next_unless_the_user_sets_otherwise(given, keeps):
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name}
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment | given, capture_output=True, text=True, check=True
    )
    kept, faults = ran.stdout.split()
    assert kept == str(keeps)
    assert not keeps or int(faults) < 100  # 64 MiB are 16,384 pages
