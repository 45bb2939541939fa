"""A domain: images and, apart from them, labels and the names of the classes.

- classes of two domains are matched by name, never by order
- of the target, training gets `domain.images` only, which have no labels
- single labels may be missing from a target, never from a source
"""

import unicodedata
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.labels import MISSING, UNKNOWN, LabelKind
from biwaa.domains.listing import PassedOver
from biwaa.errors import BiwaaError, listed
from biwaa.images.images import Images, feature_width
from biwaa.images.joint import parts_of
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


def with_unknown(source: Domain) -> Domain:
    """The source with a class for images of no class, of which it has none.

    Raises:
        BiwaaError: it has a class of this name.
    """
    if UNKNOWN in (source.classes or ()):
        raise BiwaaError(f"{source.spec} has a class called {UNKNOWN}: rename it, or leave --unknown out.")
    classes = (*(source.classes or ()), UNKNOWN)
    return replace(source, classes=classes, may_lack=(*source.may_lack, UNKNOWN), label_kind="text")


def match_classes(
    domain: Domain, classes: tuple[str, ...], other: str = "source", subset: bool = False, others: bool = False
) -> Domain:
    """Renumber the labels of `domain` by the order of `classes`.

    Args:
        domain: with labels, or left as it is.
        classes: names in the order to number them by.
        other: where they come from, for the message.
        subset: `domain` may lack some of them.
        others: images of other classes are of the class `UNKNOWN`, which is one of `classes`.

    Raises:
        BiwaaError: only one of the two has a class, under NFC; the message names each such class.
    """
    if domain.classes is None or domain.labels is None:
        return domain
    ours, theirs = classes_by_form(domain.spec, domain.classes), classes_by_form(other, classes)
    missing = [name for form, name in theirs.items() if form not in ours]
    extra = [name for form, name in ours.items() if form not in theirs]
    known = [name for name in theirs.values() if name != UNKNOWN]
    unknown = others and not lookalikes(extra, known)
    if (extra and not unknown) or (missing and not subset):
        parts = [f"only in {other}: {listed(_shown(missing))}"] * bool(missing)
        parts += [f"only in {domain.spec}: {listed(_shown(extra))}"] * bool(extra)
        raise BiwaaError(
            f"the classes differ; {'; '.join([*parts, *lookalikes(extra, list(theirs.values()))])}. "
            "Rename or remove classes so that both have the same."
        )
    number = {form: index for index, form in enumerate(theirs)}
    order = np.array([number.get(form, len(theirs) - 1) for form in ours], dtype=np.int64)
    labels = np.where(domain.labels == MISSING, MISSING, order[domain.labels])
    return replace(domain, classes=classes, labels=labels)


def classes_by_form(where: str, classes: tuple[str, ...]) -> dict[str, str]:
    """Names by their Unicode normal form NFC: macOS writes accents apart from their letters, other systems do not.

    Raises:
        BiwaaError: two names have one form, so that nobody could tell the classes apart.
    """
    forms: dict[str, str] = {}
    for name in classes:
        before = forms.setdefault(unicodedata.normalize("NFC", name), name)
        if before != name:
            raise BiwaaError(
                f"{where} has two classes called {name}, {before!a} and {name!a} to the computer: "
                "put their images into one."
            )
    return forms


def _shown(names: list[str]) -> list[str]:
    """Names in quotes if they have what would not be seen: spaces around them, characters without a width."""
    return [name if name == name.strip() and name.isprintable() else repr(name) for name in names]


def _unseen(character: str) -> bool:
    return character.isspace() or not character.isprintable()


def lookalikes(names: list[str], others: list[str]) -> list[str]:
    """How names differ from others that look the same, or nearly so."""

    def loose(name: str) -> str:
        return "".join(mark for mark in unicodedata.normalize("NFKC", name).casefold() if not _unseen(mark))

    alike = {loose(name): name for name in others}
    pairs = [(alike[loose(name)], name) for name in names if loose(name) in alike]
    found = []
    for one, two in pairs[:3]:
        same = unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", two)
        how = "in case" if one.strip().casefold() == two.strip().casefold() else "in spaces or characters"
        how = "in spaces" if one.split() == two.split() else how
        found.append(f"{ascii(one) if same else repr(one)} and {ascii(two) if same else repr(two)} differ {how}")
    return found


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


def check_pair(source: Domain, target: Domain, batch_size: int, held_out: float = 0.0) -> tuple[Domain, Domain]:
    """Make sure that `source` can be adapted to `target`, and give both the same class order.

    Args:
        source: with labels.
        target: with or without.
        batch_size: of the training.
        held_out: share of each class of the source that is kept from training.

    Raises:
        BiwaaError: no labels, one class, an empty class of the source, a class that the source lacks, fewer images
            than a batch, or the same images twice.
    """
    check_source(source)
    others = UNKNOWN in source.may_lack
    target = match_classes(target, source.classes or (), other=source.spec, subset=True, others=others)
    check_batch(batch_size, source, target, held_out)
    if target.images.identity() in [part.identity() for part in parts_of(source.images)]:
        raise BiwaaError(f"source and target are the same images ({source.spec}): name two different domains.")
    return source, target


def tell_lacking(source: Domain, target: Domain) -> None:
    """Say which of the source's classes have no image in a labelled target; classes are matched."""
    if lacking := [name for name in empty_classes(target) if name not in source.may_lack]:
        known = [name for name in source.classes or () if name != UNKNOWN or name not in source.may_lack]
        say(
            f"{target.spec} has no image of {len(lacking)} of the {len(known)} classes of {source.spec} "
            f"({listed(lacking, 3)})"
        )


def check_labelled(source: Domain) -> None:
    """Make sure that every image of a source has a label.

    Raises:
        BiwaaError: one has none.
    """
    if source.classes is None or source.labels is None:
        raise BiwaaError(f"the source {source.spec} has no labels: give a folder of class folders or a labelled list.")
    if len(rows := source.unlabelled()):
        named = listed([source.images.names[row] for row in rows], 3)
        raise BiwaaError(
            f"the source {source.spec} has no label for {len(rows)} of its {len(source.images)} images ({named}): "
            "label them or leave them out; None, NaN, -1 and empty text are missing labels."
        )


def check_source(source: Domain) -> None:
    """Make sure that a classifier can be trained on `source`.

    Raises:
        BiwaaError: no labels, or some missing; one class, or an empty class.
    """
    check_labelled(source)
    assert source.classes is not None  # that made sure
    if len(source.classes) < 2:
        raise BiwaaError(
            f"the source {source.spec} has one class ({source.classes[0]}): a classifier needs two or more."
        )
    classes_by_form(source.spec, source.classes)
    _check_filled(source)


def empty_classes(domain: Domain) -> list[str]:
    """Classes without an image that should have one; none where images without a label may be of any class."""
    if len(domain.unlabelled()):
        return []
    return [name for name, count in domain.counts().items() if count == 0 and name not in domain.may_lack]


def _check_filled(domain: Domain) -> None:
    if empty := empty_classes(domain):
        raise BiwaaError(f"no image of class {listed(empty)} in {domain.spec}: add images or remove the class.")


def check_batch(batch_size: int, source: Domain, target: Domain, held_out: float = 0.0) -> None:
    """Make sure that there are enough images for a batch of each domain.

    Args:
        batch_size: images of each domain in a step.
        source: with labels.
        target: with or without.
        held_out: share of each class of the source that is kept from training.

    Raises:
        BiwaaError: there are not, or no source image is kept though a share is; the advice holds for both domains.
    """
    kept = sum(held_out_counts(source, held_out))
    left = {source.spec: len(source.images) - kept, target.spec: len(target.images)}
    spec, fewest = min(left.items(), key=lambda pair: pair[1])
    if fewest < 2:
        have = "one image" if fewest else "no image"
        raise BiwaaError(f"{spec} has {have} to train on, and training needs two or more: add images.")
    smaller = f"--batch-size {fewest} or lower" if fewest < batch_size else ""
    if held_out and not kept:
        raise BiwaaError(
            f"--source-held-out {held_out:g} keeps none of the {len(source.images)} images of {source.spec}, whose "
            f"classes are too small: add images or set --source-held-out 0{f' and {smaller}' if smaller else ''}."
        )
    if smaller:
        of = f", without the {kept} that --source-held-out {held_out:g} keeps" if kept and spec == source.spec else ""
        raise BiwaaError(
            f"{spec} has {fewest} images{of}, fewer than a batch of {batch_size}: add images or set {smaller}."
        )


def held_out_counts(source: Domain, share: float) -> list[int]:
    """Images of each class that a share keeps from training; at least one image of every class is trained on."""
    return [max(min(round(share * count), count - 1), 0) for count in source.counts().values()]


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
    rows = np.array([row for row in range(len(domain.images)) if row not in unreadable], dtype=np.int64)
    if not unreadable:
        return domain, rows
    named = [f"{domain.images.names[row]} ({why})" for row, why in list(unreadable.items())[:3]]
    many = f"{len(unreadable)} unreadable image{'s' if len(unreadable) > 1 else ''} in {domain.spec}: "
    if not skip:
        more = f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise BiwaaError(f"{many}{'; '.join(named)}{more}. Fix or remove them, or {remedy}.")
    say(f"left out {many}{'; '.join(named)}")
    return domain.select(rows), rows
