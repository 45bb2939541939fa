"""Other classes, from several sources, from a model in a source's place, and with labels of the target.

    BIWAA_CACHE=.. python benchmarks/open_sources.py --data-root DATA --out benchmarks/results/open_sources.json

Every source has the first classes alone, the target all of them (`other_classes.FIRST`). Counted is H, the harmonic
mean of the accuracy over known classes and of that on unknown images, in percent; `rate` is told the true share of
unknown images, `auto` is not. Labels are ten for each known class and ten more, drawn at random from the target, half
of it at most; H is then of the other images alone, without labels as well. `partial` is the accuracy where the target
has the first classes alone and several sources all of them, `closed` where all have all: with --absent-classes off and
auto. A teacher is the logistic regression of a third domain, of Office-Home CLIP's scores of the known classes.
`thresholded` calls the true share of the least confident images unknown, by source-only and by the teacher.
`evidence` is that of unknown images where there are none, for false alarms of `auto` (0.75 and more).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from other_classes import FIRST
from remembered import DATA_SETS, pairs
from sources import Rows, standardised
from torch import Tensor

from biwaa.files import write_text
from biwaa.methods.method import Task
from biwaa.methods.prototypes import Prototypes, PrototypesSettings
from biwaa.settings import ScheduleSettings
from biwaa.solvers.logistic import Head, source_head
from biwaa.solvers.remembered import Memory, Remembered
from biwaa.solvers.unknown import Begun, Unknown
from biwaa.teachers.fusion import Teacher

SEED, A_CLASS = 0, 10


class Target:
    """A target whose classes from `known` on are unknown to every source."""

    def __init__(self, rows: Rows, known: int) -> None:
        """Standardise it, and draw the images that have labels."""
        self.rows, self.known = standardised(rows[0]), known
        self.truth = rows[1].clamp(max=known)
        count = min(A_CLASS * (known + 1), len(self.truth) // 2)
        drawn = torch.from_numpy(np.random.default_rng(SEED).permutation(len(self.truth))[:count])
        self.given = torch.full((len(self.truth),), -1).index_copy(0, drawn, self.truth[drawn])

    def found(self, source: Rows | None, mode: str, **known: Any) -> Tensor:
        """(N,) the class of each image."""
        rate = f"{float((self.truth == self.known).float().mean()):.4f}"
        task = Task(256, self.known + 1, len(self.rows), 1, **known)
        method = Prototypes(task, ScheduleSettings(), PrototypesSettings(unknown=rate if mode == "rate" else "auto"))
        rows, labels = source or (self.rows[:0], self.truth[:0])
        return method.solve(rows, labels, self.rows).scores(self.rows).argmax(dim=1)

    def thresholded(self, scores: Tensor) -> float:
        """H in percent of (N, K) scores that call the true share of the images unknown."""
        found = scores.softmax(dim=1)
        least = found.amax(dim=1).argsort(stable=True)[: int((self.truth == self.known).sum())]
        return self.harmonic(found.argmax(dim=1).index_fill(0, least, self.known))

    def harmonic(self, said: Tensor, counted: Tensor | None = None) -> float:
        """H in percent, of all images or of some."""
        right = said == self.truth
        kept = torch.ones_like(right) if counted is None else counted
        shares = [right[kept & (self.truth == k)].double().mean() for k in range(self.known + 1)]
        known, unknown = float(torch.stack(shares[:-1]).nanmean()), float(shares[-1])
        return round(200 * known * unknown / max(known + unknown, 1e-9), 2)


def together(sources: dict[str, Rows]) -> tuple[Rows, Tensor]:
    """The rows of all sources with their labels, and which source each is of."""
    parts = list(sources.values())
    origins = torch.cat([torch.full((len(labels),), place) for place, (_, labels) in enumerate(parts)])
    return (torch.cat([rows for rows, _ in parts]), torch.cat([labels for _, labels in parts])), origins


def teachers_of(target: Rows, sources: dict[str, Rows], known: int, clip: bool) -> dict[str, Teacher | None]:
    """A teacher for each source: CLIP's scores, which are the features, or what another source's regression says."""
    found: dict[str, Teacher | None] = dict.fromkeys(sources)
    names = list(sources)
    for one, other in zip(names, names[1:] + names[:1], strict=True):
        rows, labels = sources[one]
        kept = labels < known
        if clip:
            found[one] = Teacher.of("CLIP", target[0][:, :known].numpy(), rows[kept][:, :known].numpy())
        elif one != other:
            third, its = sources[other]
            head = source_head(standardised(third[its < known]), its[its < known], known)
            scores = (head.scores(part).numpy() for part in (standardised(target[0]), standardised(rows)[kept]))
            found[one] = Teacher.of("third", *scores)
    return found


def measured(target: Target, sources: dict[str, Rows], teachers: dict[str, Teacher | None]) -> dict[str, Any]:
    """H of every source, and of all together."""
    row: dict[str, Any] = {}
    unlabelled = target.given < 0
    for mode in ("rate", "auto"):
        for name, (rows, labels) in sources.items():
            head = Head(*source_head(rows, labels, target.known)[:3])
            memory = Memory(Remembered.of(rows, labels, target.known), head)
            plain = target.found((rows, labels), mode)
            row[f"{mode}: {name}"] = {
                "images": target.harmonic(plain),
                "remembered": target.harmonic(target.found(None, mode, memory=memory)),
                "without labels": target.harmonic(plain, unlabelled),
                "labels": target.harmonic(target.found((rows, labels), mode, given=target.given), unlabelled),
                "head alone": target.harmonic(target.found(None, mode, memory=Memory(None, head))),
                "thresholded": target.thresholded(head.scores(target.rows)),
            }
            if teacher := teachers[name]:
                row[f"{mode}: {name}"] |= {
                    "teacher": target.harmonic(target.found((rows, labels), mode, teacher=teacher)),
                    "teacher of the target alone": target.harmonic(
                        target.found((rows, labels), mode, teacher=replace(teacher, source=None))
                    ),
                    "teacher of a model": target.harmonic(target.found(None, mode, memory=memory, teacher=teacher)),
                    "no source": target.harmonic(target.found(None, mode, teacher=teacher)),
                    "teacher thresholded": target.thresholded(teacher.target),
                }
        if len(sources) > 1:
            every, origins = together(sources)
            row[f"{mode}: several"] = target.harmonic(target.found(every, mode, origins=origins))
    return row


def absent(target: Rows, sources: dict[str, Rows], known: int) -> dict[str, dict[str, float]]:
    """Accuracy in percent where the target has the first classes alone, and where it has all."""
    (rows, labels), origins = together({task: (standardised(part), its) for task, (part, its) in sources.items()})
    classes = int(labels.max()) + 1
    found: dict[str, dict[str, float]] = {}
    for name, most in (("partial", known), ("closed", classes)):
        there, truth = standardised(target[0][target[1] < most]), target[1][target[1] < most]
        for way in ("off", "auto"):
            task = Task(256, classes, len(there), 1, origins=origins)
            method = Prototypes(task, ScheduleSettings(), PrototypesSettings(absent_classes=way))
            said = method.solve(rows, labels, there).scores(there).argmax(dim=1)
            found.setdefault(name, {})[way] = round(100 * float((said == truth).double().mean()), 2)
    return found


def evidence(target: Rows, sources: dict[str, Rows], known: int, clip: bool) -> dict[str, dict[str, list[float]]]:
    """Evidence of unknown images where there are none: all have all classes, or all have the first alone."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, most in (("closed", int(target[1].max()) + 1), ("closed_first", known)):
        there = standardised(target[0][target[1] < most])
        parts = {
            task: (standardised(rows[labels < most]), labels[labels < most]) for task, (rows, labels) in sources.items()
        }
        ways: dict[str, list[Unknown]] = {}
        if len(parts) > 1:
            (rows, labels), _ = together(parts)
            ways["several"] = [Begun.of(rows, labels, there, most).unknown()]
        teachers = teachers_of((target[0][target[1] < most], target[1]), sources, most, clip)
        for task, (here, its) in parts.items():
            head = Head(*source_head(here, its, most)[:3])
            memory = Memory(Remembered.of(here, its, most), head)
            begun = {
                "models": Begun.remembered(memory, there),
                "heads alone": Begun.remembered(Memory(None, head), there),
            }
            if teacher := teachers[task]:
                begun |= {
                    "teachers": Begun.of(here, its, there, most, teacher=teacher),
                    "teachers of models": Begun.remembered(memory, there, teacher=teacher),
                    "no source": Begun.taught(there, teacher),
                }
            for way, one in begun.items():
                ways.setdefault(way, []).append(one.unknown())
        found[name] = {way: [round(one.evidence, 3) for one in ones] for way, ones in ways.items()}
    return found


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-sets", nargs="*", default=list(DATA_SETS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for data_set in arguments.data_sets:
        known = FIRST[data_set]
        targets: dict[str, Target] = {}
        sources: dict[str, dict[str, Rows]] = {}
        clip = data_set == "office_home_clip"
        whole: dict[str, tuple[Rows, dict[str, Rows]]] = {}
        for task, (rows, labels), there in pairs(data_set, arguments.data_root):
            name = task.split("2", 1)[1]
            targets.setdefault(name, Target(there, known))
            kept = labels < known
            sources.setdefault(name, {})[task] = (standardised(rows[kept]), labels[kept])
            whole.setdefault(name, (there, {}))[1][task] = (rows, labels)
        for name, target in targets.items():
            found[f"{data_set}:{name}"] = measured(target, sources[name], teachers_of(*whole[name], known, clip))
            if len(sources[name]) > 1:
                found[f"{data_set}:{name}"] |= absent(*whole[name], known)
            found[f"{data_set}:{name}"]["evidence"] = evidence(*whole[name], known, clip)
            print(f"{data_set}:{name}", found[f"{data_set}:{name}"], flush=True)
            write_text(arguments.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
