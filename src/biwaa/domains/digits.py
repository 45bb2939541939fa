"""Official archives of digit benchmarks: MNIST's idx files, USPS's libsvm text, SVHN's .mat."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np

from biwaa.domains.domain import Domain
from biwaa.domains.sources import array_domain
from biwaa.errors import BiwaaError, one_line

ARCHIVES = r"(.*-images[.-]idx3-ubyte(\.gz)?|.*\.bz2|.*\.mat)"


def is_archive(path: str) -> bool:
    """Whether a layout's path is that of an archive."""
    return re.fullmatch(ARCHIVES, path) is not None


def open_archive(spec: str, file: Path) -> Domain:
    """Images and labels of one archive; the classes are 0 to 9.

    Raises:
        BiwaaError: the file is not such an archive, or is damaged.
    """
    import scipy.io  # these take long to import
    from sklearn.datasets import load_svmlight_file

    name = file.name.split(".")[0]
    try:
        if file.suffix == ".mat":
            arrays = scipy.io.loadmat(file, variable_names=["X", "y"])
            # (32, 32, 3, N); SVHN writes 10 for the digit 0.
            pixels, labels = arrays["X"].transpose(3, 0, 1, 2), arrays["y"].ravel().astype(np.int64) % 10
        elif file.suffix == ".bz2":
            table, classes = load_svmlight_file(str(file), n_features=256)
            # Grey values from -1 to 1, row by row; classes count from 1.
            pixels = np.rint((table.toarray() + 1) / 2 * 255).clip(0, 255).astype(np.uint8).reshape(-1, 16, 16)
            labels = classes.astype(np.int64) - 1
        else:
            pixels = _idx(file)
            labels = _idx(file.with_name(re.sub(r"images([.-])idx3", r"labels\1idx1", file.name))).astype(np.int64)
    except (OSError, KeyError, ValueError, EOFError, NotImplementedError, TypeError,
            scipy.io.matlab.MatReadError, zlib.error) as error:  # fmt: skip
        raise BiwaaError(f"{file} is not readable as {spec}: {one_line(error)}.") from None
    return array_domain(spec, str(file), name, np.ascontiguousarray(pixels), labels)


def _idx(file: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """MNIST's format: two zero bytes, a type (8: unsigned bytes), the number of dimensions, their sizes, the data."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    if data[:3] != b"\0\0\x08":
        raise ValueError("not an idx file of unsigned bytes")
    sizes = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(*sizes.tolist())
