"""Every entry of the catalogue, on a miniature in the exact layout of its archive; PACS and Office's ten for real."""

import bz2
import dataclasses
import gzip
import re
import struct

import numpy as np
import pytest
import scipy.io
from PIL import Image

from biwaa.cli import main
from biwaa.domains.catalogue import BENCHMARKS, find, open_catalogued
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.images.images import FeatureRows

ON_DISK = [
    (name, number)
    for name, entry in BENCHMARKS.items()
    for number in range(max(len(domain.layouts) for domain in entry.domains.values()))
]


def picture(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level, level, level)).save(path)


def idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()) if path.suffix == ".gz" else head + array.tobytes())


def arrays(classes=10, each=2, side=6):
    """Images whose pixels tell their class, and the classes."""
    labels = np.repeat(np.arange(classes), each)
    return np.broadcast_to((labels * 20)[:, None, None], (len(labels), side, side)).astype(np.uint8), labels


def lay_out(entry, domain, layout, base):
    """Write an image of every class of a domain (two of the first) as `layout` has them; of arrays two each."""
    path, _, rest = layout.partition(":" if ".npz:" in layout else "@")
    file = base / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels, labels = arrays()
    if path.endswith(".npz"):
        there = dict(np.load(file)) if file.exists() else {}
        if entry.features:
            labels = np.repeat(np.arange(len(entry.classes)), 2)
            pixels = np.eye(len(entry.classes), dtype=np.float32)[labels]
            there["classes"] = np.array(entry.classes)
        np.savez(file, **there, **{f"{rest}_x": pixels, f"{rest}_y": labels})
    elif path.endswith(".mat"):
        colour = np.stack([pixels] * 3, axis=-1).transpose(1, 2, 3, 0)
        scipy.io.savemat(file, {"X": colour, "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)})
    elif path.endswith(".bz2"):
        pixels, labels = arrays(side=16)
        rows = [
            f"{label + 1} " + " ".join(f"{i + 1}:{v:.4f}" for i, v in enumerate(image.ravel() / 255 * 2 - 1))
            for image, label in zip(pixels, labels, strict=True)
        ]
        file.write_bytes(bz2.compress("\n".join(rows).encode()))
    elif "idx3" in path:
        idx(file, pixels)
        idx(file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1")), labels.astype(np.uint8))
    elif path.endswith(".txt"):
        lines = []
        split = "test" if domain.endswith("/test") else "train"
        for number, name in enumerate(entry.classes):
            for index in range(1 + (number == 0)):
                image = f"{split}{index}_{number}.png"
                inside = image if entry.list_labels else f"{domain.split('/')[0]}/{name}/{image}"
                picture(base / rest / inside, number)
                lines.append(f"{inside} {number}")
        file.write_text("\n".join(lines) + "\n")
    else:
        for number, name in enumerate(entry.classes):
            for index in range(1 + (number == 0)):
                picture(file / name / f"frame_{index}.png", number)


@pytest.mark.parametrize("name,number", ON_DISK)
def test_every_layout_of_every_benchmark(name, number, tmp_path):
    entry = BENCHMARKS[name]
    for folder in dict.fromkeys([entry.folders[0], entry.folders[-1]]):
        root = tmp_path / folder.replace("/", "_")
        # Of the largest, whose domains are alike, some prove a layout.
        domains = (
            list(entry.domains.items())
            if len(entry.classes) < 300
            else list(entry.domains.items())[:: 12 if number else 5]
        )
        for domain, facts in domains:
            if number < len(facts.layouts) and facts.layouts[number] != "bundled":
                lay_out(entry, domain, facts.layouts[number], root / folder)
        for domain, facts in domains:
            if number >= len(facts.layouts) or facts.layouts[number] == "bundled":
                continue
            found = open_domain(f"{name}:{domain}", root)
            assert found.classes == entry.classes
            counts = list(found.counts().values())
            assert set(counts) in ({1, 2}, {2})
            for index in () if entry.features else (0, len(found.images) - 1):
                level = np.asarray(found.images.read(index)).mean()
                step = 20 if len(entry.classes) == 10 and ".txt" not in facts.layouts[number] else 1
                if facts.layouts[number].rsplit("/")[-1] not in ("train", "test") and name == "digits":
                    assert level == pytest.approx(step * found.labels[index], abs=1)
            assert isinstance(found.images, FeatureRows) == entry.features
            if facts.images:
                assert main(["check", f"{name}:{domain}", "--data-root", str(root)]) == 2


def test_facts_agree_with_each_other():
    for entry in BENCHMARKS.values():
        assert len(set(entry.classes)) == len(entry.classes)
        assert all(entry.class_of(name) == name for name in entry.classes)
        for facts in entry.domains.values():
            if facts.counts:
                assert len(facts.counts) == len(entry.classes)
                assert sum(facts.counts) == facts.images
        for task in entry.tasks:
            source, target = entry.task(task)
            assert entry.task_name(source, target) == task
            assert entry.task(f"{source}>{target}") == (source, target)
    office, home, forty = BENCHMARKS["office31"], BENCHMARKS["office_home"], BENCHMARKS["domainnet40"]
    assert [(min(d.counts), max(d.counts)) for d in office.domains.values()] == [(36, 100), (11, 43), (7, 31)]
    assert [(min(d.counts), max(d.counts)) for d in home.domains.values()] == [(15, 99), (39, 99), (38, 99), (23, 99)]
    assert list(office.classes) == sorted(office.classes, key=str.casefold)
    assert forty.classes[0] == "airplane"
    assert forty.classes[-1] == "donut"
    assert set(BENCHMARKS["domainnet126"].classes) | set(forty.classes) <= set(BENCHMARKS["domainnet345"].classes)


def test_variants_of_names(tmp_path):
    """Words joined otherwise, other case, known aliases; further classes only where the benchmark is a subset."""
    for name in ("Alarm Clock", "alarm-clock", "ALARM_CLOCK"):
        assert BENCHMARKS["office_home"].class_of(name) == "Alarm_Clock"
    assert BENCHMARKS["office10"].class_of("backpack") == "back_pack"
    for name in [*BENCHMARKS["office10"].classes, "bookcase"]:
        picture(tmp_path / "office31" / "amazon" / "images" / name / "1.jpg")
    assert len(open_domain("office10:amazon", tmp_path).images) == 10
    with pytest.raises(BiwaaError, match=r"lacks 20 of its 31 classes \(bike_helmet"):
        open_domain("office31:amazon", tmp_path)


def test_a_list_decides_which_images_count(tmp_path, capsys):
    """DomainNet's official split, cut to forty classes and in their own order."""
    names = ["donut", "airplane", "zebra"]
    for name in names:
        picture(tmp_path / "domainnet" / "real" / name / "a.jpg")
        picture(tmp_path / "domainnet" / "real" / name / "b.jpg")
    listing = "".join(f"real/{name}/a.jpg {number}\n" for number, name in enumerate(names))
    (tmp_path / "domainnet" / "real_train.txt").write_text(listing + "real/cat/not_there.jpg 7\n")
    found = find(BENCHMARKS["domainnet40"], "real", tmp_path)
    assert sorted(found.labels) == [0, 39]
    assert [path.name for path in found.images.paths] == ["a.jpg", "a.jpg"]
    assert sum(found.counts().values()) == 2
    assert found.absent == (str(tmp_path / "domainnet" / "real" / "cat" / "not_there.jpg"),)
    with pytest.raises(BiwaaError, match="lacks 1 of the images in its list"):
        open_domain("domainnet40:real", tmp_path)
    assert main(["check", "domainnet40:real", "--data-root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "1 images of its list are missing" in said
    assert f"{tmp_path}/domainnet/real_train.txt (or" in said
    assert f"a list with paths from {tmp_path}/domainnet, such as domainnet/real/airplane/" in said


def test_check_says_exactly_what_is_missing(tmp_path, capsys):
    entry = BENCHMARKS["office31"]
    counts = dict(zip(entry.classes, entry.domains["dslr"].counts, strict=True))
    for name, count in counts.items():
        for index in range(count - (name == "mug")):
            if name != "bike":
                path = tmp_path / "office31" / "dslr" / "images" / name / f"{index}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
    assert main(["check", "office31:dslr", "--data-root", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"back_pack +12\n", out)
    assert "<- missing" in out
    assert f"<- {counts['mug']} expected" in out
    assert f"bike has 0 images instead of {counts['bike']}, mug has 7 images instead of 8" in err
    assert "office31/dslr/images" in err
    assert main(["check", "office31", "--data-root", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "amazon  missing" in out
    assert "tasks that can run: none" in out
    assert "It should be in" in err


def test_unknown_names_list_what_there_is(capsys):
    for words, said in (
        (["check", "nope:amazon"], "no benchmark is called 'nope': there are digits, domainnet126"),
        (["check", "offce31:amazon"], "did you mean 'office31'? There are digits"),
        (["check", "office31:mars"], "no domain 'mars' in office31: there are amazon, webcam, dslr"),
        (["train", "--source", "office31", "--target", "x", "--out", "y"], "office31 is a whole benchmark"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


def test_official_digit_archives_that_are_damaged(tmp_path):
    (tmp_path / "svhn").mkdir()
    for name, content in (("svhn/train_32x32.mat", b"no"), ("usps.bz2", b"no")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BiwaaError, match="is not readable as digits:"):
            open_domain(f"digits:{name.split('/')[0].split('.')[0]}", tmp_path)


def test_check_says_where_no_count_is_known(tmp_path, capsys):
    for name in BENCHMARKS["domainnet126"].classes:
        picture(tmp_path / "domainnet126" / "real" / name / "1.jpg")
    assert main(["check", "domainnet126:real", "--data-root", str(tmp_path)]) == 0
    assert "no count of the benchmark could be verified, 126 images" in capsys.readouterr().out


def test_a_whole_benchmark_of_other_counts_is_not_the_benchmark(tmp_path, capsys):
    for domain in BENCHMARKS["pacs"].domains:
        lay_out(BENCHMARKS["pacs"], domain, domain, tmp_path / "pacs")
    assert main(["check", "pacs", "--data-root", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "tasks that can run: A2C" in out
    assert "differ from the benchmark" in err


def test_arrays_without_labels_are_no_benchmark(tmp_path):
    np.savez(tmp_path / "digits.npz", mnist_train_x=arrays()[0])
    with pytest.raises(BiwaaError, match="has no labels, and a benchmark's domain needs them"):
        open_domain("digits:mnist", tmp_path)


def test_bundled_digits_need_nothing():
    plain, photographs = open_domain("digits:plain"), open_domain("digits:photographs")
    assert (len(plain.images), len(photographs.images)) == (898, 899)
    assert plain.classes == photographs.classes == tuple("0123456789")
    assert not np.array_equal(plain.images.array[0], np.asarray(photographs.images.array[0])[..., 0])
    painted = open_domain("digits:painted")
    assert np.array_equal(painted.labels, photographs.labels)
    assert 90 < np.asarray(painted.images.array)[:, :3].mean() < 120  # above the digits, brought to one brightness


def test_a_class_that_the_benchmark_lacks_may_be_missing(tmp_path, monkeypatch):
    entry = BENCHMARKS["pacs"]
    domains = {**entry.domains, "photo": dataclasses.replace(entry.domains["photo"], lacks=("dog",))}
    monkeypatch.setitem(BENCHMARKS._entries, "pacs", dataclasses.replace(entry, domains=domains))
    for name in entry.classes[1:]:
        picture(tmp_path / "pacs" / "photo" / name / "1.jpg")
        picture(tmp_path / "pacs" / "sketch" / name / "1.jpg")
    assert open_catalogued("pacs", "photo", tmp_path).counts()["dog"] == 0
    with pytest.raises(BiwaaError, match=r"lacks 1 of its 7 classes \(dog\)"):
        open_catalogued("pacs", "sketch", tmp_path)


def test_real_benchmarks(data_root, capsys):
    assert main(["check", "pacs", "--data-root", str(data_root)]) == 0
    assert "tasks that can run: A2C A2P A2S C2A C2P C2S P2A P2C P2S S2A S2C S2P" in capsys.readouterr().out
    assert main(["check", "office10", "--data-root", str(data_root)]) == 0
    assert main(["check", "office10:dslr", "--data-root", str(data_root)]) == 0
    assert "office10:dslr: as in the benchmark, 157 images in 10 classes" in capsys.readouterr().out
    assert open_domain("digits:usps/test", data_root).counts()["0"] == 359
    for name, told in (
        ("satellite", "aid     3210 images"),
        ("office_home_clip", "art         2427 rows of 65 features"),
    ):
        assert main(["check", name, "--data-root", str(data_root)]) == 0
        assert told in capsys.readouterr().out
