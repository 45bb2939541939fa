"""What `biwaa estimate` says: in words, as one line of JSON, and as Prometheus' text; and which thresholds were met."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from biwaa.errors import BiwaaError
from biwaa.report.estimate import doubt, estimate_text, interval_text
from biwaa.report.sentences import in_percent
from biwaa.result import Result
from biwaa.training.later import FEWEST, Later

MEASURED = (
    "Over 171 folders of 32 benchmark pairs such estimates were off by 4.8 points on average and by 32 at worst, and "
    "the interval held the accuracy in 158 of 168"
)  # docs/estimate.md
SHOWN = 10
"""Classes whose shares moved that are listed in words."""


@dataclass(frozen=True)
class Thresholds:
    """What a pipeline asks for; None for nothing."""

    least_accuracy: float | None = None  # Of the estimate itself
    least_bound: float | None = None  # Of its lower bound
    not_moved: bool = False

    def __post_init__(self) -> None:
        """Accept shares alone.

        Raises:
            BiwaaError: a threshold outside [0, 1].
        """
        for flag, least in (("--least-accuracy", self.least_accuracy), ("--least-bound", self.least_bound)):
            if least is not None and not 0 <= least <= 1:
                raise BiwaaError(f"{flag} is a share between 0 and 1, such as 0.7, not {least:g}.")

    def unmet(self, found: Later) -> list[str]:
        """Names of the thresholds that are not met; what is unknown meets none."""
        value, bound = found.estimated_accuracy.value, found.estimated_accuracy.lower_bound
        failed = {
            "least_accuracy": self.least_accuracy is not None and (value is None or value < self.least_accuracy),
            "least_bound": self.least_bound is not None and (bound is None or bound < self.least_bound),
            "not_moved": self.not_moved and found.moved is not False,
        }
        return [name for name, fails in failed.items() if fails]


def later_words(found: Later, result: Result | None, thresholds: Thresholds, updated: Result | None = None) -> str:
    """For the terminal; `updated` is of a run that was adapted to the images after they were judged."""
    lines = [
        "Estimated without labels",
        f"  accuracy on {found.images} images of {found.spec}: {_accuracy(found, result)}",
    ]
    if found.estimated_accuracy.lower_bound is not None:
        lines.append(f"  {MEASURED}.")
    if found.left_out:
        lines.append(f"  {found.left_out} images could not be read and are left out")
    if found.estimate_of_the_run is not None and result is not None and not doubt(result):
        lines.append(f"  the run's estimate on its own target: {in_percent(found.estimate_of_the_run)}")
    lines += ["", "Has the place changed?", f"  {_moved(found)}", *_unfamiliar(found), *_classes(found)]
    lines += ["", "Adapt again?", f"  {_again(found)}"]
    if updated is not None:
        text = f"the new run is in {found.updated}; its own estimate there: {estimate_text(updated)}"
        lines += ["", "Adapted again", f"  {text}"]
    lines += _thresholds(found, thresholds)
    return "\n".join(lines)


def _accuracy(found: Later, result: Result | None) -> str:
    given = found.estimated_accuracy
    unmeasured = f"fewer than {FEWEST} images" if found.images < FEWEST else "this run's method"
    if found.withheld == "moved":
        what = "confidence says little then" if result is None else f"errors were not measured for {unmeasured}"
        return f"unknown, since the images moved, and {what}"
    if found.withheld == "moved_far":
        return "unknown, since the images moved farther than any on which such estimates were measured"
    if found.withheld == "no_class":
        return "unknown, since most images look like no class of the source"
    if found.withheld == "unfamiliar":
        return "unknown, since many images look like none of the run's target and may be of no known class"
    if found.withheld == "run_in_doubt":
        return f"unknown, since in the run itself {doubt(result) if result else 'a warning contradicts it'}"
    if given.value is None:
        return "unknown, since the run kept nothing to estimate from"
    text = f"{100 * given.value:.0f} %{interval_text(given)}"
    if given.low is not None:
        return text
    if result is None:
        error = "off by 7 points on average on our benchmarks"
        return f"{text}, the mean confidence alone, {error} (name the run's folder for more)"
    return f"{text}, without an interval (errors were not measured for {unmeasured})"


def _moved(found: Later) -> str:
    if found.moved is None or found.shift is None or found.shift_limit is None:
        return "unknown: the model keeps no statistics of its target that these images can be compared with"
    measured = f"shift {found.shift:.2f}, more than {found.shift_limit:.2f} is a move"
    if found.moved:
        return f"yes: the images do not look like the target that the model was adapted to ({measured})"
    return f"no: the images look like the target that the model was adapted to ({measured})"


def _unfamiliar(found: Later) -> list[str]:
    if found.unfamiliar is None or found.unfamiliar_limit is None:
        return []
    told = f"more than {in_percent(found.unfamiliar_limit)} is not chance"
    return [f"  {in_percent(found.unfamiliar)} of the images look like none of that target ({told})"]


def _classes(found: Later) -> list[str]:
    if found.shares_moved_by is None:
        return []
    moved = {name: one for name, one in found.classes.items() if one.moved and one.before is not None}
    lines = [f"  predicted class shares differ from the run's by {in_percent(found.shares_moved_by)} (total variation)"]
    if not moved:
        return [*lines, "  no class's share moved beyond chance"]
    lines.append(f"  {len(moved)} of {len(found.classes)} classes have moved:")
    largest = sorted(moved, key=lambda name: -abs(moved[name].now - (moved[name].before or 0)))
    for name in largest[:SHOWN]:
        lines.append(f"    {name}: {in_percent(moved[name].before or 0)} in the run, {in_percent(moved[name].now)} now")
    if len(moved) > SHOWN:
        lines.append(f"    and {len(moved) - SHOWN} more (--json has all)")
    return lines


def _again(found: Later) -> str:
    if found.withheld == "no_class":
        return "no: most images look like no class of the source"
    if found.withheld == "unfamiliar":
        return "not yet: look at some images; if many are of no known class, train on them with --unknown and a share"
    if found.adapt_again is None:
        return "unknown, since it is not known whether the images moved"
    if found.adapt_again:
        how = ", and it was done" if found.updated else ": --update does, in a new run"
        return f"yes{how}; compare the estimates"
    return "no: adapting again to the same place gains little"


def _thresholds(found: Later, thresholds: Thresholds) -> list[str]:
    asked = {
        "least_accuracy": (thresholds.least_accuracy, found.estimated_accuracy.value, "estimate"),
        "least_bound": (thresholds.least_bound, found.estimated_accuracy.lower_bound, "lower bound"),
    }
    unmet = thresholds.unmet(found)
    lines = [
        f"  {'not met' if name in unmet else 'met'}: {what} {_percent(value)}, {100 * least:g} % is asked for"
        for name, (least, value, what) in asked.items()
        if least is not None
    ]
    if thresholds.not_moved:
        lines.append(f"  {'not met' if 'not_moved' in unmet else 'met'}: the images must not have moved")
    return ["", "Thresholds", *lines] if lines else []


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def later_json(found: Later, thresholds: Thresholds) -> str:
    """One line."""
    return msgspec.json.encode(msgspec.to_builtins(found) | {"unmet": thresholds.unmet(found)}).decode()


def later_prometheus(found: Later, thresholds: Thresholds) -> str:
    """Prometheus' text format, for node_exporter's textfile collector; what is unknown is left out."""
    lines, of = list[str](), {"run": found.run, "folder": found.spec}
    for name, meaning, value in _gauges(found, thresholds):
        if value is not None:
            lines += [*_heading(name, meaning), f"biwaa_{name}{{{_labels(of)}}} {float(value):.9g}"]
    lines += _heading("predicted_share", "Share of the images that are predicted so.")
    for name, one in found.classes.items():
        lines.append(f"biwaa_predicted_share{{{_labels(of | {'class': name})}}} {one.now:g}")
    return "\n".join(lines)


def _heading(name: str, meaning: str) -> list[str]:
    return [f"# HELP biwaa_{name} {meaning}", f"# TYPE biwaa_{name} gauge"]


def _gauges(found: Later, thresholds: Thresholds) -> Iterator[tuple[str, str, float | None]]:
    given, classes = found.estimated_accuracy, sum(one.moved is True for one in found.classes.values())
    yield "images", "Images that the figures are of.", found.images
    yield "images_unreadable", "Images that could not be read.", found.left_out
    yield "estimated_accuracy", "Accuracy estimated without labels, a share.", given.value
    yield "estimated_accuracy_low", "Lower end of its 90 % interval.", given.low
    yield "estimated_accuracy_high", "Upper end of its 90 % interval.", given.high
    yield "estimated_accuracy_lower_bound", "Lower bound of the accuracy.", given.lower_bound
    yield "moved", "1 where the images do not look like the target that the model was adapted to.", found.moved
    yield "shift", "Distance of the images' mean from the target's, in shares of the spread.", found.shift
    yield "shift_limit", "What is let pass of the shift.", found.shift_limit
    yield "unfamiliar", "Share of the images that look like none of the run's target.", found.unfamiliar
    yield "classes_moved", "Classes whose predicted share moved.", classes
    yield "thresholds_unmet", "Thresholds that are not met.", len(thresholds.unmet(found))


def _labels(named: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in named.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
