"""Names of classes: two domains' are matched by name, never by order, and told apart where they only look alike."""

import unicodedata
from dataclasses import replace

import numpy as np

from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING, UNKNOWN
from biwaa.errors import BiwaaError, listed
from biwaa.progress import say

NAME_A_SHARE = (
    ", or train on a frozen backbone with --unknown and the share of their images, as in --unknown 0.3: these are then "
    f"labelled {UNKNOWN}"
)


def match_classes(
    domain: Domain, classes: tuple[str, ...], other: str = "source", others: bool = False, closed: bool = False
) -> Domain:
    """Renumber the labels of `domain` by the order of `classes`, of which it may lack some.

    Args:
        domain: with labels, or left as it is.
        classes: names in the order to number them by.
        other: where they come from, for the message.
        others: images of other classes are of the class `UNKNOWN`, which is one of `classes`.
        closed: no images of other classes can be used at all.

    Raises:
        BiwaaError: the domain has other classes, under NFC; the message names each such class.
    """
    if domain.classes is None or domain.labels is None:
        return domain
    ours, theirs = classes_by_form(domain.spec, domain.classes), classes_by_form(other, classes)
    missing = [name for form, name in theirs.items() if form not in ours]
    extra = [name for form, name in ours.items() if form not in theirs]
    alike = lookalikes(extra, [name for name in theirs.values() if name != UNKNOWN])
    if extra and (alike or not others):
        parts = [f"only in {other}: {listed(_shown(missing))}"] * bool(missing)
        parts += [f"only in {domain.spec}: {listed(_shown(extra))}"]
        raise BiwaaError(
            f"the classes differ; {'; '.join([*parts, *alike])}. Rename or remove those of {domain.spec}"
            f"{'' if alike or closed else NAME_A_SHARE}."
        )
    number = {form: index for index, form in enumerate(theirs)}
    order = np.array([number.get(form, len(theirs) - 1) for form in ours], dtype=np.int64)
    labels = np.where(domain.labels == MISSING, MISSING, order[domain.labels])
    return replace(domain, classes=classes, labels=labels)


def with_unknown(source: Domain) -> Domain:
    """The source with a class for images of no class, of which it has none.

    Raises:
        BiwaaError: it has a class of this name.
    """
    if UNKNOWN in (source.classes or ()):
        where = source.spec if len(source.images) else "--classes"
        raise BiwaaError(f"{where} has a class called {UNKNOWN}: rename it, or leave --unknown out.")
    classes = (*(source.classes or ()), UNKNOWN)
    return replace(source, classes=classes, may_lack=(*source.may_lack, UNKNOWN), label_kind="text")


def own_classes(source: Domain) -> tuple[str, ...]:
    """The source's classes without the one that `with_unknown` added."""
    classes = source.classes or ()
    return classes[:-1] if UNKNOWN in source.may_lack else classes


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


def lookalikes(names: list[str], others: list[str]) -> list[str]:
    """How names differ from others that look the same, or nearly so."""

    def loose(name: str) -> str:
        letters = unicodedata.normalize("NFKC", name).casefold()
        return "".join(letter for letter in letters if letter.isprintable() and not letter.isspace())

    alike = {loose(name): name for name in others}
    pairs = [(alike[loose(name)], name) for name in names if loose(name) in alike]
    found = []
    for one, two in pairs[:3]:
        same = unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", two)
        how = "in case" if one.strip().casefold() == two.strip().casefold() else "in spaces or characters"
        how = "in spaces" if one.split() == two.split() else how
        found.append(f"{ascii(one) if same else repr(one)} and {ascii(two) if same else repr(two)} differ {how}")
    return found


def _shown(names: list[str]) -> list[str]:
    """Names in quotes if they have what would not be seen: spaces around them, characters without a width."""
    return [name if name == name.strip() and name.isprintable() else repr(name) for name in names]


def empty_classes(domain: Domain) -> list[str]:
    """Classes without an image that should have one; none where images without a label may be of any class."""
    if len(domain.unlabelled()):
        return []
    return [name for name, count in domain.counts().items() if count == 0 and name not in domain.may_lack]


def tell_oddities(source: Domain, target: Domain) -> None:
    """Say which classes of the source look alike, and which have no image in a labelled target; classes are matched."""
    names = list(source.classes or ())
    if alike := [pair for row, name in enumerate(names) for pair in lookalikes([name], names[:row])]:
        then = "Put their images into one if they are the same class."
        say(f"warning: {source.spec} has classes that look alike: {'; '.join(alike[:3])}. {then}")
    if lacking := [name for name in empty_classes(target) if name not in source.may_lack]:
        say(
            f"{target.spec} has no image of {len(lacking)} of the {len(own_classes(source))} classes of {source.spec} "
            f"({listed(lacking, 3)})"
        )
