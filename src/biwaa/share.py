"""A run on the Hugging Face hub: its model, its recipe, its figures and a model card; and back.

Names of local folders are not published: of paths only the last part is.
"""

import re
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from msgspec.structs import replace

from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.union import JOINT
from biwaa.errors import BiwaaError, listed, one_line
from biwaa.evaluations import Evaluation, read_evaluations
from biwaa.inference.classifier import Classifier, load
from biwaa.recipe import Recipe, dump_recipe, load_recipe
from biwaa.report.estimate import doubt, estimate_error, estimate_text
from biwaa.report.sentences import selected_text, unseen_images, warning_texts
from biwaa.result import Accuracy, AnyWarning, DomainFacts, Result, TeacherFacts, read_result, warnings, write_result
from biwaa.version import __version__

HUB_ERRORS: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError)
"""What the hub's client raises; its own errors and those of a lost network have the HTTP library's as their base."""
CITATION = """@inproceedings{westfechtel2023biwaa,
  title = {Backprop Induced Feature Weighting for Adversarial Domain Adaptation
           with Iterative Label Distribution Alignment},
  author = {Westfechtel, Thomas and Yeh, Hao-Wei and Meng, Qier and Mukuta, Yusuke and Harada, Tatsuya},
  booktitle = {IEEE/CVF Winter Conference on Applications of Computer Vision (WACV)},
  year = {2023}
}"""


def model_card(run: str | PathLike[str], repo_id: str, licence: str | None = None) -> str:
    """README.md of a run's model: YAML front matter, then data, figures with their protocol, use and citation.

    Args:
        run: a finished run folder.
        repo_id: OWNER/NAME, for the lines that show how to load it.
        licence: of the model, by the hub's identifier; None leaves it unsaid.

    Raises:
        BiwaaError: the folder holds no finished run.
    """
    run = Path(run)
    result = public(_result(run))
    target, model = result.target.spec, result.model
    sources = result.sources or ((result.source,) if result.source.images else ())
    front: dict[str, Any] = {
        "library_name": "biwaa",
        "pipeline_tag": "image-classification",
        "tags": ["domain-adaptation", "unsupervised-domain-adaptation", result.method],
    }
    if licence:
        front["license"] = licence
    if result.accuracy:
        share = result.accuracy.adapted.over_images
        metric = {"type": "accuracy", "value": share, "name": "target accuracy over images"}
        task = {"task": {"type": "image-classification"}, "dataset": {"type": target, "name": target}}
        front["model-index"] = [{"name": repo_id, "results": [task | {"metrics": [metric]}]}]
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", "",
        f"# {repo_id.rpartition('/')[2]}", "",
        f"An image classifier with {len(result.classes)} classes, adapted {_whence(result)} to "
        f"unlabelled images of `{target}` with biwaa {result.versions['biwaa']} "
        f"(method `{result.method}`, backbone `{model.backbone}`{', frozen' if model.frozen else ''}).", "",
        f"Classes: {', '.join(f'`{name}`' for name in result.classes)}.", "",
        "## Data", "",
        *(f"- source: `{one.spec}`, {one.images} labelled images.{_terms(one.spec)}" for one in sources),
        *([f"- teacher: {result.teacher.where}."] if result.teacher else []),
        f"- target: `{target}`, {result.target.images} images; {_labels_used(result)}.{_terms(target)}",
        f"- the backbone's weights: {model.weights}.", "",
        "## Figures", "",
        *_figures(result, load_recipe(str(run / "recipe.yaml")), read_evaluations(run)), "",
        "## Use", "",
        "```python", "import biwaa", "", f'model = biwaa.from_pretrained("{repo_id}")',
        'print(model.predict(["image.jpg"]))', "```", "",
        "## Cite", "", "```bibtex", CITATION, "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _whence(result: Result) -> str:
    taught = f"a teacher ({result.teacher.where})" if result.teacher else ""
    named = listed([f"`{spec}`" for spec in result.source_specs], len(result.source_specs))
    labelled = f"{'what a model remembers' if result.remembered else 'labelled images'} of {named}" if named else ""
    return "from " + " and ".join(part for part in (labelled, taught) if part)


def _labels_used(result: Result) -> str:
    if given := result.target.labels_given:
        return f"labels of {given} of them were used in training"
    return "no label of them was used in training"


def public(result: Result) -> Result:
    """A result without the folders of this machine."""

    def without_folders(facts: DomainFacts) -> DomainFacts:
        return replace(facts, spec=public_spec(facts.spec))

    return replace(
        result,
        source=replace(result.source, spec=JOINT.join(map(public_spec, result.source_specs)) or result.source.spec),
        warnings=tuple(map(_public_warning, result.warnings)),
        sources=tuple(replace(one, spec=public_spec(one.spec)) for one in result.sources),
        target=without_folders(result.target),
        held_out=without_folders(result.held_out) if result.held_out else None,
        teacher=replace(result.teacher, where=_public_teacher(result.teacher)) if result.teacher else None,
        model=replace(result.model, weights=public_spec(result.model.weights)),
    )


def _public_warning(warning: AnyWarning) -> AnyWarning:
    if isinstance(warning, warnings.SourcesContradict):
        return replace(warning, specs=tuple(map(public_spec, warning.specs)))
    return warning


def _public_teacher(facts: TeacherFacts) -> str:
    """As `public_spec`; a zero-shot model keeps its name, and its weights' file loses its folders."""
    model, slash, weights = facts.where.partition("/")
    return f"{model}{slash}{public_spec(weights)}" if facts.prompts else public_spec(facts.where)


def public_spec(spec: str) -> str:
    """A SPEC without the folders that it lies in on this machine."""
    name, _, _ = spec.partition(":")
    if name in (*BENCHMARKS, "hf"):
        return spec
    return re.sub(r"[^@]*[/\\](?=[^/\\@])", "", spec).rstrip("/\\") or spec


def push_to_hub(
    run: str | PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    licence: str | None = None,
    token: str | None = None,
) -> str:
    """Publish model.safetensors, recipe.yaml, result.json and a model card; the target's file names are not published.

    Args:
        run: a finished run folder.
        repo_id: OWNER/NAME; it is made where there is none.
        private: of a repository that is made.
        licence: of the model, by the hub's identifier (apache-2.0, cc-by-4.0 ..); the data's terms may bind you.
        token: None for the one that the hub's own login keeps.

    Returns:
        The address of the commit.

    Raises:
        BiwaaError: no finished run, or the hub refuses or cannot be reached.
    """
    run = Path(run)
    result = public(_result(run))
    recipe = load_recipe(str(run / "recipe.yaml"))
    recipe = recipe.replace(weights=public_spec(recipe.network.weights))
    api = HfApi(token=token, library_name="biwaa", library_version=__version__)
    with tempfile.TemporaryDirectory(prefix="biwaa-push-") as draft:
        folder = Path(draft)
        (folder / "README.md").write_text(model_card(run, repo_id, licence), encoding="utf-8")
        (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        write_result(folder, result)
        (folder / "model.safetensors").symlink_to((run / "model.safetensors").absolute())
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="A model adapted with biwaa")
        except HUB_ERRORS as error:
            raise BiwaaError(
                f"{run} cannot be pushed to {repo_id} ({type(error).__name__}: {one_line(error)}): check the name, the "
                "network and your login (`hf auth login`)."
            ) from None
    return str(done.commit_url)


def from_pretrained(
    repo_id: str, *, revision: str | None = None, token: str | None = None, device: str = "auto"
) -> Classifier:
    """The model of a repository that `push_to_hub` filled.

    Args:
        repo_id: OWNER/NAME.
        revision: branch, tag or commit.
        token: None for the one that the hub's own login keeps.
        device: auto, cpu, cuda or mps.

    Raises:
        BiwaaError: no such repository, no model of biwaa in it, or the hub cannot be reached and has nothing cached.
    """
    try:
        path = hf_hub_download(repo_id, "model.safetensors", revision=revision, token=token, library_name="biwaa")
    except HUB_ERRORS as error:
        raise BiwaaError(
            f"no model can be loaded from {repo_id} ({type(error).__name__}: {one_line(error)}): check the name and "
            "the network."
        ) from None
    return load(path, device)


def _result(run: Path) -> Result:
    result = read_result(run)
    if not result.finished or not (run / "model.safetensors").is_file():
        raise BiwaaError(f"{run} is not finished: `biwaa train --resume` goes on with it.")
    return result


def _figures(result: Result, recipe: Recipe, evaluations: Sequence[Evaluation]) -> list[str]:
    """What was measured, then the estimate without labels, then the warnings."""
    lines = []
    if result.accuracy:
        where = f"{unseen_images(result)} target images, whose labels were not used in training"
        lines += _accuracies(f"Accuracy in percent on {where}; one seed, {result.seed}; no average over seeds:",
                             [(stage.name, stage.accuracy) for stage in result.stages])  # fmt: skip
    if result.held_out:
        where = f"{result.held_out.images} held-out images of `{result.held_out.spec}`, not used in training"
        lines += _accuracies(f"Accuracy in percent on {where}:",
                             [(stage.name, stage.held_out) for stage in result.stages])  # fmt: skip
    for one in evaluations:
        if not one.of_source:
            where = f"{one.images} labelled images of `{public_spec(one.spec)}`"
            lines += _accuracies(f"Accuracy in percent on {where}:", [(result.model.stage, one.accuracy)])
    if not lines:
        lines += ["The target has no labels: no accuracy was measured.", ""]
    selected = selected_text(result)
    lines += [f"{selected[0].upper()}{selected[1:]}.", ""]
    about = f"Accuracy estimated without labels: {estimate_text(result)}"
    lines.append(
        f"{about}." if doubt(result)
        else f"{about} (an estimate, not a measurement). {estimate_error(result, recipe)}"
    )  # fmt: skip
    if texts := warning_texts(result, recipe):
        lines += ["", *(f"- warning: {text}" for text in texts)]
    return lines


def _accuracies(title: str, rows: list[tuple[str, Accuracy | None]]) -> list[str]:
    lines = [title, "", "| stage | over images | over classes |", "| --- | --- | --- |"]
    for name, found in rows:
        if found:
            lines.append(f"| {name} | {100 * found.over_images:.1f} | {100 * found.over_classes:.1f} |")
    return [*lines, ""]


def _terms(spec: str) -> str:
    name = spec.partition(":")[0]
    return f" Terms of {BENCHMARKS[name].title}: {BENCHMARKS[name].terms.rstrip('.')}." if name in BENCHMARKS else ""
