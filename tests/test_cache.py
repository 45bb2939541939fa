"""`biwaa cache`: what it lists, what it removes, and what it leaves alone."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from filelock import FileLock

from biwaa.cli import main
from biwaa.images import cache
from biwaa.images.store import stored


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """Pixels, features, a draft, other people's files; each array made as runs make it."""
    monkeypatch.setenv("BIWAA_CACHE", str(tmp_path))
    stored("pixels", (3, 4, 4, 3), "uint8", lambda rows: rows.fill(1) or {})
    stored("features", (3, 1000), "float32", lambda rows: rows.fill(2) or {})
    (tmp_path / f".{'a' * 32}.12345678").mkdir()
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "photos").mkdir()
    return tmp_path


def kinds(found):
    return [entry.kind for entry in found]


def test_what_lies_in_it(filled, capsys):
    assert kinds(cache.entries()) == ["decoded images", "fonts", "frozen features", "unfinished"]
    assert main(["cache"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{filled}: 4 entries, 0.0 MB")
    assert "`biwaa cache --clear` would remove 4 entries" in told
    assert len(cache.entries()) == 4


def test_clearing_leaves_what_is_not_ours(filled, capsys):
    assert main(["cache", "--clear"]) == 0
    assert "removed 4 entries" in capsys.readouterr().out
    assert {path.name for path in filled.iterdir() if path.suffix != ".lock"} == {"thesis.tex", "photos"}
    assert stored("features", (3, 1000), "float32", lambda rows: rows.fill(5) or {}).rows[0, 0] == 5


def test_what_a_process_uses_is_kept(filled):
    """An array that another process has open, and one that it is making."""
    code = "from biwaa.images.store import stored\nheld = stored('features', (3, 1000), 'float32', None)\n"
    code += "print('open', flush=True)\ninput()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "open\n"
        (pixels,) = (entry for entry in cache.entries() if entry.kind == "decoded images")
        with FileLock(pixels.path.with_suffix(".lock")):
            removed, kept = cache.clear(cache.entries())
        assert sorted(kinds(kept)) == ["decoded images", "frozen features"]
        assert sorted(kinds(removed)) == ["fonts", "unfinished"]
    finally:
        other.communicate("\n")
    assert sorted(kinds(cache.clear(cache.entries())[0])) == ["decoded images", "frozen features"]


def test_only_what_was_not_used_for_so_long(filled, capsys):
    """Opening an array counts as its use, not only making it."""
    for entry in cache.entries():
        os.utime(entry.path, (time.time() - 40 * cache.DAY,) * 2)
    assert np.all(stored("pixels", (3, 4, 4, 3), "uint8", lambda _: pytest.fail("made anew")).rows == 1)
    assert kinds(cache.older(cache.entries(), 30)) == ["fonts", "frozen features", "unfinished"]
    assert main(["cache", "--clear", "--older-than", "30"]) == 0
    assert "removed 3 entries, 0.0 MB, not used for 30 days" in capsys.readouterr().out
    assert kinds(cache.entries()) == ["decoded images"]
    assert main(["cache", "--older-than", "-1"]) == 2
    assert "a number of days from 0 up" in capsys.readouterr().err


def test_no_cache_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIWAA_CACHE", str(tmp_path / "none"))
    assert main(["cache", "--clear"]) == 0
    assert "removed 0 entries" in capsys.readouterr().out
