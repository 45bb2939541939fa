"""`biwaa check`: what is in a domain, whether a benchmark is complete, whether two domains can be adapted."""

import json
from pathlib import Path

from biwaa.domains.catalogue import BENCHMARKS, Benchmark, deviations, find, how_it_should_look, locate
from biwaa.domains.classes import empty_classes, tell_oddities
from biwaa.domains.domain import Domain, drop_unreadable
from biwaa.domains.spec import default_data_root, open_domain
from biwaa.domains.trainable import check_kind, check_pair
from biwaa.domains.union import union
from biwaa.errors import BiwaaError, listed, printable
from biwaa.images.images import FeatureRows, amount, feature_width
from biwaa.images.store import decode
from biwaa.progress import track
from biwaa.registry import load_plugins


def check_domains(
    specs: tuple[str, ...],
    batch_size: int,
    data_root: Path | None = None,
    as_json: bool = False,
    source_held_out: float = 0.0,
) -> None:
    """Print images and classes of one or two domains, then make sure that all images can be read and trained on.

    Args:
        specs: one domain, one source or several and then a target, or a whole benchmark of the catalogue.
        batch_size: of the planned training.
        data_root: where benchmarks are; None for $BIWAA_DATA or ./data.
        as_json: print a list of JSON objects instead of lines, after all images were read.
        source_held_out: share of each class of the source that the planned training keeps to judge by.

    Raises:
        BiwaaError: a domain cannot be opened, differs from the benchmark's, has unreadable images, or the source
            cannot be adapted to the target.
    """
    load_plugins()
    if not 0 <= source_held_out <= 0.9:
        raise BiwaaError(f"--source-held-out must lie between 0 and 0.9, not {source_held_out:g}.")
    root = data_root or default_data_root()
    if len(specs) == 1 and specs[0] in BENCHMARKS and not Path(specs[0]).exists():
        if as_json:
            raise BiwaaError("--json is for domains: name one, as in office31:amazon.")
        _check_benchmark(BENCHMARKS[specs[0]], root)
        return
    if not specs:
        raise BiwaaError("name one domain, or one source or several and then the target.")
    # The comparison with the benchmark's counts is printed in lines only.
    domains = [(None if as_json else _catalogued(spec, root)) or open_domain(spec, root) for spec in specs]
    for domain in [] if as_json else domains:
        print("\n".join(printable(line) for line in _lines(domain)))
    for domain in domains:
        drop_unreadable(domain, _unreadable(domain), skip=False, remedy="train with --skip-unreadable")
    if len(domains) > 1:
        *sources, target = domains
        source = union(sources) if len(sources) > 1 else sources[0]
        check_kind(source, target)
        tell_oddities(*check_pair(source, target, batch_size, source_held_out))
        if not as_json:
            print(printable(f"{source.spec} can be adapted to {target.spec}"))
    if as_json:
        facts = [
            {"spec": domain.spec, "images": len(domain.images), "classes": domain.counts() or None}
            | ({"passed_over": domain.passed_over.numbers()} if domain.passed_over.counts else {})
            | ({"unlabelled": missing} if (missing := len(domain.unlabelled())) else {})
            | ({"features": width} if (width := feature_width(domain.images)) else {})
            for domain in domains
        ]
        print(json.dumps(facts, indent=2))


def _catalogued(spec: str, root: Path) -> Domain | None:
    """A benchmark's domain, compared with the benchmark's counts; None for other SPECs."""
    name, _, domain = spec.partition(":")
    if name not in BENCHMARKS or Path(spec).exists():
        return None
    entry = BENCHMARKS[name]
    found = locate(entry, domain, root)
    if wrong := deviations(entry, domain, found):
        print("\n".join(_comparison(entry, domain, found)))
        layout = how_it_should_look(entry, domain, root)
        raise BiwaaError(f"{spec} differs from the benchmark: {listed(wrong, 8)}. {layout}")
    known = entry.domains[domain].images
    agree = "as in the benchmark" if known else "no count of the benchmark could be verified"
    print(f"{spec}: {agree}, {amount(found.images)} in {len(entry.classes)} classes")
    return found


def _comparison(entry: Benchmark, domain: str, found: Domain) -> list[str]:
    """Images found of each class, with the expected number if that is another."""
    facts = entry.domains[domain]
    width = max(map(len, entry.classes))
    lines = [f"{found.spec}: {amount(found.images)} found, {facts.images or 'an unknown number'} expected"]
    expected = facts.counts or (None,) * len(entry.classes)
    for (name, count), should in zip(found.counts().items(), expected, strict=True):
        mark = "" if count and should in (None, count) else "   <- missing" if not count else f"   <- {should} expected"
        lines.append(f"  {name:{width}}  {count:6}{mark}")
    return lines


def _check_benchmark(entry: Benchmark, root: Path) -> None:
    """Print a line for each domain, the tasks that can run, and what is missing for the others."""
    print(f"{entry.title}: {len(entry.classes)} classes. {entry.citation}.")
    print(f"terms: {entry.terms}\nfrom: {entry.where}")
    if entry.note:
        print(f"note: {entry.note}")
    width = max(map(len, entry.domains))
    lacking: list[str] = []
    other: list[str] = []
    for domain in entry.domains:
        found = find(entry, domain, root)
        if found is None:
            lacking.append(domain)
            state = "missing"
        elif empty := empty_classes(found):
            lacking.append(domain)
            state = f"no image of {listed(empty)}"
        elif wrong := deviations(entry, domain, found):
            other.append(domain)
            state = f"{amount(found.images)}; differs from the benchmark: {listed(wrong, 3)}"
        else:
            state = amount(found.images)
        print(f"  {domain:{width}}  {state}")
    print(f"tasks that can run: {' '.join(entry.tasks_without(lacking)) or 'none'}")
    if lacking:
        domain = lacking[0]
        raise BiwaaError(
            f"{entry.name} is not complete below {root}: {', '.join(lacking)}. "
            f"{domain}: {how_it_should_look(entry, domain, root)}"
        )
    if other:
        raise BiwaaError(f"{', '.join(other)} below {root} differ from the benchmark: see the lines above.")


def _lines(domain: Domain) -> list[str]:
    counts = domain.counts()
    labels = f"{len(counts)} classes" if counts else "no labels"
    if missing := len(domain.unlabelled()):
        labels += f", {missing} images without a label"
    width = max((len(name) for name in counts), default=0)
    rows = [f"  {name:{width}}  {count:6}" for name, count in counts.items()]
    passed = [f"passed over: {domain.passed_over}"] if domain.passed_over.counts else []
    return [f"{domain.spec}: {amount(domain.images)}, {labels}", *rows, *passed]


def _unreadable(domain: Domain) -> dict[int, str]:
    bad: dict[int, str] = {}
    if isinstance(domain.images, FeatureRows):  # nothing to decode
        return bad
    with track(f"reading {domain.spec}", len(domain.images), "images") as advance:
        for index, row in enumerate(decode(domain.images, 8)):
            if isinstance(row, str):
                bad[index] = row
            advance(index + 1)
    return bad
