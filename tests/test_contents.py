"""Images are what their files hold, and objects that users hand over are read on one thread."""

import os
import shutil
import threading
import time

import numpy as np
import pytest
from conftest import TINY, write_images
from PIL import Image
from test_bad_input import refused, train

import biwaa
from biwaa.domains.objects import as_domain
from biwaa.errors import BiwaaError
from biwaa.images import contents
from biwaa.images.images import FileImages
from biwaa.images.store import decode, store_pixels


def picture(path, level):
    """An image of one grey; files of the same size for every level."""
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: a test cannot wait until they are."""
    monkeypatch.setattr(contents, "SETTLED", -60.0)


def swap(path, level):
    """Other pixels at the same size and time of modification, as an archive restores them."""
    before = path.stat()
    picture(path, level)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_swapped_pixels_are_seen_at_the_same_size_and_time(tmp_path, settled):
    path = tmp_path / "a.bmp"
    picture(path, 50)
    assert store_pixels(FileImages((path,)), "a", 8).rows.max() == 50
    swap(path, 200)
    assert store_pixels(FileImages((path,)), "a", 8).rows.max() == 200


def test_files_that_were_just_written_are_not_remembered(tmp_path, monkeypatch):
    """Two changes within one tick of the clock have one time of change: such a file is read again."""
    path = tmp_path / "a.bmp"
    picture(path, 50)
    images = FileImages((path,))
    state = contents._state((path,))
    monkeypatch.setattr(contents, "_state", lambda paths: state)  # a clock that stands still
    first = images.fingerprint()
    swap(path, 200)
    assert images.fingerprint() != first


def test_contents_are_read_once(tmp_path, settled, monkeypatch):
    path = tmp_path / "a.bmp"
    picture(path, 50)
    reads = []
    read = contents._digest
    monkeypatch.setattr(contents, "_digest", lambda path: reads.append(path) or read(path))
    first = FileImages((path,)).fingerprint()
    assert FileImages((path,)).fingerprint() == first
    assert len(reads) == 1
    os.utime(path)  # it may have been written: it is read again, and is the same
    assert FileImages((path,)).fingerprint() == first
    assert len(reads) == 2


def test_copies_elsewhere_are_the_same_images(tmp_path):
    """A cache or a run that is copied to another machine stays valid: places and times do not matter, order does."""
    folder = write_images(tmp_path / "here", {"cat": 3})
    shutil.copytree(folder, tmp_path / "there", copy_function=shutil.copyfile)
    here, there = (sorted((tmp_path / name).rglob("*.png")) for name in ("here", "there"))
    assert FileImages(tuple(here)).fingerprint() == FileImages(tuple(there)).fingerprint()
    assert FileImages(tuple(here)).fingerprint() != FileImages(tuple(reversed(here))).fingerprint()


def test_a_run_is_resumed_where_its_images_were_copied_to(tmp_path, settled):
    """And refused where their pixels or labels were changed, whatever times say."""
    for name, seed in (("source", 0), ("target", 1)):
        write_images(tmp_path / name, {"cat": 8, "dog": 8}, seed=seed, suffix=".bmp")
    options = {"out": tmp_path / "run", "recipe": TINY.replace("test", steps=4), "verbose": False}
    run = biwaa.adapt(tmp_path / "source", tmp_path / "target", **options)
    first = run.result.fingerprints
    (tmp_path / "source").rename(tmp_path / "moved")
    again = biwaa.adapt(tmp_path / "moved", tmp_path / "target", resume=True, **options)
    assert again.result.fingerprints == first
    picture_of_cat, of_dog = tmp_path / "moved" / "cat" / "7.bmp", tmp_path / "moved" / "dog"
    picture_of_cat.rename(of_dog / "-1.bmp")  # the same images in the same order, one with another label
    with pytest.raises(BiwaaError, match="source_labels differ"):
        biwaa.adapt(tmp_path / "moved", tmp_path / "target", resume=True, **options)
    (of_dog / "-1.bmp").rename(picture_of_cat)
    swap_file = tmp_path / "target" / "cat" / "0.bmp"
    before = swap_file.stat()
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(swap_file)
    os.utime(swap_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BiwaaError, match="target_images differ"):
        biwaa.adapt(tmp_path / "moved", tmp_path / "target", resume=True, **options)


def test_files_behind_a_hub_data_set_are_read_for_its_identity(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "a.bmp"
    picture(path, 50)
    table = datasets.Dataset.from_dict({"image": [str(path)]}).cast_column("image", datasets.Image())
    assert store_pixels(as_domain(table, "t").images, "t", 8).rows.max() == 50
    swap(path, 200)
    assert store_pixels(as_domain(table, "t").images, "t", 8).rows.max() == 200


class Seeking:
    """A data set that seeks in one open file, as many do: it counts how many threads are in it, and which."""

    classes = ("cat", "dog")

    def __init__(self, count=60):
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
        self.inside, self.most, self.threads = 0, 0, set()

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.threads.add(threading.get_ident())
        time.sleep(0.001)  # long enough for another thread to come in
        self.inside -= 1
        return Image.fromarray(self.pixels[index]), index % 2


def test_objects_are_read_on_one_thread():
    given = Seeking()
    images = as_domain(given, "mine").images
    found = store_pixels(images, "mine", 8).rows
    assert (found == given.pixels).all()
    list(decode(images, 8))
    assert (given.most, given.threads) == (1, {threading.get_ident()})


def test_every_way_reads_objects_on_one_thread(tiny_run):
    given = Seeking(24)
    biwaa.adapt(given, Seeking(24).pixels[:23], recipe=TINY.replace("test", steps=4), verbose=False)
    biwaa.load(tiny_run).predict(given)
    assert (given.most, given.threads) == (1, {threading.get_ident()})


def test_a_transform_of_a_hub_data_set_runs_on_one_thread(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_images(tmp_path / "x", {"cat": 40})
    paths = sorted(map(str, (tmp_path / "x").rglob("*.png")))
    table = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    assert as_domain(table, "t").images.threads
    threads = set()
    table.set_transform(lambda batch: threads.add(threading.get_ident()) or batch)
    images = as_domain(table, "t").images
    rows = list(decode(images, 8))
    assert len(rows) == 40
    assert threads == {threading.get_ident()}
    assert not images.threads


def test_files_are_still_read_on_all_threads(tmp_path, monkeypatch):
    write_images(tmp_path / "x", {"cat": 40})
    threads = set()
    read = FileImages.read

    def noted(self, index, least=0):
        threads.add(threading.get_ident())
        time.sleep(0.001)
        return read(self, index, least)

    monkeypatch.setattr(FileImages, "read", noted)
    list(decode(FileImages(tuple(sorted((tmp_path / "x").rglob("*.png")))), 8))
    assert threading.get_ident() not in threads
    assert len(threads) == min(os.cpu_count() or 1, 40)


@pytest.mark.parametrize("way", ["no folder can be made", "it cannot be written to", "no home"])
def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path, monkeypatch, way):
    pair = [write_images(tmp_path / name, {"cat": 8, "dog": 8}, seed=seed) for seed, name in enumerate("st")]
    monkeypatch.delenv("BIWAA_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    if way == "no folder can be made":
        home.write_text("a file where the home folder should be")
    elif way == "no home":
        monkeypatch.setattr("pathlib.Path.expanduser", lambda path: raising(RuntimeError("no home")))
    else:
        (home / ".cache" / "biwaa").mkdir(parents=True)
        monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(home)))
    refused(train(*pair, tmp_path / "run"), "set BIWAA_CACHE to a folder")
    if way == "no home":  # the way out is the same for all
        monkeypatch.setenv("BIWAA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("pathlib.Path.expanduser", lambda path: path)
        done = train(*pair, tmp_path / "run")
        assert done.returncode == 0, done.stderr


def raising(error):
    raise error


def test_a_full_shared_cache_may_be_one_to_read_only(tmp_path, monkeypatch):
    images = FileImages(tuple(sorted(write_images(tmp_path / "x", {"cat": 2}).rglob("*.png"))))
    first = store_pixels(images, "x", 8)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert (store_pixels(images, "x", 8).rows == first.rows).all()
