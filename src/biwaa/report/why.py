"""Why: source and target features before and after adapting, in one plane."""

import numpy as np

from biwaa.report import embedding, pictures
from biwaa.report.embedding import Place, State
from biwaa.report.pictures import ACCENT, PALETTE, SOURCE, Picture
from biwaa.report.read import Reading
from biwaa.report.section import Group, Section, Swatch
from biwaa.training.rounds import BASELINE


def why(run: Reading) -> Section:
    """The four panels, and in words how far the domains are mixed."""
    page = Section("why", "Why?")
    after = run.chosen if run.chosen != BASELINE else run.rounds[-1]
    legs = list(dict.fromkeys(leg for leg in (BASELINE, after) if leg in run.legs))
    states = [found for leg in legs if (found := embedding.state(leg, run.legs[leg]))]
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
        f"Features behind the bottleneck at unit length, a sample of at most {embedding.SAMPLE} images of each domain, "
        "the same in every panel; one t-SNE of all states together, so that all panels have one scale, each around its "
        "own middle. Source images (rings) are coloured by their label, target images (dots) by their "
        f"{_whose(run)}. How far apart distant groups lie means little in t-SNE."
    )
    if run.chosen == BASELINE and after != BASELINE:
        page.notes.append(f"Source-only was handed out; {after} is shown for comparison and was not chosen.")
    return page


def _whose(run: Reading) -> str:
    return "predicted class" if run.truth is None else "true class"


def _when(run: Reading, leg: str) -> str:
    if leg == BASELINE:
        return "Before: source-only"
    when = "After: " if BASELINE in run.legs else ""
    return f"{when}{leg}{'' if leg == run.chosen else ', not handed out'}"


def _span(places: list[Place]) -> float:
    return 1.06 * max(float(np.ptp(np.concatenate(place)[:, axis])) for place in places for axis in (0, 1))


def _by_domain(run: Reading, states: list[State], places: list[Place]) -> list[Picture]:
    found = []
    for one, (source, target) in zip(states, places, strict=True):
        share, full = embedding.mixing(one)
        said = (
            f"{_when(run, one.leg)}: t-SNE of {len(source)} source and {len(target)} target images by domain. "
            f"{100 * share:.0f} % of a target image's nearest neighbours are source images; {100 * full:.0f} % would "
            "be full mixture."
        )
        groups = [(source[:, 0], source[:, 1], SOURCE, False), (target[:, 0], target[:, 1], ACCENT, True)]
        found.append(pictures.scatter(groups, _span(places), f"{_when(run, one.leg)}, by domain", said))
    return found


def _by_class(run: Reading, states: list[State], places: list[Place], colours: dict[int, str]) -> list[Picture]:
    known = run.said if run.truth is None else run.truth
    found = []
    for one, (source, target) in zip(states, places, strict=True):
        groups = []
        # Runs of earlier versions kept no label of their source images: these stay grey.
        labels = np.full(len(source), -1) if one.source_labels is None else one.source_labels
        for colour in dict.fromkeys([SOURCE, *colours.values()]):
            members = [k for k in range(-1, len(run.classes)) if colours.get(k, SOURCE) == colour]
            ours, theirs = source[np.isin(labels, members)], target[np.isin(known[one.target_rows], members)]
            groups += [(ours[:, 0], ours[:, 1], colour, False), (theirs[:, 0], theirs[:, 1], colour, True)]
        said = f"{_when(run, one.leg)}: the same plane, source images by label and target images by {_whose(run)}."
        found.append(pictures.scatter(groups, _span(places), f"{_when(run, one.leg)}, by class", said))
    return found


def _mixture(run: Reading, states: list[State]) -> str:
    shares, full = [embedding.mixing(one)[0] for one in states], embedding.mixing(states[0])[1]
    text = f"Of a target image's nearest neighbours {100 * shares[0]:.0f} % are source images"
    if len(states) > 1:
        text += f" before adapting and {100 * shares[1]:.0f} % after"
    text += f"; {100 * full:.0f} % would be full mixture."
    if run.truth is not None:
        alike = [embedding.like_nearest_source(one, run.truth) for one in states]
        said = [f"{100 * share:.0f} %" for share in alike if share is not None]
        if len(said) == len(states):
            when = f"{said[0]} before and {said[1]} after" if len(said) > 1 else said[0]
            text += f" The nearest source image is of the target image's own class for {when}."
    return text


def _class_colours(run: Reading, one: State) -> dict[int, str]:
    """The most frequent classes get a colour, in their own order."""
    known = run.said if run.truth is None else run.truth
    counts = np.bincount(known[one.target_rows], minlength=len(run.classes))
    frequent = sorted(np.argsort(-counts, kind="stable")[: len(PALETTE)].tolist())
    return dict(zip(frequent, PALETTE, strict=False))
