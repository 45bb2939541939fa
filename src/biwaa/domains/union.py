"""Several labelled domains as one source: the union of their images and of their classes.

Each may have only some of the classes. Classes are matched by name, under NFC; the number of each image's domain stays
with it (`Domain.origins`), so that each can have statistics of its own.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.classes import classes_by_form, lookalikes
from biwaa.domains.domain import Domain
from biwaa.domains.listing import PassedOver, Why
from biwaa.domains.trainable import check_kind, check_labelled
from biwaa.errors import BiwaaError, listed
from biwaa.images.images import ArrayRows, FeatureRows, FileImages, Images
from biwaa.images.joint import JointImages

JOINT = " + "
"""Between the SPECs of several domains, in words."""


def union(domains: Sequence[Domain]) -> Domain:
    """One source of several labelled domains.

    Args:
        domains: two or more.

    Raises:
        BiwaaError: one has no labels or no image, two are the same, they differ in kind, names of their classes look
            alike and are not, or one image has two labels.
    """
    for domain in domains:
        check_labelled(domain)
        if not len(domain.images):
            raise BiwaaError(f"{domain.spec} has no image: add images or leave it out.")
    check_kind(*domains)
    identities = [domain.images.identity() for domain in domains]
    for number, domain in enumerate(domains):
        for before in range(number):
            if identities[before] == identities[number]:
                same = f"{domains[before].spec} and {domain.spec}"
                raise BiwaaError(f"the sources {same} are the same images: name each source once.")
    classes, labels = _joint_labels(domains)
    _check_agreement(domains, [classes[k] for k in labels])
    features = [domain.images for domain in domains if isinstance(domain.images, FeatureRows)]
    images: Images = JointImages(tuple(domain.images for domain in domains))
    if features:  # all are, as `check_kind` made sure
        images = FeatureRows(np.concatenate([part.array for part in features]), "source")
    passed = PassedOver()
    for domain in domains:
        passed.join(domain.passed_over, *Why)
        passed.endings.update(domain.passed_over.endings)
    kinds = {domain.label_kind for domain in domains}
    return Domain(
        spec=JOINT.join(domain.spec for domain in domains),
        images=images,
        classes=classes,
        labels=labels,
        may_lack=tuple(name for name in classes if all(name in domain.may_lack for domain in domains)),
        absent=tuple(path for domain in domains for path in domain.absent),
        passed_over=passed,
        label_kind=kinds.pop() if len(kinds) == 1 else "text",
        places=tuple(domain.spec for domain in domains),
        origins=np.repeat(np.arange(len(domains)), [len(domain.images) for domain in domains]),
    )


def _joint_labels(domains: Sequence[Domain]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes in the order in which they are met, and (N,) all labels numbered by it."""
    forms: dict[str, str] = {}
    labels = []
    for domain in domains:
        assert domain.classes is not None  # `check_labelled` made sure of both
        assert domain.labels is not None
        own = classes_by_form(domain.spec, domain.classes)
        new = [name for form, name in own.items() if form not in forms]
        if alike := lookalikes(new, list(forms.values())) if forms else []:
            raise BiwaaError(f"classes of {domain.spec} look like those of another source: {'; '.join(alike)}. "
                             "Rename them so that one class has one name.")  # fmt: skip
        forms |= {form: name for form, name in own.items() if form not in forms}
        number = {form: index for index, form in enumerate(forms)}
        labels.append(np.array([number[form] for form in own], dtype=np.int64)[domain.labels])
    return tuple(forms.values()), np.concatenate(labels)


class _Labelled(NamedTuple):
    name: str
    label: str
    origin: int


@dataclass
class _Seen:
    """Images by what they hold."""

    first: dict[str, _Labelled] = field(default_factory=dict)
    conflicts: list[tuple[_Labelled, _Labelled]] = field(default_factory=list)

    def add(self, what: str, found: _Labelled) -> None:
        before = self.first.setdefault(what, found)
        if before.label != found.label and before.origin != found.origin:
            self.conflicts.append((before, found))


def _check_agreement(domains: Sequence[Domain], labels: Sequence[str]) -> None:
    """Make sure that no image of two sources has two labels; files and rows of arrays are compared by their bytes.

    Raises:
        BiwaaError: one has.
    """
    seen, begin = _Seen(), 0
    by_size: dict[int, list[tuple[FileImages, int, _Labelled]]] = {}
    for origin, domain in enumerate(domains):
        images, names = domain.images, domain.images.names
        for row in range(len(images)):
            found = _Labelled(names[row], labels[begin + row], origin)
            if isinstance(images, ArrayRows):
                seen.add(hashlib.sha256(np.ascontiguousarray(images.array[row]).data).hexdigest(), found)
            elif isinstance(images, FileImages):
                by_size.setdefault(images.paths[row].stat().st_size, []).append((images, row, found))
        begin += len(images)
    for files in by_size.values():
        if _could_conflict(found for *_, found in files):
            for images, row, found in files:
                with images.paths[row].open("rb") as file:
                    seen.add(hashlib.file_digest(file, "sha256").hexdigest(), found)
    if seen.conflicts:
        one, other = seen.conflicts[0]
        more = f" (and {len(seen.conflicts) - 1} more)" if len(seen.conflicts) > 1 else ""
        raise BiwaaError(
            f"the sources contradict each other: {one.name} and {other.name} are the same image, labelled "
            f"{listed([one.label, other.label])}{more}. Correct the labels, or leave one of the sources out."
        )


def _could_conflict(found: Iterable[_Labelled]) -> bool:
    """Whether there are two sources and two labels among images of one size."""
    every = list(found)
    return len({one.origin for one in every}) > 1 and len({one.label for one in every}) > 1
