"""A domain: images and, apart from them, labels and the names of the classes.

- classes of two domains are matched by name, never by order
- of the target, training gets `domain.images` only, which have no labels
- single labels may be missing from a target, never from a source
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.labels import MISSING, LabelKind
from biwaa.errors import BiwaaError, listed
from biwaa.images.images import Images, feature_width
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
    label_kind: LabelKind = "text"  # What the labels were before their classes had names

    def select(self, indices: NDArray[np.int64]) -> "Domain":
        """Keep the images at `indices` and their labels; the classes stay as they are.

        Images that all lack a label make a domain without labels.
        """
        labels = None if self.labels is None else self.labels[indices]
        labels = None if labels is not None and len(labels) and (labels == MISSING).all() else labels
        return replace(self, images=self.images.select(indices), labels=labels)

    def counts(self) -> dict[str, int]:
        """Images of each class, in the classes' order; empty without labels."""
        if self.classes is None or self.labels is None:
            return {}
        counts = np.bincount(self.labels[self.labels != MISSING], minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def unlabelled(self) -> NDArray[np.int64]:
        """Rows of the images whose label is missing, where others have one."""
        return np.flatnonzero(self.labels == MISSING) if self.labels is not None else np.zeros(0, dtype=np.int64)


def match_classes(domain: Domain, classes: tuple[str, ...], other: str = "source", subset: bool = False) -> Domain:
    """Renumber the labels of `domain` by the order of `classes`.

    Args:
        domain: with labels, or left as it is.
        classes: names in the order to number them by.
        other: where they come from, for the message.
        subset: `domain` may lack some of them.

    Raises:
        BiwaaError: only one of the two has a class; the message names each such class.
    """
    if domain.classes is None or domain.labels is None:
        return domain
    missing = [] if subset else [name for name in classes if name not in domain.classes]
    extra = [name for name in domain.classes if name not in classes]
    if missing or extra:
        parts = [f"only in {other}: {listed(missing)}"] * bool(missing)
        parts += [f"only in {domain.spec}: {listed(extra)}"] * bool(extra)
        raise BiwaaError(
            f"the classes differ; {'; '.join(parts)}. Rename or remove classes so that both have the same."
        )
    order = np.array([classes.index(name) for name in domain.classes], dtype=np.int64)
    labels = np.where(domain.labels == MISSING, MISSING, order[domain.labels])
    return replace(domain, classes=classes, labels=labels)


def check_kind(*domains: Domain) -> int | None:
    """The width of features that stand in the place of images; None for images.

    Raises:
        BiwaaError: the domains are not all images, or features of one width.
    """
    widths = {feature_width(domain.images) for domain in domains}
    if len(widths) > 1:
        kinds = ", ".join("images" if width is None else f"{width} features a row" for width in widths)
        specs = listed([domain.spec for domain in domains])
        raise BiwaaError(f"{specs} differ in kind: {kinds}. Give images, or features of one width.")
    return widths.pop()


def check_pair(source: Domain, target: Domain, batch_size: int) -> tuple[Domain, Domain]:
    """Make sure that `source` can be adapted to `target`, and give both the same class order.

    Raises:
        BiwaaError: no labels, one class, an empty class, different classes, fewer images than a batch,
            or the same images twice.
    """
    check_source(source, batch_size)
    _check_filled(target)
    some = len(target.unlabelled()) > 0  # then a class may have no image with a label
    target = match_classes(target, source.classes or (), other=source.spec, subset=some)
    check_batch(target, batch_size)
    if source.images.identity() == target.images.identity():
        raise BiwaaError(f"source and target are the same images ({source.spec}): name two different domains.")
    return source, target


def check_source(source: Domain, batch_size: int) -> None:
    """Make sure that a classifier can be trained on `source`.

    Raises:
        BiwaaError: no labels, or some missing; one class, an empty class, or fewer images than a batch.
    """
    if source.classes is None or source.labels is None:
        raise BiwaaError(f"the source {source.spec} has no labels: give a folder of class folders or a labelled list.")
    if len(rows := source.unlabelled()):
        named = listed([source.images.names[row] for row in rows], 3)
        raise BiwaaError(
            f"the source {source.spec} has no label for {len(rows)} of its {len(source.images)} images ({named}): "
            "label them or leave them out; None, NaN, -1 and empty text are missing labels."
        )
    if len(source.classes) < 2:
        raise BiwaaError(
            f"the source {source.spec} has one class ({source.classes[0]}): a classifier needs two or more."
        )
    _check_filled(source)
    check_batch(source, batch_size)


def empty_classes(domain: Domain) -> list[str]:
    """Classes without an image that should have one; none where images without a label may be of any class."""
    if len(domain.unlabelled()):
        return []
    return [name for name, count in domain.counts().items() if count == 0 and name not in domain.may_lack]


def _check_filled(domain: Domain) -> None:
    if empty := empty_classes(domain):
        raise BiwaaError(f"no image of class {listed(empty)} in {domain.spec}: add images or remove the class.")


def check_batch(domain: Domain, batch_size: int) -> None:
    """Make sure that there are enough images for a batch.

    Raises:
        BiwaaError: there are not.
    """
    if len(domain.images) < batch_size:
        raise BiwaaError(
            f"{domain.spec} has {len(domain.images)} images, fewer than a batch of {batch_size}: "
            f"add images or set --batch-size {len(domain.images)} or lower."
        )


def drop_unreadable(domain: Domain, unreadable: dict[int, str], skip: bool) -> tuple[Domain, NDArray[np.int64]]:
    """The domain without its unreadable images, and the (N,) rows of the others.

    Raises:
        BiwaaError: there are unreadable images and `skip` is off.
    """
    rows = np.array([row for row in range(len(domain.images)) if row not in unreadable], dtype=np.int64)
    if not unreadable:
        return domain, rows
    named = [f"{domain.images.names[row]} ({why})" for row, why in list(unreadable.items())[:3]]
    many = f"{len(unreadable)} unreadable image{'s' if len(unreadable) > 1 else ''} in {domain.spec}: "
    if not skip:
        more = f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise BiwaaError(f"{many}{'; '.join(named)}{more}. Fix or remove them, or pass --skip-unreadable.")
    say(f"left out {many}{'; '.join(named)}")
    return domain.select(rows), rows
