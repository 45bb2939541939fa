"""Where a teacher comes from: a file or an array of scores, or a zero-shot model that looks at the images now."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from biwaa.domains.classes import match_classes, own_classes
from biwaa.domains.domain import Domain
from biwaa.domains.labels import UNKNOWN
from biwaa.domains.trainable import check_batch
from biwaa.errors import BiwaaError, listed
from biwaa.methods import METHODS
from biwaa.models.zero_shot import DEFAULT, ZeroShot
from biwaa.teachers.fusion import Teacher
from biwaa.teachers.prompts import read_classes
from biwaa.teachers.scores import Scores, as_scores, matched
from biwaa.training.prepare import Pair


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
        """The flags that name the files; empty where none can."""
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


Lesson = GivenScores | ZeroShot
"""A teacher before it is asked: `where` it comes from, `flags` that name it, the `fingerprint` of its answers."""


def ask(lesson: Lesson, pair: Pair, fabric: Fabric) -> Teacher:
    """What the teacher says of all images of both domains; it knows no class `unknown`.

    Raises:
        BiwaaError: its rows or columns do not fit, it needs images that are not there, or it cannot be had.
    """
    classes = own_classes(pair.source)
    beside = ((0, 0), (0, len(pair.source.classes or ()) - len(classes)))

    def taught(there: NDArray[np.float32], here: NDArray[np.float32] | None) -> Teacher:
        wide = partial(np.pad, pad_width=beside, constant_values=np.nan)
        return Teacher.of(lesson.where, wide(there), None if here is None else wide(here))

    if isinstance(lesson, ZeroShot):
        asked = {"target": pair.target.images} | ({"source": pair.source.images} if len(pair.source.images) else {})
        found = lesson.scores(asked, classes, fabric)
        return taught(found["target"], found.get("source"))
    there = matched(lesson.target, pair.target.images.names, classes, pair.target.spec)
    here = matched(lesson.source, pair.source.images.names, classes, pair.source.spec) if lesson.source else None
    teacher = taught(there, here)
    unknown = [name for name, known in zip(classes, teacher.known.tolist(), strict=False) if not known]
    if unknown and not len(pair.source.images) and not pair.known:
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
    lacks = tuple(name for name in classes if name != UNKNOWN)  # that one is of `with_unknown`
    return replace(target.select(nothing), spec="none", classes=classes, labels=nothing, may_lack=lacks)


def sourceless(source: Domain, target: Domain, batch_size: int, names: str = "--classes") -> tuple[Domain, Domain]:
    """Make sure that a target can be learned from without images of a source.

    Args:
        source: without images.
        target: with labels or without.
        batch_size: of the training.
        names: where the source's classes come from, for messages.

    Raises:
        BiwaaError: fewer than two classes, one twice, others than the target's labels have, or too few images.
    """
    classes, every = own_classes(source), source.classes or ()
    if len(set(classes)) < max(2, len(classes)):
        raise BiwaaError(f"the classes are {listed(list(classes)) or 'not named'}: name two or more, each once.")
    target = match_classes(target, every, other=names, others=classes != every)
    check_batch(batch_size, target, target)
    return source, target


def lesson_of(
    teacher: Any, teacher_source: Any, zero_shot: str | bool, prompt: Sequence[str],
    classes: str | Sequence[str] | Mapping[str, Any] | None,
) -> tuple[Lesson | None, dict[str, Any]]:  # fmt: skip
    """Where the teacher comes from, and the classes that were named, with their words; arguments as of `biwaa.adapt`.

    Raises:
        BiwaaError: they do not go together, or a file cannot be read.
    """
    words = (
        {} if classes is None
        else read_classes(classes) if isinstance(classes, str)
        else {str(name): value for name, value in classes.items()} if isinstance(classes, Mapping)
        else {str(name): None for name in classes}
    )  # fmt: skip
    if teacher is not None and zero_shot:
        raise BiwaaError("--teacher and --zero-shot are two teachers: give one.")
    if teacher is None and teacher_source is not None:
        raise BiwaaError("--teacher-source is of the source alone: give the target's scores as --teacher too.")
    if prompt and not zero_shot:
        raise BiwaaError("--prompt is for a zero-shot teacher: add --zero-shot.")
    if zero_shot:
        return ZeroShot(DEFAULT if zero_shot is True else zero_shot, tuple(prompt), words), words
    if teacher is None:
        return None, words
    of_source = None if teacher_source is None else as_scores(teacher_source, "teacher_source")
    return GivenScores(as_scores(teacher, "teacher"), of_source), words


def source_by_name(lesson: Lesson | None, words: Mapping[str, Any], target: Domain) -> Domain:
    """What stands in a source's place: the classes, as they were named or as the teacher has them.

    Raises:
        BiwaaError: nobody names them, or there is no teacher.
    """
    if lesson is None:
        raise BiwaaError("without a --source there must be a teacher: add --zero-shot or --teacher FILE.")
    classes = tuple(words)
    if isinstance(lesson, GivenScores):
        if lesson.source:
            raise BiwaaError("--teacher-source needs a --source.")
        classes = classes or lesson.target.classes or ()
    if not classes:
        raise BiwaaError("without a --source the classes must be named: add --classes cat,dog.")
    return no_source(classes, target)
