"""Whether a classifier can be trained on a source, and the source be adapted to a target."""

from biwaa.domains.classes import classes_by_form, empty_classes, match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.labels import UNKNOWN
from biwaa.errors import BiwaaError, listed
from biwaa.images.images import feature_width
from biwaa.images.joint import parts_of


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
    target = match_classes(target, source.classes or (), other=source.spec, others=others)
    check_batch(batch_size, source, target, held_out)
    if target.images.identity() in [part.identity() for part in parts_of(source.images)]:
        raise BiwaaError(f"source and target are the same images ({source.spec}): name two different domains.")
    return source, target


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


def check_source(source: Domain) -> None:
    """Make sure that a classifier can be trained on `source`.

    Raises:
        BiwaaError: no labels, or some missing; one class, or an empty class.
    """
    check_labelled(source)
    assert source.classes is not None  # that made sure
    if len(source.classes) < 2:
        raise BiwaaError(f"{source.spec} has one class ({source.classes[0]}): a source needs two or more.")
    classes_by_form(source.spec, source.classes)
    if empty := empty_classes(source):
        raise BiwaaError(f"no image of class {listed(empty)} in {source.spec}: add images or remove the class.")


def check_labelled(source: Domain) -> None:
    """Make sure that every image of a source has a label.

    Raises:
        BiwaaError: one has none.
    """
    if source.classes is None or source.labels is None:
        raise BiwaaError(
            f"{source.spec} has no labels, which a source needs: give a folder of class folders, a list or table with "
            "labels, or from Python (images, labels)."
        )
    if len(rows := source.unlabelled()):
        named = listed([source.images.names[row] for row in rows], 3)
        raise BiwaaError(
            f"{source.spec} has no label for {len(rows)} of its {len(source.images)} images ({named}), which a source "
            "needs: label them or leave them out; None, NaN, -1 and empty text are missing labels."
        )


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
