"""Domains from files: a folder of class folders, a folder of images, a list, arrays.

Nothing is decoded here; all that can be wrong with names, labels and files is reported here.
A benchmark of the catalogue is opened by the same functions with `class_of`, from a folder's name to the class (None:
not one of the benchmark's). Missing images and classes are then no errors here: the catalogue reports them.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING, LabelKind
from biwaa.domains.listing import LOOKED_FOR, exists, images_below, is_image, list_lines
from biwaa.errors import BiwaaError, listed
from biwaa.images.images import ArrayImages, FeatureRows, FileImages, Images, are_pixels, squeezed

ClassOf = Callable[[str], str | None]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def open_folder(spec: str, folder: Path, class_of: ClassOf | None = None) -> Domain:
    """A folder of class folders, or of bare images, which have no labels.

    Raises:
        BiwaaError: no image; class folders mixed with images; or, without `class_of`, an empty class folder.
    """
    entries = _visible(folder)
    bare = [path for path in entries if is_image(path)]
    # Benchmarks number their classes by the alphabet, regardless of case.
    folders = sorted((path for path in entries if path.is_dir()), key=lambda path: (path.name.casefold(), path.name))
    if class_of:
        folders = [path for path in folders if class_of(path.name)]
        bare = []
    if not folders:
        if not bare:
            raise BiwaaError(f"no images in {spec} ({LOOKED_FOR}).")
        return Domain(spec, FileImages(tuple(bare)))
    if bare:
        raise BiwaaError(
            f"{spec} has class folders and also images without a class ({listed([path.name for path in bare], 3)}): "
            "move those images away or into a class folder."
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(folders):
        found = list(images_below(name))
        if not found and not class_of:
            raise BiwaaError(f"no image in class folder {name}: add images or remove the folder.")
        files += found
        labels += [label] * len(found)
    classes = tuple((class_of(path.name) or "") if class_of else path.name for path in folders)
    return Domain(spec, FileImages(tuple(files)), classes, np.array(labels, dtype=np.int64))


def open_list(spec: str, file: Path, root: Path, class_of: ClassOf | None = None) -> Domain:
    """A list of `PATH LABEL` lines, or of paths alone.

    Args:
        spec: for messages.
        file: the list.
        root: the folder that its paths start from.
        class_of: see the module.

    Raises:
        BiwaaError: no list, a line without a label, labels with gaps; or, without `class_of`, a missing image.
    """
    try:
        with file.open(encoding="utf-8-sig") as opened:
            lines = list(list_lines(opened))
    except OSError as error:
        raise BiwaaError(f"no such list file: {file} ({error.strerror}).") from None
    except ValueError:
        raise BiwaaError(f"{file} is not a text file in UTF-8.") from None
    if not lines:
        raise BiwaaError(f"{file} is empty: it needs a line `PATH LABEL` for each image.")
    unlabelled = [line for line in lines if line.label is None]
    if unlabelled and len(unlabelled) < len(lines):
        number, text = unlabelled[0].number, unlabelled[0].text[:200]
        raise BiwaaError(f"{file}, line {number}: no label after the path in {text!r}; write `PATH LABEL`.")
    paths = [root / line.path for line in lines]
    if class_of:
        return _listed_classes(spec, paths, class_of)
    for line, path in zip(lines, paths, strict=True):
        if not exists(path):
            words = str(path).rsplit(maxsplit=1)
            if len(words) == 2 and exists(Path(words[0])):
                raise BiwaaError(
                    f"{file}, line {line.number}: the label {words[1][:200]!r} is not a whole number from 0 up."
                )
            hint = "" if "@" in spec else f" Name the folder that paths start from with {spec}@ROOT."
            raise BiwaaError(f"{file}, line {line.number}: no such image: {str(path)[:500]}.{hint}")
    images = FileImages(tuple(paths))
    if unlabelled:
        return Domain(spec, images)
    numbers: list[int] = []
    for line in lines:
        digits = str(line.label)
        label = int(digits) if len(digits) < 20 else len(lines)
        if not MISSING <= label < len(lines):
            raise BiwaaError(
                f"{file}, line {line.number}: label {digits[:40]} is out of range; labels count from 0, and -1 is a "
                "missing one."
            )
        numbers.append(label)
    labels = np.array(numbers, dtype=np.int64)
    if (labels == MISSING).all():
        return Domain(spec, images)
    classes = _list_classes(file, paths, labels)
    kind: LabelKind = "integer" if classes == tuple(str(label) for label in range(len(classes))) else "text"
    return Domain(spec, images, classes, labels, label_kind=kind)


def _listed_classes(spec: str, paths: list[Path], class_of: ClassOf) -> Domain:
    """The images that are there, with classes by their folders' names; the others are the domain's `absent`."""
    of_benchmark = [(path, name) for path in paths if (name := class_of(path.parent.name))]
    found = [(path, name) for path, name in of_benchmark if exists(path)]
    absent = {path for path, _ in of_benchmark} - {path for path, _ in found}
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for _, name in found))}
    labels = np.array([numbers[name] for _, name in found], dtype=np.int64)
    missing = tuple(sorted(map(str, absent)))
    return Domain(spec, FileImages(tuple(path for path, _ in found)), tuple(numbers), labels, absent=missing)


def _list_classes(file: Path, paths: list[Path], labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Names of a list's classes: the images' folders if each label has its own folder, otherwise the numbers."""
    total = int(labels.max()) + 1
    known = [(label, path.parent.name) for label, path in zip(labels.tolist(), paths, strict=True) if label != MISSING]
    absent = sorted(set(range(total)) - {label for label, _ in known})
    if absent and len(known) == len(labels):
        names = listed([str(label) for label in absent])
        raise BiwaaError(f"{file}: no image has label {names}, though labels go up to {total - 1} (out of range?).")
    pairs = Counter(known)
    if len(pairs) == total and len({name for _, name in pairs}) == total:
        return tuple(name for _, name in sorted(pairs))
    return tuple(str(label) for label in range(total))


def array_names(file: Path) -> list[str]:
    """NAME of every NAME_x in an .npz file; empty for any other file."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return sorted(key[:-2] for key in archive if key.endswith("_x"))
    except Exception:  # the readers raise any kind
        return []


def open_arrays(spec: str, file: Path, name: str) -> Domain:
    """Arrays NAME_x and, if there are labels, NAME_y of an .npz file.

    The classes are called as its array `classes` says, where that holds names, and by their numbers otherwise.

    Raises:
        BiwaaError: no such arrays, or arrays of the wrong type or shape.
    """
    if not file.is_file():
        raise BiwaaError(f"no such file: {file}.")
    try:
        with np.load(file, allow_pickle=False) as archive:
            if f"{name}_x" not in archive:
                names = listed(array_names(file)) or "none that ends in _x"
                raise BiwaaError(f"{file} has no array {name}_x; it has {names}.")
            pixels = archive[f"{name}_x"]
            labels = archive.get(f"{name}_y")
            names = archive.get("classes")
        if not all(isinstance(part, np.ndarray) for part in (pixels, labels, names) if part is not None):
            raise ValueError("a member is not an array")
    except BiwaaError:
        raise
    except Exception as error:  # a damaged archive makes its readers raise any kind; false sizes, MemoryError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BiwaaError(f"{file} is not readable as arrays: {reason}.") from None
    return array_domain(spec, str(file), name, pixels, labels, names)


def array_domain(
    spec: str,
    file: str,
    name: str,
    array: NDArray[Any],
    labels: NDArray[np.int64] | None,
    names: NDArray[Any] | None = None,
) -> Domain:
    """An array of images or of features and their (N,) labels, from 0, as a domain.

    Args:
        spec: for messages.
        file: likewise.
        name: likewise.
        array: (N, H, W) grey or (N, H, W, 3) RGB uint8 pixels, or (N, F) floating features.
        labels: of the rows, if there are any; -1 where one is missing.
        names: (K,) of the classes; anything but text is not used.

    Raises:
        BiwaaError: wrong type or shape, or features that are not finite; the message names `file` and `name`.
    """
    images = _array_images(file, name, squeezed(array))
    if labels is None:
        return Domain(spec, images)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise BiwaaError(f"{file}: {name}_y must be {len(images)} whole numbers, not {labels.dtype} {labels.shape}.")
    classes = None if names is None or names.dtype.kind != "U" else tuple(names.ravel().tolist())
    if classes and len(set(classes)) < len(classes):
        raise BiwaaError(f"{file}: classes has a name twice; each class needs a name of its own.")
    least, most = int(labels.min()), int(labels.max())
    if least < MISSING or most >= (len(labels) if classes is None else len(classes)):
        raise BiwaaError(f"{file}: {name}_y has label {least if least < MISSING else most}, out of range.")
    if most == MISSING:
        return Domain(spec, images)
    kind: LabelKind = "text" if classes else "integer"
    classes = classes or tuple(str(label) for label in range(most + 1))
    return Domain(spec, images, classes, labels.astype(np.int64), label_kind=kind)


def _array_images(file: str, name: str, array: NDArray[Any]) -> Images:
    if array.ndim == 2 and array.dtype.kind == "f":
        return FeatureRows.of(array, name, f"{file}: {name}_x")  # rows are called by the array alone
    if not are_pixels(array):
        raise BiwaaError(
            f"{file}: {name}_x is {array.dtype} of shape {array.shape}; images must be uint8 from 0 to 255 of shape "
            "(images, height, width) or (images, height, width, 3), features floating of shape (rows, features)."
        )
    if len(array) == 0:
        raise BiwaaError(f"{file}: {name}_x has no image.")
    return ArrayImages(array, name)
