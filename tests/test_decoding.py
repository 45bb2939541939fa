"""Files as other programs write them: deep grey, odd metadata, no end, no image at all."""

import csv
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import putchunk

from biwaa.cli import main
from biwaa.images.decoding import decoded, to_rgb
from biwaa.images.images import FileImages
from biwaa.images.store import decode
from biwaa.images.unreadable import UnreadableError, reason

GREY = np.array([[0, 100, 123, 255]])


def saved(array, kind="TIFF", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def tiff(values, kind, bits, samples, photometric=1, order="<"):
    """A TIFF of one row of grey, tag by tag, for what Pillow does not write."""
    data = np.asarray(values, np.dtype(kind).newbyteorder(order)).tobytes()
    tags = [(256, np.size(values)), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1),
            (279, len(data)), (339, samples)]  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def twelve_bits(values):
    """12 bits a value, packed, as some cameras write them."""
    bits = "".join(f"{int(value):012b}" for value in np.ravel(values))
    return np.packbits(np.array(list(bits), np.uint8)).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        saved(GREY.astype(np.uint8)), saved((GREY * 257).astype(np.uint16)), saved((GREY * 256).astype(np.uint16)),
        saved((GREY * 257).astype(np.uint16), compression="tiff_lzw"), saved((GREY * 257).astype(np.uint16), "PNG"),
        saved((GREY * 257).astype(np.uint16), "PPM"), saved((GREY * 16).astype(np.uint16), tiffinfo={281: 4095}),
        saved((65535 - GREY * 257).astype(np.uint16), tiffinfo={262: 0}), saved((GREY / 255).astype(np.float32)),
        saved((1 - GREY / 255).astype(np.float32), tiffinfo={262: 0}), tiff(GREY * 257, "u2", 16, 1, order=">"),
        saved((GREY / 255).astype(np.float32), compression="tiff_deflate"), tiff(GREY / 255, "f4", 32, 3, order=">"),
        tiff(GREY * 16843009, "u4", 32, 1), tiff(255 - GREY, "u1", 8, 1, photometric=0),
        tiff(np.frombuffer(twelve_bits(GREY * 16), np.uint8), "u1", 12, 1).replace(
            struct.pack("<HHII", 256, 4, 1, 6), struct.pack("<HHII", 256, 4, 1, 4)),
        b"P5 4 1 4095\n" + (GREY * 16).astype(">u2").tobytes(), b"Pf 4 1 -1.0\n" + (GREY / 255).astype("<f4").tobytes(),
    ],
)  # fmt: skip
def test_grey_of_any_depth_is_the_same_grey(data):
    found = decoded(data)
    assert found.shape == (1, 4, 3)
    assert found[0, :, 0].tolist() == found[0, :, 2].tolist() == GREY[0].tolist()


@pytest.mark.parametrize(
    "data, message",
    [
        (saved(GREY.astype(np.int32)), "signed integers"), (saved((GREY - 200).astype(np.int32)), "signed integers"),
        (tiff(GREY, "i2", 16, 2), "signed integers"), (tiff(GREY, "i1", 8, 2), "signed integers"),
        (saved(GREY.astype(np.float32)), "floats go from 0 to 255"),
        (saved((GREY / 255 - 0.5).astype(np.float32)), "floats go from -0.5 to 0.5"),
        (saved((GREY * np.nan).astype(np.float32)), "floats go from nan to nan"),
        (saved((GREY * 16).astype(np.uint16)), "use 12 at most"),
        (saved((GREY * 16).astype(np.uint16), "PNG"), "use 12 at most"),
        (tiff(GREY / 255, "f8", 64, 3), "a TIFF that is damaged or of a kind that is not read"),
    ],
)  # fmt: skip
def test_grey_without_a_known_white_is_refused_by_name(data, message):
    with pytest.raises(UnreadableError, match=message):
        decoded(data)


def test_deep_pictures_in_memory():
    grey = GREY[0].tolist()
    assert to_rgb(Image.fromarray((GREY * 257).astype(np.uint16)))[0, :, 1].tolist() == grey
    assert to_rgb(Image.fromarray((GREY / 255).astype(np.float32)))[0, :, 1].tolist() == grey
    with pytest.raises(UnreadableError, match="which of its 32-bit integers is white"):
        to_rgb(Image.fromarray(GREY.astype(np.int32)))


@pytest.mark.parametrize("shift", [0, 4])
def test_colours_of_12_bits_in_16(shift):
    """In the upper bits they are what they are; in the lower ones nobody can tell."""
    pixels = np.random.default_rng(0).integers(0, 4096, (4, 4, 3))
    rows = b"".join(b"\0" + row.tobytes() for row in (pixels << shift).astype(">u2"))
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for name, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    ):  # fmt: skip
        putchunk(file, name, data)
    if shift:
        assert (decoded(file.getvalue()) == pixels >> 4).all()
    else:
        with pytest.raises(UnreadableError, match="use 12 at most"):
            decoded(file.getvalue())


# --- metadata ---------------------------------------------------------------------------------------------------------


def exif(*entries, tail=b""):
    """(tag, type, count, value) as EXIF."""
    body = b"".join(struct.pack("<HHI4s", tag, kind, count, value) for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + tail


TURNED = (0x0112, 3, 1, b"\6\0\0\0")
BROKEN = {
    "tags of other types": exif(TURNED, (0x010E, 3, 1, b"\6\0\0\0"), (0x0128, 7, 4, b"abcd"), (0x8825, 2, 4, b"abcd")),
    "tags beyond the end": exif(TURNED, (0x0132, 5, 1, b"\0\xff\0\0"), (0x8769, 4, 1, b"\0\xff\0\0")),
    "a rational over zero": exif(TURNED, (0x011A, 5, 1, struct.pack("<I", 38)), tail=struct.pack("<II", 6, 0)),
    "cut": exif(TURNED, (0x010E, 2, 90, b"\0\0\0\0"))[:33],
    "a folder that leads to itself": exif(TURNED, (0x8769, 4, 1, b"\x08\0\0\0")),
}
NO_TURN = {
    "text": exif((0x0112, 2, 2, b"6\0\0\0")), "out of range": exif((0x0112, 3, 1, b"\x58\2\0\0")),
    "an unknown type": exif((0x0112, 99, 1, b"\6\0\0\0")), "garbage": b"Exif\0\0garbage", "empty": b"Exif\0\0",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_never_cost_the_pixels(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decoded(saved(pixels, kind, **options))
    for name, data in (BROKEN | NO_TURN).items():
        expected = np.rot90(plain, -1) if name in BROKEN else plain
        assert np.array_equal(decoded(saved(pixels, kind, exif=data, **options)), expected), name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_those_of_pillow(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    data = saved(pixels, "PNG", exif=exif((0x0112, 3, 1, bytes([orientation, 0, 0, 0]))))
    assert np.array_equal(decoded(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_libraries_do_not_write_to_standard_error(tmp_path):
    """Warnings about metadata, which name folders of the installation, and those about many pixels."""
    pixels = np.full((16, 24, 3), 99, np.uint8)
    for number, data in enumerate(BROKEN.values()):
        for kind in ("JPEG", "PNG", "WEBP"):
            (tmp_path / f"{number}.{kind.lower()}").write_bytes(saved(pixels, kind, exif=data))
    whole = saved(pixels, "TIFF", compression="tiff_deflate")
    (tmp_path / "cut.tiff").write_bytes(whole[:200] + bytes(100) + whole[300:])
    code = """
import sys
from pathlib import Path
from PIL import Image
from biwaa.images.decoding import decoded
Image.MAX_IMAGE_PIXELS = 300
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print(file.name, decoded(file.read_bytes()).shape)
    except Exception:
        print(file.name)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("(24, 16, 3)") == 15


# --- what is not whole, and what is no image --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("least", [0, 20])
def test_a_jpeg_without_its_end_marker_has_all_its_pixels(mode, progressive, least):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, "JPEG", progressive=progressive)
    whole = file.getvalue()
    assert np.array_equal(decoded(whole[:-2], least), decoded(whole, least))
    for cut in (6, 50, len(whole) // 2):
        with pytest.raises(OSError, match="truncated"):
            decoded(whole[:-cut], least)


def test_pillow_may_be_told_to_read_what_there_is_of_a_file(monkeypatch):
    whole = saved(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert decoded(whole[: -(len(whole) // 8)]).shape == (40, 60, 3)


def test_large_images_are_reduced_one_at_a_time(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    data = saved(pixels, "PNG")
    monkeypatch.setattr("biwaa.images.decoding.MANY_PIXELS", 1000)
    assert np.array_equal(decoded(data), pixels)
    assert np.array_equal(decoded(data, 21), pixels)
    half = pixels.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert np.abs(decoded(data, 20) - half).max() <= 0.5
    inside = []

    class Counting:
        def __enter__(self):
            inside.append(1)

        def __exit__(self, *_):
            inside.append(-1)

    monkeypatch.setattr("biwaa.images.decoding._one_large", Counting())
    decoded(data, 20)
    decoded(saved(pixels[:20, :20], "PNG"), 20)
    assert inside == [1, -1]


def test_a_photograph_of_108_megapixels(monkeypatch):
    file = io.BytesIO()
    Image.new("L", (12000, 9000), 99).save(file, "JPEG")
    assert (decoded(file.getvalue(), 64) == 99).all()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**7)
    with pytest.raises(UnreadableError, match="more than 20 million pixels"):
        decoded(file.getvalue(), 64)


NO_IMAGES = {
    "empty.jpg": (b"", "the file is empty"),
    "page.jpg": (b"\n<!DOCTYPE html>\n<html>", "an HTML page in the place of the image"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "a Git LFS pointer"),
    "drawing.png": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
    "text.png": (b"no image", "not an image of a format that is read"),
    "zero.png": (bytes(500), "nothing but zero bytes"),
}


def test_what_is_no_image_is_named_in_the_table_and_twice_alike(tiny_run, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, (data, _) in NO_IMAGES.items():
        (folder / name).write_bytes(data)
    tables = []
    for number in range(2):  # nothing can be predicted, so the command fails, but its table says why
        assert main(["predict", str(tiny_run), str(folder), "--out", str(tmp_path / f"{number}.csv")]) == 2
        tables.append((tmp_path / f"{number}.csv").read_text())
    assert tables[0] == tables[1]
    assert "0x" not in tables[0]
    rows = list(csv.DictReader(io.StringIO(tables[0])))
    assert [Path(row["path"]).name for row in rows] == sorted(NO_IMAGES)
    for row in rows:
        assert row["error"].startswith(NO_IMAGES[Path(row["path"]).name][1])
    capsys.readouterr()
    assert main(["check", str(folder)]) == 2
    assert "drawing.png (an SVG drawing, not pixels: export it as PNG)" in capsys.readouterr().err


def test_reasons_have_no_addresses():
    class Thing:
        pass

    assert reason(ValueError(f"no picture in {Thing()}")).endswith("Thing>")
    assert "0x" not in reason(ValueError(f"no picture in {[Thing(), io.BytesIO()]}"))
    (row,) = decode(FileImages((Path("nowhere.png"),)), 8)
    assert row == "FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.png'"
