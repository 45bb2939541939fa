"""The field's benchmarks: their domains, classes, counts and tasks, and where their files are below a data root.

- an entry is one YAML file in `benchmarks/`: facts with their source
- layouts are SPECs relative to the benchmark's folder: a folder, LIST.txt@ROOT, FILE.npz:NAME, or a digit archive
- class folders are recognised by name, regardless of case and of what joins their words
"""

import dataclasses
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
import yaml

from biwaa.domains.classes import empty_classes, match_classes
from biwaa.domains.digits import is_archive, open_archive
from biwaa.domains.domain import Domain
from biwaa.domains.lists import open_list
from biwaa.domains.sources import array_names, open_arrays, open_folder
from biwaa.errors import BiwaaError, choices, listed, one_line
from biwaa.registry import Registry


@dataclass(frozen=True)
class CatalogueDomain:
    """One domain of a benchmark."""

    images: int | None  # How many the benchmark has; None if no figure could be verified
    layouts: tuple[str, ...]  # Where it may be in the benchmark's folder, the official place first
    short: str = ""  # Its letter in task names
    counts: tuple[int, ...] = ()  # Images of each class, in the classes' order; empty if only the total is known
    lacks: tuple[str, ...] = ()  # Classes of which the benchmark has no image here
    smallest_largest: tuple[int, int] | None = None
    """Images of the smallest and the largest class, if single counts are not known."""


@dataclass(frozen=True)
class Benchmark:
    """An entry of the catalogue."""

    name: str
    title: str
    citation: str
    terms: str
    where: str  # Where to get it
    folders: tuple[str, ...]  # Names that its folder may have
    classes: tuple[str, ...]  # In the order of their indices
    domains: dict[str, CatalogueDomain]  # By name; NAME/test is the held-out split of NAME
    tasks: tuple[str, ...]  # In the customary order, by the domains' letters: A2W
    aliases: dict[str, str] = field(default_factory=dict)  # Other folder names of a class -> its name
    list_labels: bool = False
    """Whether its list files give each image's class, by number; otherwise the images' folders do."""
    hub: tuple[str, ...] = ()  # SPECs of copies on the Hugging Face hub
    features: bool = False  # Rows of features, computed elsewhere, stand in the place of images
    note: str = ""  # Anything else that a user should know

    def class_of(self, folder: str) -> str | None:
        """The class of a folder's name; None if it is not one of the benchmark's."""
        return _names(self.name).get(_plain(folder))

    def task(self, name: str) -> tuple[str, str]:
        """Source and target of A2W or amazon>webcam, in upper or lower case.

        Raises:
            BiwaaError: no such task.
        """
        letters = {_plain(domain.short): key for key, domain in self.domains.items() if domain.short}
        for mark, known in (("2", letters), (">", {_plain(key): key for key in self.domains})):
            source, found, target = (_plain(part) for part in name.partition(mark))
            if found and source in known and target in known and source != target:
                return known[source], known[target]
        raise BiwaaError(
            f"no task {name!r} in {self.name}: {choices(name, self.tasks)}; or name two of its domains, "
            f"{' and '.join(list(self.domains)[:2])} as {'>'.join(list(self.domains)[:2])}."
        )

    def task_domains(self, source: str, target: str) -> list[str]:
        """All domains of a task: source, target, and the target's held-out split if there is one."""
        return [domain for domain in (source, target, f"{target}/test") if domain in self.domains]

    def tasks_without(self, lacking: Collection[str]) -> list[str]:
        """The customary tasks without any of the domains in `lacking`."""
        return [task for task in self.tasks if not set(self.task_domains(*self.task(task))) & set(lacking)]

    def task_name(self, source: str, target: str) -> str:
        """A2W, or amazon>webcam if a domain has no letter."""
        letters = self.domains[source].short, self.domains[target].short
        return "2".join(letters) if all(letters) else f"{source}>{target}"


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.casefold())


@cache
def _names(benchmark: str) -> dict[str, str]:
    entry = BENCHMARKS[benchmark]
    return {_plain(name): name for name in entry.classes} | {_plain(a): b for a, b in entry.aliases.items()}


def _load() -> dict[str, Benchmark]:
    folder = resources.files("biwaa.domains") / "benchmarks"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    entries = [_entry(file.read_text(encoding="utf-8")) for file in files]
    return {entry.name: entry for entry in entries}


def _entry(text: str) -> Benchmark:
    return msgspec.convert(yaml.safe_load(text), Benchmark)


BENCHMARKS: Registry[Benchmark] = Registry("benchmark", _load())


def register_benchmark(entry: Path | str) -> Benchmark:
    """Add an entry to the catalogue: NAME:DOMAIN becomes a SPEC, and `biwaa bench NAME` runs its table.

    Args:
        entry: a YAML file like those in `domains/benchmarks/`, or its text.

    Raises:
        BiwaaError: it cannot be read as an entry, or its name is one of biwaa's own.
    """
    try:
        text = entry if isinstance(entry, str) and "\n" in entry else Path(entry).read_text(encoding="utf-8")
        found = _entry(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        where = "the entry" if isinstance(entry, str) and "\n" in entry else str(entry)
        raise BiwaaError(f"{where} is not a benchmark's entry: {one_line(error)}.") from None
    BENCHMARKS.add(found.name, found)
    _names.cache_clear()
    return found


def open_catalogued(name: str, domain: str, root: Path) -> Domain:
    """A benchmark's domain below `root`, its classes in the benchmark's order.

    Raises:
        BiwaaError: no such benchmark or domain, it is not below `root`, or classes of it are missing.
    """
    entry = BENCHMARKS[name]
    found = locate(entry, domain, root)
    if found.absent:
        raise BiwaaError(
            f"{name}:{domain} lacks {len(found.absent)} of the images in its list "
            f"({listed(list(found.absent), 2)}): unpack its images next to the list."
        )
    missing = empty_classes(found)
    if missing:
        raise BiwaaError(
            f"{name}:{domain} lacks {len(missing)} of its {len(entry.classes)} classes ({listed(missing)}): "
            f"`biwaa check {name}:{domain} --data-root {shlex.quote(str(root))}` shows what is there."
        )
    return found


def locate(entry: Benchmark, domain: str, root: Path) -> Domain:
    """As `find`, but raises an error if there is nothing.

    Raises:
        BiwaaError: it is not below `root`; the message describes the layout. Or as of `find`.
    """
    found = find(entry, domain, root)
    if found is None:
        raise BiwaaError(f"{entry.name}:{domain} is not below {root}. {how_it_should_look(entry, domain, root)}")
    return found


def find(entry: Benchmark, domain: str, root: Path) -> Domain | None:
    """A benchmark's domain as far as it is below `root`: a missing class has no image. None if nothing is there.

    Raises:
        BiwaaError: no such domain, or its files cannot be read.
    """
    if domain not in entry.domains:
        raise BiwaaError(f"no domain {domain!r} in {entry.name}: {choices(domain, entry.domains)}.")
    spec = f"{entry.name}:{domain}"
    if entry.domains[domain].layouts == ("bundled",):
        from biwaa.domains.bundled import bundled_digits  # brings torch and scikit-learn

        return bundled_digits(spec, domain)
    for base in bases(entry, root):
        for layout in entry.domains[domain].layouts:
            found = _open_layout(spec, base, layout, entry)
            if found is not None and found.labels is None:
                raise BiwaaError(f"{spec}: {base / layout} has no labels, and a benchmark's domain needs them.")
            if found is not None and (len(found.images) or found.absent):
                matched = match_classes(found, entry.classes, other=entry.name, closed=True)
                return dataclasses.replace(matched, may_lack=entry.domains[domain].lacks)
    return None


def deviations(entry: Benchmark, domain: str, found: Domain) -> list[str]:
    """How the counts of the images found differ from the benchmark's; empty if they agree."""
    facts, counts = entry.domains[domain], found.counts()
    missing = [f"{len(found.absent)} images of its list are missing ({found.absent[0]} ..)"] if found.absent else []
    if facts.counts:
        pairs = zip(counts.items(), facts.counts, strict=True)
        return missing + [
            f"{name} has {count} images instead of {should}" for (name, count), should in pairs if count != should
        ]
    different = missing + [f"{name} has no image" for name in empty_classes(found)]
    if facts.images is not None and len(found.images) != facts.images:
        different.append(f"{len(found.images)} images instead of {facts.images}")
    here = (min(counts.values()), max(counts.values()))
    if facts.smallest_largest and here != facts.smallest_largest:
        should = facts.smallest_largest
        different.append(
            f"smallest and largest class have {here[0]} and {here[1]} images instead of {should[0]} and {should[1]}"
        )
    return different


def bases(entry: Benchmark, root: Path) -> list[Path]:
    """Folders that may be the benchmark's: one of its names below `root`, or `root` itself."""
    return [path for path in (*(root / folder for folder in entry.folders), root) if path.is_dir()]


def _open_layout(spec: str, base: Path, layout: str, entry: Benchmark) -> Domain | None:
    path, _, rest = layout.partition(":" if ".npz:" in layout else "@")
    file = base / path
    if path.endswith(".npz"):
        return open_arrays(spec, file, rest) if file.is_file() and rest in array_names(file) else None
    if path.endswith(".txt"):
        class_of = None if entry.list_labels else entry.class_of
        return open_list(spec, file, base / rest, class_of) if file.is_file() else None
    if is_archive(path):
        return open_archive(spec, file) if file.is_file() else None
    if not file.is_dir() or not any(entry.class_of(path.name) for path in file.iterdir() if path.is_dir()):
        return None
    return open_folder(spec, file, entry.class_of)


def how_it_should_look(entry: Benchmark, domain: str, root: Path) -> str:
    """Where the domain's files should be, and where to get them."""
    layouts = entry.domains[domain].layouts
    places = [f"{entry.folders[0]}/{layout.split('@')[0]}" for layout in layouts]
    inside = ""
    if "." not in layouts[0]:
        inside = f", with class folders such as {listed(list(entry.classes), 3)}"
    elif "@" in layouts[0]:
        images = Path(entry.folders[0], layouts[0].split("@")[1]).as_posix()
        example = "" if entry.list_labels else f", such as {images}/{domain.split('/')[0]}/{entry.classes[0]}/"
        inside = f", a list with paths from {root}/{images}{example}"
    also = f" (or {listed(places[1:])})" if places[1:] else ""
    copies = f" Copies on the hub: {', '.join(entry.hub)}." if entry.hub else ""
    return f"It should be in {root}/{places[0]}{also}{inside}. Get it from {entry.where}.{copies}"
