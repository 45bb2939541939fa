"""What is asked for, made to go together before anything is opened: the recipe, the domains, a teacher, labels.

What the domains decide enters the recipe; what does not go together is refused with a way out.
"""

from dataclasses import replace

from biwaa.domains.classes import match_classes, tell_oddities, with_unknown
from biwaa.domains.labels import UNKNOWN
from biwaa.domains.trainable import check_kind, check_pair
from biwaa.errors import BiwaaError
from biwaa.methods import METHODS
from biwaa.models.backbone import FEATURES
from biwaa.models.known import KnownSource, check_backbone, check_width
from biwaa.progress import say
from biwaa.recipe import AUTO, Recipe, with_method
from biwaa.training.prepare import Pair
from biwaa.training.suited import least_images
from biwaa.training.teach import GivenScores, Lesson, check_taught, sourceless

PROTOTYPES = "prototypes"
"""The method that learns from what is remembered of a source."""


def check_sees_target(method: str) -> None:
    """Refuse labels of the target for a method that does not look at it.

    Raises:
        BiwaaError: it does not.
    """
    if not METHODS[method].sees_target:
        raise BiwaaError(
            f"the method {method} learns from the source alone, so labels of target images would change nothing: leave "
            "--target-labels or --method out."
        )


def implied(recipe: Recipe, pair: Pair, lesson: Lesson | None) -> Recipe:
    """Features need no backbone, a linear probe is of a frozen one, and so is what learns from a teacher.

    What the method does not decide stays open.

    Raises:
        BiwaaError: the domains differ in kind, or the recipe asks for what a teacher or a model cannot give.
    """
    width = check_kind(*(domain for domain in (pair.source, pair.target, pair.held_out) if domain))
    if width is not None:
        if recipe.network.freeze_backbone is False or recipe.network.backbone not in (AUTO, FEATURES):
            say("these are features, so there is no backbone to name or to train")
        recipe = recipe.replace(backbone=FEATURES, weights="auto", freeze_backbone=True)
    if lesson and recipe.method == AUTO and not recipe.network.freeze_backbone:
        say("a teacher is heard on a frozen backbone: as with --freeze-backbone, features are computed once")
        recipe = recipe.replace(freeze_backbone=True)
    if lesson:
        check_taught(with_method(recipe).method)
    if pair.known:
        recipe = _of_known(recipe, pair.known, width, lesson)
    elif not len(pair.source.images):  # nothing to train source-only on, or to hold out
        _check_no_images(recipe, "there is no source")
        recipe = recipe.replace(baseline=False, source_held_out=0.0, source_shift="none")
    frozen = recipe.method != AUTO and METHODS[recipe.method].frozen
    return recipe.replace(freeze_backbone=True) if frozen else recipe


def _of_known(recipe: Recipe, known: KnownSource, width: int | None, lesson: Lesson | None) -> Recipe:
    """The recipe for a model in the place of the source's images: its own backbone, frozen.

    Raises:
        BiwaaError: another backbone or method is asked for, or the target (`width` features a row) is of another kind.
    """
    network = recipe.network
    check_width(known, width)
    check_backbone(known, network.backbone, network.weights, recipe.data.image_size)
    if recipe.method not in (AUTO, PROTOTYPES) or network.freeze_backbone is False:
        raise BiwaaError(
            f"{known.spec} has no images to train on: its backbone stays frozen, and the method is {PROTOTYPES}. Leave "
            "--method and --no-freeze-backbone out."
        )
    _check_no_images(recipe, f"{known.spec} has no images")
    if isinstance(lesson, GivenScores) and lesson.source:
        raise BiwaaError(f"{known.spec} has no images that scores could be of: leave --teacher-source out.")
    if lesson and known.memory is None:
        raise BiwaaError(f"{known.spec} has a head alone, which is the teacher: leave the other teacher out.")
    features, transform = known.backbone.name == FEATURES, known.transform
    return recipe.replace(
        backbone=known.backbone.name, freeze_backbone=True, source_held_out=0.0, source_shift="none",
        image_size=None if features else transform.image_size, resize=None if features else transform.resize,
        baseline=recipe.schedule.baseline and (known.memory is None or known.memory.head is not None),
    )  # fmt: skip


def _check_no_images(recipe: Recipe, why: str) -> None:
    """Refuse settings of a source's images where there are none.

    Raises:
        BiwaaError: one is set.
    """
    if recipe.data.source_shift != "none":
        raise BiwaaError(f"{why}, of which --source-shift would take some: leave it out.")
    if recipe.network.statistics != "domain":
        raise BiwaaError(f"{why}, and --statistics {recipe.network.statistics} is of them: leave it out.")


def checked_pair(pair: Pair, recipe: Recipe) -> Pair:
    """The pair with one order of classes; held-out images labelled, and none of those that are trained on.

    Raises:
        BiwaaError: as of `check_pair` and `sourceless`, or the held-out images are not such.
    """
    # A rule that makes the source smaller also changes what is kept from training: `prepare` checks it then.
    if recipe.prototypes.unknown != "off":
        pair = replace(pair, source=with_unknown(pair.source))
    share, size = recipe.data.source_held_out if recipe.data.source_shift == "none" else 0.0, least_images(recipe)
    held_out = pair.held_out
    source, target = (
        check_pair(pair.source, pair.target, size, share) if len(pair.source.images)
        else sourceless(pair.source, pair.target, size, pair.known.spec if pair.known else "--classes")
    )  # fmt: skip
    tell_oddities(source, target)
    for domain in (target, held_out):
        if domain and (missing := len(domain.unlabelled())):
            say(f"{missing} of {len(domain.images)} images of {domain.spec} have no label: the report passes over them")
    if held_out:
        if held_out.labels is None:
            raise BiwaaError(f"{held_out.spec} has no labels to score against: held-out images need them.")
        for domain in (source, target):
            if held_out.images.identity() & domain.images.identity():
                raise BiwaaError(f"{held_out.spec} shares images with {domain.spec}: held-out images must be others.")
        held_out = match_classes(held_out, source.classes or (), other=source.spec, others=UNKNOWN in source.may_lack)
    return Pair(source, target, held_out, known=pair.known)


def check_unknown(recipe: Recipe) -> None:
    """Refuse `unknown` where it is not found.

    Args:
        recipe: with its method decided.

    Raises:
        BiwaaError: another method, or the backbone is trained.
    """
    if recipe.prototypes.unknown != "off" and (recipe.method != PROTOTYPES or not recipe.network.frozen):
        raise BiwaaError(
            f"--unknown {recipe.prototypes.unknown} is for the method {PROTOTYPES} on a frozen backbone: leave "
            "--method out and add --freeze-backbone, or leave --unknown out."
        )


def tell_unnoticed(pair: Pair, recipe: Recipe) -> None:
    """Say that unknown images go unnoticed without a rate where nothing is known of the source but what a head says."""
    named = pair.given is not None and bool((pair.given == len(pair.source.classes or ()) - 1).any())
    alone = not len(pair.source.images) and not (pair.known and pair.known.memory)
    if recipe.prototypes.unknown == AUTO and alone and not named:
        what = "a head" if pair.known else "a teacher"
        say(
            f"warning: from {what} alone --unknown auto noticed unknown images on none of our benchmarks: if there are "
            "any, name their share, as in --unknown 0.3"
        )
