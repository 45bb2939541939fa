"""What result.json says of the domains: source, sources, target, a model in the place of the source, the teacher."""

import msgspec
import numpy as np
from torch import Tensor

from biwaa.domains.classes import own_classes
from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING
from biwaa.models.known import KnownSource
from biwaa.models.zero_shot import ZeroShot
from biwaa.result import DomainFacts, RememberedFacts, SourceFacts, TeacherFacts
from biwaa.training.data import Given
from biwaa.training.prepare import Prepared
from biwaa.training.teach import Lesson


def domain_facts(domain: Domain, shift: str = "none", given: Given | None = None) -> DomainFacts:
    """A domain, the label shift that was made of it, and the labels of it that were handed over."""
    return DomainFacts(
        spec=domain.spec,
        images=len(domain.images),
        shift=shift,
        unlabelled=len(domain.unlabelled()),
        labels_given=0 if given is None else int((given != MISSING).sum()),
    )


def remembered_facts(known: KnownSource | None) -> RememberedFacts | None:
    """Of how many images a model in the place of the source has statistics; None without such a model."""
    if known is None:
        return None
    counts = known.memory.statistics.counts if known.memory and known.memory.statistics else None
    if counts is None:
        return RememberedFacts(images=None, fewest=None)
    return RememberedFacts(images=int(counts.sum()), fewest=int(counts.min()))


def source_facts(domain: Domain, standing: Tensor | None) -> tuple[SourceFacts, ...]:
    """Each of several sources; none where there is one."""
    if domain.origins is None or domain.labels is None:
        return ()
    found = []
    for number, spec in enumerate(domain.places):
        labels = domain.labels[domain.origins == number]
        facts = SourceFacts(spec=spec, images=len(labels), classes=len(np.unique(labels)))
        if standing is not None:
            values = [None if np.isnan(value) else round(value, 6) for value in standing[:, number].tolist()]
            relevance, agreement, chance = values
            facts = msgspec.structs.replace(facts, relevance=relevance, agreement=agreement, chance=chance)
        found.append(facts)
    return tuple(found)


def teacher_facts(prepared: Prepared, lesson: Lesson | None) -> TeacherFacts | None:
    """Who the teacher is, and what it cannot answer; None without one."""
    teacher, classes = prepared.domains.teacher, own_classes(prepared.domains.source)
    if teacher is None or lesson is None:
        return None
    known = teacher.known.tolist()
    return TeacherFacts(
        where=teacher.where,
        covers_source=teacher.source is not None,
        unknown_classes=tuple(name for name, knows in zip(classes, known, strict=False) if not knows),
        prompts=lesson.texts(classes) if isinstance(lesson, ZeroShot) else {},
    )
