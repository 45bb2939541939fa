"""SPEC -> Domain: finds the form of a SPEC; `sources`, `catalogue` and `hub` open it."""

import os
import re
from pathlib import Path

from biwaa.domains.catalogue import BENCHMARKS, open_catalogued
from biwaa.domains.domain import Domain
from biwaa.domains.hub import open_hub
from biwaa.domains.lines import list_and_root
from biwaa.domains.lists import open_list
from biwaa.domains.sources import open_arrays, open_folder
from biwaa.errors import BiwaaError
from biwaa.files import local

FORMS = (
    "a folder of class folders, a folder of images, LIST.txt[@ROOT], TABLE.csv[@ROOT], FILE.npz:NAME, "
    "BENCHMARK:DOMAIN below --data-root, or hf:DATASET[?column=value]"
)
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
"""Endings of files that have to be unpacked."""


CLASSIFIER = "timm:"
"""How a timm classifier's SPEC begins, which only a source can be (`models.classifiers`)."""


def default_data_root() -> Path:
    """The folder of benchmarks: $BIWAA_DATA, or ./data."""
    return Path(os.environ.get("BIWAA_DATA", "data"))


def open_domain(spec: str, data_root: Path | None = None) -> Domain:
    """Find a domain's images and labels.

    Args:
        spec: a folder of class folders; a folder of bare images (no labels); a list file of `PATH LABEL`
            lines, as `LIST.txt@ROOT` with the folder that its paths start from (otherwise the list's own); likewise
            `TABLE.csv`, with columns path and label, whose labels are the classes' names;
            `FILE.npz:NAME` for arrays NAME_x (images or features) and, if any, NAME_y; `BENCHMARK:DOMAIN` of the
            catalogue; `hf:DATASET[?column=value]` for a Hugging Face data set.
        data_root: the folder of catalogued benchmarks; None for $BIWAA_DATA or ./data.

    Raises:
        BiwaaError: there is no such domain, or it cannot be used.
    """
    try:
        return _open(spec, data_root)
    except (OSError, ValueError, RuntimeError) as error:  # names too long, zero bytes, ~ of nobody, no permission
        reason = getattr(error, "strerror", None) or error
        raise BiwaaError(f"{spec[:500]} cannot be opened ({reason}).") from None


def _open(spec: str, data_root: Path | None) -> Domain:
    if spec.startswith("hf:"):
        return open_hub(spec)
    if spec.startswith(CLASSIFIER):
        raise BiwaaError(f"{spec} is a classifier, which can be a source and nothing else: name images here.")
    arrays = re.fullmatch(r"(.+\.npz):([^:/\\]+)", spec)
    if arrays:
        return open_arrays(spec, local(arrays[1]), arrays[2])
    path = local(spec)
    if path.is_dir():
        if all((path / name).is_file() for name in ("run.json", "recipe.yaml")):
            raise BiwaaError(f"{spec} is a run's folder, which can be a source and nothing else: name images here.")
        return open_folder(spec, path)
    if listing := list_and_root(spec):
        return open_list(spec, *listing)
    if path.suffix == ".npz":
        raise BiwaaError(f"{spec} does not name its arrays: write {spec}:NAME for NAME_x and NAME_y.")
    if path.name.lower().endswith(ARCHIVES) and path.exists():
        raise BiwaaError(f"{spec} is an archive: unpack it and name the folder of its images.")
    if path.suffix.lower() in (".pth", ".pt", ".safetensors") and path.exists():
        raise BiwaaError(
            f"{spec} is a model, and here are images wanted; as a --source a timm classifier is {CLASSIFIER}MODEL@FILE."
        )
    if path.exists():
        raise BiwaaError(f"{spec} is a single file: a domain is {FORMS}.")
    named = re.fullmatch(r"([\w-]+):(.+)", spec)
    if named:
        return open_catalogued(named[1], named[2], data_root or default_data_root())
    if spec in BENCHMARKS:
        domains = ", ".join(f"{spec}:{domain}" for domain in BENCHMARKS[spec].domains)
        raise BiwaaError(f"{spec} is a whole benchmark: name one of its domains, {domains}.")
    raise BiwaaError(f"no such folder: {spec}. A domain is {FORMS}.")
