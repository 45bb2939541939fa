"""Where a teacher comes from: a file or an array of scores, or a zero-shot model that looks at the images now."""

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from lightning_fabric import Fabric

from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.trainable import check_batch
from biwaa.errors import BiwaaError, listed
from biwaa.methods import METHODS
from biwaa.models.zero_shot import ZeroShot
from biwaa.teachers.scores import Scores, matched
from biwaa.teachers.voice import Teacher
from biwaa.training.prepare import Pair


class Lesson(Protocol):
    """A teacher before it is asked."""

    @property
    def where(self) -> str:
        """The file, argument or model."""

    @property
    def flags(self) -> dict[str, list[str]]:
        """The values of the flags that give it on a command line; empty where none can."""

    def fingerprint(self) -> str:
        """A hash that changes whenever its answers change."""


@dataclass(frozen=True, eq=False)
class GivenScores:
    """Scores that somebody computed."""

    target: Scores
    source: Scores | None = None

    @property
    def where(self) -> str:
        """The target's file or argument."""
        return self.target.where

    @property
    def flags(self) -> dict[str, list[str]]:
        """The files' names."""
        if not self.target.spec or (self.source and not self.source.spec):
            return {}
        named = {"teacher": [self.target.spec]}
        return named | ({"teacher_source": [self.source.spec]} if self.source else {})

    def fingerprint(self) -> str:
        """Of values and names."""
        digest = hashlib.sha256()
        for scores in (self.target, self.source):
            if scores:
                digest.update(np.ascontiguousarray(scores.values).data)
                digest.update(repr((scores.classes, scores.rows)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def ask(lesson: Lesson, pair: Pair, fabric: Fabric) -> Teacher:
    """What the teacher says of all images of both domains.

    Raises:
        BiwaaError: its rows or columns do not fit, it needs images that are not there, or it cannot be had.
    """
    classes = pair.source.classes or ()
    if isinstance(lesson, ZeroShot):
        asked = {"target": pair.target.images} | ({"source": pair.source.images} if len(pair.source.images) else {})
        found = lesson.scores(asked, classes, fabric)
        return Teacher.of(lesson.where, found["target"], found.get("source"))
    assert isinstance(lesson, GivenScores)
    there = matched(lesson.target, pair.target.images.names, classes, pair.target.spec)
    here = matched(lesson.source, pair.source.images.names, classes, pair.source.spec) if lesson.source else None
    teacher = Teacher.of(lesson.where, there, here)
    if not len(pair.source.images) and not pair.known and not teacher.known.all():
        unknown = [name for name, known in zip(classes, teacher.known.tolist(), strict=True) if not known]
        raise BiwaaError(
            f"{lesson.where} says nothing of {listed(unknown)}: without a source it must know every class."
        )
    return teacher


def check_taught(method: str) -> None:
    """Refuse a teacher for a method that cannot hear it.

    Raises:
        BiwaaError: it cannot.
    """
    if not METHODS[method].taught:
        able = listed([name for name, kind in METHODS.items() if kind.taught])
        raise BiwaaError(f"the method {method} does not learn from a teacher: leave --method out, or set it to {able}.")


def no_source(classes: tuple[str, ...], target: Domain) -> Domain:
    """A source without images, which names the classes."""
    nothing = np.zeros(0, dtype=np.int64)
    return replace(target.select(nothing), spec="none", classes=classes, labels=nothing, may_lack=classes)


def sourceless(
    source: Domain, target: Domain, batch_size: int, names: str = "--classes", unknown: bool = False
) -> tuple[Domain, Domain]:
    """Make sure that a target can be learned from without images of a source.

    Args:
        source: without images.
        target: with labels or without.
        batch_size: of the training.
        names: where the source's classes come from, for messages.
        unknown: the target may have images of other classes, and the last class is for these.

    Raises:
        BiwaaError: fewer than two classes, one twice, others than the target's labels have, or too few images.
    """
    classes = source.classes or ()
    if len(set(classes)) < max(2, len(classes)):
        raise BiwaaError(f"the classes are {listed(list(classes)) or 'not named'}: name two or more, each once.")
    target = match_classes(target, classes, other=names, subset=True, others=unknown)
    check_batch(batch_size, target, target)
    return source, target
