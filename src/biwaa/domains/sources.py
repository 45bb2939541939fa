"""Domains from files: a folder of class folders, a folder of images, arrays; lists are in `lists`.

Nothing is decoded here; all that can be wrong with names, labels and files is reported here.
A benchmark of the catalogue is opened by the same functions with `class_of`, from a folder's name to the class (None:
not one of the benchmark's). Missing images and classes are then no errors here: the catalogue reports them.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING, LabelKind
from biwaa.domains.listing import LOOKED_FOR, PassedOver, Why, alphabetical, images_below, scan
from biwaa.errors import BiwaaError, listed, one_line
from biwaa.images.images import ArrayImages, FeatureRows, FileImages, Images, are_pixels, squeezed

ClassOf = Callable[[str], str | None]


SPLITS = frozenset(
    {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "evaluation", "heldout", "holdout",
     "unlabeled", "unlabelled"}
)  # fmt: skip
"""Names of folders that are parts of a data set, and no classes."""


def open_folder(spec: str, folder: Path, class_of: ClassOf | None = None) -> Domain:
    """A folder of class folders, or of bare images, which have no labels.

    Raises:
        BiwaaError: no image; class folders mixed with images; a folder that cannot be read; or, without `class_of`, an
            empty class folder, or folders of class folders.
    """
    passed = PassedOver()
    names = scan(folder, passed, follow=True)
    bare = [folder / name for name, is_folder in names.items() if not is_folder]
    # Benchmarks number their classes by the alphabet, regardless of case.
    folders = sorted((folder / name for name in names if names[name]), key=lambda path: alphabetical(path.name))
    if class_of:
        for path in (*bare, *(path for path in folders if not class_of(path.name))):
            passed.add(Why.CLASS, path)
        folders = [path for path in folders if class_of(path.name)]
        bare = []
    if not folders:
        if not bare:
            raise BiwaaError(f"no images in {spec} ({LOOKED_FOR}{_also(passed)}): add images or name another folder.")
        return Domain(spec, FileImages(tuple(bare)), passed_over=passed)
    if bare:
        raise BiwaaError(
            f"{spec} has class folders and also images without a class ({listed([path.name for path in bare], 3)}): "
            "move those images away or into a class folder."
        )
    found = {path: list(images_below(path, passed)) for path in folders}
    if not class_of:
        _check_depth(spec, folder, found)
        for path in (path for path, files in found.items() if not files):
            raise BiwaaError(f"no image in class folder {path}: add images or remove the folder{_also(passed)}.")
    labels = [label for label, files in enumerate(found.values()) for _ in files]
    classes = tuple((class_of(path.name) or "") if class_of else path.name for path in folders)
    images = FileImages(tuple(file for files in found.values() for file in files))
    return Domain(spec, images, classes, np.array(labels, dtype=np.int64), passed_over=passed)


def _also(passed: PassedOver) -> str:
    return f"; passed over {passed}" if passed.counts else ""


def _check_depth(spec: str, folder: Path, found: dict[Path, list[Path]]) -> None:
    """Refuse a folder whose folders are no classes: parts of a data set, or one that holds the class folders.

    Args:
        spec: for messages.
        folder: of the domain.
        found: its folders, and the images in each at any depth.
    """
    inside = {path: sorted({file.relative_to(path).parts[0] for file in files}) for path, files in found.items()}
    flat = {path for path, files in found.items() if any(file.parent == path for file in files)}
    filled = [path for path in found if found[path]]
    parts = [path for path in found if re.sub(r"[-_ 0-9]", "", path.name.casefold()) in SPLITS]
    if parts == list(found):
        meant = next((path for path in filled if "train" in path.name.casefold()), parts[0])
        raise BiwaaError(
            f"{spec} holds the parts of a data set ({listed([path.name for path in parts])}), not classes: name one of "
            f"them, such as {folder / meant.name}; if they are classes, name the images in a list."
        )
    if len(filled) == 1 and filled[0] not in flat and len(inside[filled[0]]) > 1:
        only = filled[0]
        raise BiwaaError(
            f"{spec} has all its images in {only.name}, in the folders {listed(inside[only], 3)}: name {only}, "
            f"if those are the classes; if {only.name} is a class, name the images in a list."
        )


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
        raise BiwaaError(f"no such file: {file}. Check the path.")
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
        raise BiwaaError(f"{file} is not readable as arrays: {one_line(error)}.") from None
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
        raise BiwaaError(f"{file}: {name}_x has no image: save some in it.")
    return ArrayImages(array, name)
