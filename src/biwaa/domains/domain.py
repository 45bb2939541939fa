"""A domain: images and, apart from them, labels and the names of the classes.

- classes of two domains are matched by name, never by order
- of the target, training gets `domain.images` only, which have no labels
- single labels may be missing from a target, never from a source
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.labels import MISSING, LabelKind, Labels
from biwaa.domains.listing import PassedOver
from biwaa.errors import BiwaaError, listed
from biwaa.images.images import Images
from biwaa.progress import say


@dataclass(frozen=True)
class Domain:
    """Images of one kind or place."""

    spec: str
    images: Images
    classes: tuple[str, ...] | None = None  # Names of the classes; None for images without labels
    labels: NDArray[np.int64] | None = None  # (N,) indices into `classes`, or MISSING
    may_lack: tuple[str, ...] = ()  # Classes of which the benchmark itself has no image here
    absent: tuple[str, ...] = ()  # Images of a benchmark's list that are not there
    passed_over: PassedOver = field(default_factory=PassedOver)
    """What was left out when its folders were listed."""
    label_kind: LabelKind = "text"  # What the labels were before their classes had names
    places: tuple[str, ...] = ()
    """SPECs of the domains that this is the union of; empty for one domain (`union`)."""
    origins: NDArray[np.int64] | None = None
    """(N,) which of `places` each image is of."""

    @classmethod
    def of(cls, spec: str, images: Images, labels: Labels | None) -> "Domain":
        """Images with their labels as these were read; None: without."""
        if labels is None:
            return cls(spec, images)
        return cls(spec, images, labels.classes, labels.numbers, label_kind=labels.kind)

    def select(self, indices: NDArray[np.int64]) -> "Domain":
        """Keep the images at `indices` and their labels; the classes stay as they are.

        Images that all lack a label make a domain without labels.
        """
        labels = None if self.labels is None else self.labels[indices]
        labels = None if labels is not None and len(labels) and (labels == MISSING).all() else labels
        origins = None if self.origins is None else self.origins[indices]
        return replace(self, images=self.images.select(indices), labels=labels, origins=origins)

    def counts(self) -> dict[str, int]:
        """Images of each class, in the classes' order; empty without labels."""
        if self.classes is None or self.labels is None:
            return {}
        counts = np.bincount(self.labels[self.labels != MISSING], minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def unlabelled(self) -> NDArray[np.int64]:
        """Rows of the images whose label is missing, where others have one."""
        return np.flatnonzero(self.labels == MISSING) if self.labels is not None else np.zeros(0, dtype=np.int64)


def tell_passed_over(*domains: Domain | None) -> None:
    """Say what was left out when folders were listed: a line a domain."""
    for domain in domains:
        if domain and domain.passed_over.counts:
            say(f"passed over in {domain.spec}: {domain.passed_over}")


def drop_unreadable(
    domain: Domain, unreadable: dict[int, str], skip: bool, remedy: str = "pass --skip-unreadable"
) -> tuple[Domain, NDArray[np.int64]]:
    """The domain without its unreadable images, and the (N,) rows of the others.

    Args:
        domain: with all its images.
        unreadable: why, by row.
        skip: leave them out.
        remedy: how the user can leave them out.

    Raises:
        BiwaaError: there are unreadable images and `skip` is off.
    """
    rows = np.delete(np.arange(len(domain.images), dtype=np.int64), list(unreadable))
    if not unreadable:
        return domain, rows
    reasons: dict[str, list[str]] = {}
    for row, why in unreadable.items():
        reasons.setdefault(why, []).append(domain.images.names[row])
    named = "; ".join(f"{listed(names, 2)} ({why})" for why, names in list(reasons.items())[:3])
    rest = sum(map(len, list(reasons.values())[3:]))
    many = f"{len(unreadable)} unreadable image{'s' if len(unreadable) > 1 else ''} in {domain.spec}"
    found = f"{many}: {named}" + (f"; and {rest} more" if rest else "")
    if not skip:
        raise BiwaaError(f"{found}. Fix or remove them, or {remedy}.")
    say(f"left out {found}")
    return domain.select(rows), rows
