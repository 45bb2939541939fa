"""Why: source and target features before and after adapting, in one plane."""

import numpy as np
from numpy.typing import NDArray

from biwaa.report import embedding, pictures
from biwaa.report.embedding import Positions, State
from biwaa.report.pictures import ACCENT, PALETTE, SOURCE, Picture
from biwaa.report.read import Reading
from biwaa.report.section import Group, Section, Swatch
from biwaa.result import REFERENCES, SOURCE_ONLY


def why(run: Reading) -> Section:
    """The four panels, and in words how far the domains are mixed."""
    page = Section("why", "Why?")
    if not run.result.source.images:
        what = "There were no images of the source" if run.result.remembered else "There was no source"
        page.lead = f"{what}, so there is nothing to see the target come nearer to."
        return page
    after = run.selected if run.selected not in REFERENCES else run.stages[-1]
    wanted = dict.fromkeys(stage for stage in (SOURCE_ONLY, after) if stage in run.evidence)
    states = [found for stage in wanted if (found := embedding.state(stage, run.evidence[stage]))]
    if not states:
        page.lead = "The run's checkpoints are not there (a bench keeps none), so its features cannot be shown."
        return page
    places = embedding.plane(states)
    colours = _class_colours(run, states[0])
    rest = len(run.classes) - len(colours)
    classes = [Swatch(run.classes[k], colour) for k, colour in colours.items()]
    classes += [Swatch(f"{rest} other classes", SOURCE)] * bool(rest)
    domains = [Swatch("source (rings)", SOURCE), Swatch("target (dots)", ACCENT)]
    page.groups = [
        Group(_by_domain(run, states, places), "squares", legend=domains),
        Group(_by_class(run, states, places, colours), "squares", legend=classes),
    ]
    page.lead = _mixture(run, states)
    page.notes.append(
        f"Each panel is a t-SNE of the bottleneck's features, scaled to unit length, of at most {embedding.SAMPLE} "
        "images of each domain. All panels show the same images at the same scale. Source images (rings) are coloured "
        f"by their label, target images (dots) by their {_whose(run)}. Distances between far groups mean little."
    )
    if run.selected in REFERENCES and after not in REFERENCES:
        page.notes.append(
            f"{run.selected.capitalize()} was selected; {after} is shown for comparison and was not selected."
        )
    return page


def _known(run: Reading) -> NDArray[np.int64]:
    """(N,) true classes of the target, MISSING where a label is; or predicted ones where these are all there is."""
    return run.predictions.labels if run.truth is None else run.truth


def _whose(run: Reading) -> str:
    return "predicted class" if run.truth is None else "true class"


def _when(run: Reading, stage: str) -> str:
    if stage == SOURCE_ONLY:
        return "Before: source-only"
    when = "After: " if SOURCE_ONLY in run.evidence else ""
    return f"{when}{stage}{'' if stage == run.selected else ', not selected'}"


def _span(places: list[Positions]) -> float:
    return 1.06 * max(float(np.ptp(np.concatenate(place)[:, axis])) for place in places for axis in (0, 1))


def _by_domain(run: Reading, states: list[State], places: list[Positions]) -> list[Picture]:
    found = []
    for one, (source, target) in zip(states, places, strict=True):
        share, full = embedding.mixing(one)
        when = _when(run, one.stage)
        words = (
            f"{when}: t-SNE of {len(source)} source and {len(target)} target images by domain. "
            f"{100 * share:.0f} % of a target image's nearest neighbours are source images; {100 * full:.0f} % would "
            "be full mixture."
        )
        groups = [(source, SOURCE, False), (target, ACCENT, True)]
        found.append(pictures.scatter(groups, _span(places), f"{when}, by domain", words))
    return found


def _by_class(run: Reading, states: list[State], places: list[Positions], colours: dict[int, str]) -> list[Picture]:
    known = _known(run)
    found = []
    for one, (source, target) in zip(states, places, strict=True):
        groups = []
        # A run may have kept no label of its source images: these stay grey.
        labels = np.full(len(source), -1) if one.source_labels is None else one.source_labels
        for colour in dict.fromkeys([SOURCE, *colours.values()]):
            members = [k for k in range(-1, len(run.classes)) if colours.get(k, SOURCE) == colour]
            ours, theirs = source[np.isin(labels, members)], target[np.isin(known[one.target_rows], members)]
            groups += [(ours, colour, False), (theirs, colour, True)]
        when = _when(run, one.stage)
        words = f"{when}: the same plane, source images by label and target images by {_whose(run)}."
        found.append(pictures.scatter(groups, _span(places), f"{when}, by class", words))
    return found


def _mixture(run: Reading, states: list[State]) -> str:
    shares, full = [embedding.mixing(one)[0] for one in states], embedding.mixing(states[0])[1]
    text = f"Of a target image's nearest neighbours {100 * shares[0]:.0f} % are source images"
    if len(states) > 1:
        text += f" before adapting and {100 * shares[1]:.0f} % after"
    text += f"; {100 * full:.0f} % would be full mixture."
    if run.truth is not None:
        own = [embedding.like_nearest_source(one, run.truth) for one in states]
        words = [f"{100 * share:.0f} %" for share in own if share is not None]
        if len(words) == len(states):
            when = f"{words[0]} before and {words[1]} after" if len(words) > 1 else words[0]
            text += f" The nearest source image is of the target image's own class for {when}."
    return text


def _class_colours(run: Reading, one: State) -> dict[int, str]:
    """The most frequent classes get a colour, in their own order."""
    known = _known(run)[one.target_rows]
    counts = np.bincount(known[known >= 0], minlength=len(run.classes))
    frequent = sorted(np.argsort(-counts, kind="stable")[: len(PALETTE)].tolist())
    return dict(zip(frequent, PALETTE, strict=False))
