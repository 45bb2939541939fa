"""Every form of a domain, every kind of image, and pixels that are decoded once."""

import io
import json
import threading

import numpy as np
import pytest
import torch
from conftest import write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F2

from biwaa.cli import main
from biwaa.domains.classes import match_classes
from biwaa.domains.domain import drop_unreadable
from biwaa.domains.labels import MISSING
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.images.augment import Transform, one_by_one, random_boxes, resample
from biwaa.images.batches import ReadAhead
from biwaa.images.decoding import decoded
from biwaa.images.store import pixel_batches, store_pixels


def test_class_folders_sort_by_the_alphabet_whatever_the_case(tmp_path):
    write_images(tmp_path, {"bike": 2, "Apple": 1, "cup": 3})
    domain = open_domain(str(tmp_path))
    assert domain.classes == ("Apple", "bike", "cup")
    assert domain.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert domain.counts() == {"Apple": 1, "bike": 2, "cup": 3}


def test_bare_folder_has_no_labels(tmp_path):
    write_images(tmp_path, {"x": 3})
    domain = open_domain(str(tmp_path / "x"))
    assert domain.labels is None
    assert len(domain.images) == 3


def test_list_file_with_root_spaces_and_names_from_folders(tmp_path):
    root = write_images(tmp_path / "my images", {"a cat": 2, "dog": 1})
    listing = tmp_path / "list.txt"
    listing.write_text("a cat/0.png 1\n\na cat/1.png\t1\ndog/0.png 0\n")
    domain = open_domain(f"{listing}@{root}")
    assert domain.classes == ("dog", "a cat")
    assert domain.labels.tolist() == [1, 1, 0]
    assert [path.name for path in domain.images.paths] == ["0.png", "1.png", "0.png"]


def test_list_file_names_classes_by_number_where_folders_do_not_tell(tmp_path):
    root = write_images(tmp_path / "r", {"all": 3})
    (root / "list.txt").write_text("all/0.png 0\nall/1.png 1\nall/2.png 1\n")
    assert open_domain(str(root / "list.txt")).classes == ("0", "1")
    (root / "bare.txt").write_text("all/0.png\nall/1.png\n")
    assert open_domain(str(root / "bare.txt")).labels is None


@pytest.mark.parametrize("shape", [(5, 9, 7), (5, 9, 7, 1), (5, 9, 7, 3)])
def test_arrays_grey_and_rgb(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", t_x=pixels, t_y=np.array([0, 1, 1, 2, 0]), u_x=pixels)
    domain = open_domain(f"{tmp_path / 'a.npz'}:t")
    assert domain.classes == ("0", "1", "2")
    image = np.asarray(domain.images.read(3))
    assert image.shape == (9, 7, 3)
    assert (image == (pixels[3] if shape[-1] == 3 else pixels[3].reshape(9, 7, 1))).all()
    assert domain.images.names[3] == "t[3]"
    assert open_domain(f"{tmp_path / 'a.npz'}:u").labels is None


def picture(mode):
    """Left half red, right half blue, in any mode."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    return image.convert(mode)


@pytest.mark.parametrize(
    "name, mode, options",
    [
        ("a.jpg", "RGB", {"quality": 95}), ("a.png", "RGB", {}), ("a.webp", "RGB", {"lossless": True}),
        ("a.bmp", "RGB", {}), ("a.PNG", "P", {}), ("cmyk.jpg", "CMYK", {"quality": 95}),
    ],
)  # fmt: skip
def test_formats_and_colour_modes(tmp_path, name, mode, options):
    picture(mode).save(tmp_path / name, **options)
    image = np.asarray(open_domain(str(tmp_path)).images.read(0)).astype(int)
    assert image.shape == (20, 40, 3)
    red, blue = image[10, 8], image[10, 32]
    assert red[0] > 200
    assert red[2] < 60
    assert blue[2] > 200
    assert blue[0] < 60


def test_grey_sixteen_bit_transparent_and_rotated(tmp_path):
    Image.new("L", (8, 8), 77).save(tmp_path / "1_grey.png")
    Image.fromarray(np.full((8, 8), 77 * 256, dtype=np.uint16)).save(tmp_path / "2_deep.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "3_clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    picture("RGB").save(tmp_path / "4_turned.jpg", exif=exif, quality=95)
    images = open_domain(str(tmp_path)).images
    assert [np.asarray(images.read(i)).max() for i in range(3)] == [77, 77, 255]
    turned = np.asarray(images.read(3)).astype(int)
    assert turned.shape == (40, 20, 3)
    assert turned[5, 10, 0] > 200  # red on top
    assert turned[35, 10, 2] > 200


def test_classes_are_matched_by_name(tmp_path):
    write_images(tmp_path / "a", {"x": 1, "y": 2})
    domain = open_domain(str(tmp_path / "a"))
    turned = match_classes(domain, ("y", "x"))
    assert [turned.classes[label] for label in turned.labels] == [domain.classes[label] for label in domain.labels]
    with pytest.raises(BiwaaError, match=r"only in source: z; only in .*: y"):
        match_classes(domain, ("x", "z"))


def test_pixels_are_decoded_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    write_images(tmp_path / "d", {"x": 3, "y": 2})
    domain = open_domain(str(tmp_path / "d"))
    first = store_pixels(domain.images, "d", 16)
    assert first.rows.shape == (5, 16, 16, 3)
    expected = np.asarray(Image.fromarray(domain.images.read(4)).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.abs(first.rows[4].astype(int) - expected).max() <= 2

    def no_decoding(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("biwaa.images.store.decode", no_decoding)
        assert (store_pixels(domain.images, "d", 16).rows == first.rows).all()
    Image.new("RGB", (9, 9), "white").save(tmp_path / "d" / "x" / "0.png")
    assert (store_pixels(domain.images, "d", 16).rows[0] == 255).all()


def test_a_large_jpeg_is_decoded_smaller_but_never_below_what_is_wanted(tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 6, 3), dtype=np.uint8)).resize(
        (400, 600), Image.Resampling.BICUBIC
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth.save(tmp_path / "a.jpg", exif=exif, quality=95)
    smooth.save(tmp_path / "b.png")
    domain = open_domain(str(tmp_path))
    sizes = {least: domain.images.read(0, least).shape[:2] for least in (0, 401, 400, 200, 101, 100, 20)}
    whole, half, quarter = (400, 600), (200, 300), (100, 150)
    assert sizes == {0: whole, 401: whole, 400: whole, 200: half, 101: half, 100: quarter, 20: (50, 75)}
    assert domain.images.read(1, 20).shape == (600, 400, 3)
    exact = np.asarray(Image.fromarray(domain.images.read(0)).resize((90, 90), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(store_pixels(domain.images, "d", 90).rows[0] - exact).mean() < 1


@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)), least=st.sampled_from([0, 1, 3, 8, 20]),
    subsampling=st.sampled_from([0, 1, 2]), progressive=st.booleans(), quality=st.sampled_from([30, 95]),
    seed=st.integers(0, 2**16),
)  # fmt: skip
@settings(max_examples=200)
def test_jpegs_have_the_pixels_that_pillow_gives(size, least, subsampling, progressive, quality, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(
        file, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive
    )
    with Image.open(file) as image:
        if least:
            image.draft(None, (least, least))
        expected = np.asarray(image)
    assert (decoded(file.getvalue(), least) == expected).all()


def test_jpegs_of_other_kinds_and_damaged_ones_are_left_to_pillow():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    for mode in ("L", "CMYK"):
        file = io.BytesIO()
        noise.convert(mode).save(file, "JPEG")
        with Image.open(file) as image:
            assert (decoded(file.getvalue()) == np.asarray(image.convert("RGB"))).all(), mode
    file = io.BytesIO()
    noise.save(file, "JPEG")
    with pytest.raises(OSError, match="truncated"):
        decoded(file.getvalue()[: len(file.getvalue()) // 2])


def test_batches_come_from_the_store_where_it_is_and_from_files_where_not(tmp_path, monkeypatch):
    write_images(tmp_path, {"x": 5})
    domain = open_domain(str(tmp_path))
    decoded = [pixels for pixels, _ in pixel_batches(domain.images, 16, 2)]
    store_pixels(domain.images, "d", 16)
    with monkeypatch.context() as patch:
        patch.setattr("biwaa.images.store.decode", None)
        stored = [pixels for pixels, _ in pixel_batches(domain.images, 16, 2)]
    assert [len(part) for part in stored] == [2, 2, 1]
    assert all(np.array_equal(one, other) for one, other in zip(decoded, stored, strict=True))
    (tmp_path / "x" / "0.png").write_bytes(b"no image")
    assert [list(bad) for _, bad in pixel_batches(domain.images, 16, 2)] == [[0], [], []]


@pytest.mark.parametrize("how", ["crop_flip", "crop", "none"])
@pytest.mark.parametrize("threads", [1, 3])
def test_training_views_are_views_of_the_stored_rows_normalised(how, threads, monkeypatch):
    monkeypatch.setattr("biwaa.images.augment.THREAD_PIXELS", 1)
    transform = Transform(30, 20, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    store = np.random.default_rng(0).integers(0, 256, (9, 30, 30, 3), dtype=np.uint8)
    rows = np.array([7, 0, 7, 3, 8])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        found = transform.training_views(store, rows, how)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.manual_seed(0)
    expected = transform.normalise(transform.augmented(torch.from_numpy(store[rows]).permute(0, 3, 1, 2), how))
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_what_is_expected_is_read_on_another_thread_and_once():
    reads = []

    def fetch(rows):
        reads.append((rows.tolist(), threading.current_thread() is threading.main_thread()))
        return torch.from_numpy(rows)

    ahead = ReadAhead(fetch)
    first, second, third, other = (np.array(rows) for rows in ([1, 2], [3, 4], [5, 6], [7]))
    for rows in (first, second):
        ahead.expect(rows)
    for rows in (first, first, second, other):
        assert ahead(rows).tolist() == rows.tolist()
    assert reads == [([1, 2], False), ([3, 4], False), ([7], True)]
    ahead.expect(third)
    ahead(first)  # of before the last two: no longer held
    assert ([1, 2], True) in reads[3:]


def test_ten_crops_are_four_corners_and_centre_each_also_flipped():
    transform = Transform(8, 4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 10)
    pixels = torch.arange(2 * 3 * 64, dtype=torch.int64).reshape(2, 3, 8, 8).to(torch.uint8)
    views = transform.views(pixels)
    assert views.shape == (10, 2, 3, 4, 4)
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for number, (top, left) in enumerate(corners):
        crop = pixels[:, :, top : top + 4, left : left + 4]
        assert torch.equal(views[number], crop)
        mirrored = pixels.flip(-1)[:, :, top : top + 4, left : left + 4]
        assert torch.equal(views[number + 5], mirrored)


def test_a_box_comes_out_as_torchvision_resizes_it():
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 30, 30), dtype=torch.uint8)
    boxes, flip = random_boxes(40, 30, 0.08), torch.rand(40) < 0.5
    for size in (7, 20, 31):  # smaller than most boxes, between, larger than all but the whole
        found = resample(pixels, boxes, flip, size)
        for image, top, left, height, width, mirrored, view in zip(pixels, *boxes, flip, found, strict=True):
            box = (int(top), int(left), int(height), int(width))
            exact = F2.resized_crop(image.double(), *box, [size, size], antialias=True).float()
            assert torch.allclose(view, exact.flip(-1) if mirrored else exact, atol=1e-3)
        store = pixels.permute(0, 2, 3, 1).numpy()
        rounded = one_by_one(store, np.arange(40), boxes, flip, size)  # 8 bits between the two ways, too
        assert (rounded - found).abs().max() < 1.01


@pytest.mark.parametrize(("side", "least"), [(32, 0.08), (20, 0.5), (60, 0.9)])
def test_boxes_are_distributed_as_torchvision_draws_them(side, least):
    torch.manual_seed(1)
    ours = torch.stack(random_boxes(6000, side, least)).double()
    image = torch.zeros(1, side, side)
    drawn = [RandomResizedCrop.get_params(image, [least, 1.0], [3 / 4, 4 / 3]) for _ in range(6000)]
    theirs = torch.tensor(drawn).double().T
    for boxes in (ours, theirs):
        boxes[:2] = (boxes[:2] + 0.5) / (side - boxes[2:] + 1)  # where it lies in what room it has
    for mine, other in zip(ours, theirs, strict=True):
        assert ks_2samp(mine.numpy(), other.numpy()).statistic < 0.035  # by chance alone in 0.1 % of such pairs


def test_augmentation_and_normalisation():
    transform = Transform(8, 4, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(transform.augmented(pixels, "none"), pixels[:, :, 2:6, 2:6])
    torch.manual_seed(0)
    random = transform.augmented(pixels, "crop_flip")
    assert random.shape == (3, 3, 4, 4)
    torch.manual_seed(0)
    assert torch.equal(transform.augmented(pixels, "crop_flip"), random)
    white = transform.normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    assert white[0, :, 0, 0].tolist() == [1.0, 3.0, 1.0]


def test_features_in_an_archive(tmp_path, capsys):
    """Floating rows are features of the same values whatever their width; classes by the archive's names."""
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(30, 5)).astype(np.float16), np.arange(30) % 3
    rows[:, 2] = 1  # a constant column
    rows[4] = 0  # a row without length
    file = tmp_path / "rows.npz"
    names = np.array(["cat", "dog", "eel"])
    kinds = {f"{kind}_x": rows.astype(kind) for kind in ("float16", "float32", "float64")}
    np.savez(file, **kinds, float32_y=labels, classes=names)
    found = open_domain(f"{file}:float32")
    assert found.classes == ("cat", "dog", "eel")
    assert found.images.names[7] == "float32[7]"
    for kind in ("float16", "float64"):
        other = open_domain(f"{file}:{kind}")
        assert other.labels is None
        assert other.images.fingerprint() == found.images.fingerprint()
    assert main(["check", f"{file}:float32"]) == 0
    told = capsys.readouterr()
    assert "30 rows of 5 features, 3 classes\n  cat      10" in told.out
    assert "reading" not in told.err
    assert main(["check", f"{file}:float32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["features"] == 5


def test_names_of_classes_in_an_archive(tmp_path):
    pixels, labels = np.zeros((4, 3, 3), np.uint8), np.array([0, 1, 1, 0])
    for names, classes in ((["cat", "dog"], ("cat", "dog")), ([7, 8], ("0", "1"))):
        np.savez(tmp_path / "a.npz", a_x=pixels, a_y=labels, classes=np.array(names))
        assert open_domain(f"{tmp_path}/a.npz:a").classes == classes
    for names, told in ((["cat"], "a_y has label 1, out of range"), (["cat", "cat"], "classes has a name twice")):
        np.savez(tmp_path / "a.npz", a_x=pixels, a_y=labels, classes=np.array(names))
        with pytest.raises(BiwaaError, match=told):
            open_domain(f"{tmp_path}/a.npz:a")


def test_a_table_of_paths_and_labels(tmp_path):
    """An empty label is a missing one; what is wrong is named with its line."""
    write_images(tmp_path / "images", {"cat": 2, "Dog": 1})
    table = tmp_path / "table.csv"
    rows = ["images/cat/0.png,cat", "images/Dog/0.png,Dog", "images/cat/1.png,"]
    table.write_text("\n".join(["path,label", *rows]))
    domain = open_domain(str(table))
    assert domain.classes == ("cat", "Dog")
    assert domain.labels.tolist() == [0, 1, MISSING]
    assert domain.unlabelled().tolist() == [2]
    table.write_text("path,label\nimages/cat/0.png,\n")
    assert open_domain(str(table)).labels is None
    for text, said in (("a,b\n1,2\n", "must be called path"), ("path,label\nno.png,cat\n", "line 2: no such image")):
        table.write_text(text)
        with pytest.raises(BiwaaError, match=said):
            open_domain(str(table))


def test_what_is_left_out_is_named_in_part_and_counted(tmp_path, capsys):
    domain = open_domain(str(write_images(tmp_path / "here", {"cat": 5, "dog": 1})))
    left, rows = drop_unreadable(domain, dict.fromkeys(range(5), "empty"), skip=True)
    assert (len(left.images), rows.tolist()) == (1, [5])
    told = capsys.readouterr().err
    assert "left out 5 unreadable images in" in told
    assert told.endswith("1.png and 3 more (empty)\n")
    reasons = {row: f"reason {row}" for row in range(5)}
    with pytest.raises(BiwaaError, match=r"\(reason 2\); and 2 more. Fix or remove them, or pass --skip-unreadable"):
        drop_unreadable(domain, reasons, skip=False)
