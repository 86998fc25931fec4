"""Model cards of merged models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orthoreg_jax.clip.checkpoint import Checkpoint
from orthoreg_jax.clip.differences import ModelVector
from orthoreg_jax.evaluation.results import Results, Run
from orthoreg_jax.merging.files import Source
from orthoreg_jax.reporting.summary import count_images, describe_validation
from orthoreg_jax.versions import version
from orthoreg_jax.words import counted

from .alpha import Measured
from .cards import AccuracyRow, Card, Shown, show_accuracies
from .merger_choice import MergerChoice

# The card's sentence about the text tower, by whether the vectors change it.
TEXT_TOWER = {
    False: "The text tower is the pre-trained one.",
    True: "The text tower is merged in the same way, so the zero-shot heads change, too.",
}
RECORDED_PACKAGES = ("orthoreg-jax", "jax", "numpy")


def describe_source(source: Source) -> str:
    """A source and its revision on the hub, for a card."""
    revision = source.revision if isinstance(source, ModelVector) else ""
    return f"`{source.path}`" + (f" at revision `{revision}`" if revision else "")


def run_accuracies(results: Results, run: Run, measured: Measured | None) -> Shown:
    """Accuracies of a merged model of a run, if alpha was chosen on its data."""
    if measured is None:
        by_hand = "Not measured: α was given by hand. Run `orthoreg measure --model .` to measure."
        return Shown(by_hand)
    zero_shot, single = results["zero_shot"]["test"], run["single"]["test"]
    titles, images = results["tasks"], count_images(results)
    rows = [
        AccuracyRow(titles[task], images[task], (zero_shot[task], single[task]), value)
        for task, value in measured.test.items()
    ]
    return accuracy_table(rows, measured.at_edge, describe_validation(results))


def accuracy_table(rows: Sequence[AccuracyRow], at_edge: bool, limited: str = "") -> Shown:
    """Accuracies by task, compared with zero-shot and the task's own model.

    Args:
      rows: one for each task.
      at_edge: whether alpha is the largest one tried.
      limited: a sentence on the images that alpha was chosen on, if these were not all.
    """
    edge = "It is the largest tried; a larger one might be better." if at_edge else ""
    chosen = "α is the best on validation, by mean normalised accuracy."
    note = " ".join(filter(None, (chosen, edge, limited)))
    return show_accuracies(("zero-shot", "its own model"), rows, note)


def merge_card(
    checkpoint: Checkpoint,
    model: str,
    merger: MergerChoice,
    alpha: float,
    sources: Mapping[str, tuple[str, str]],
    made_by: str,
    measured: Shown,
    beyond: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Card:
    """The model card; `beyond` are leaves of the vector outside the image tower."""
    origins = [f"pre-trained weights: SHA-256 `{checkpoint.sha256}`"]
    origins += [
        f"{name} of {source}: SHA-256 `{content}`" for source, (name, content) in sources.items()
    ]
    towers = "towers merge" if beyond else "image tower merges"
    names = ", ".join(name for name, _ in sources.values())
    return Card(
        title=f"{model}, {counted(len(sources), 'task')} merged by {merger.name}",
        model=model,
        kind=f"whose {towers} {counted(len(sources), 'task vector')}",
        formula=f"θ₀ + {alpha:g} · {merger.name}({names})",
        vector=f"the change of the weights by fine-tuning on one task{made_by}",
        text=f"The merger is `{merger.name}` with {merger.describe()}. {TEXT_TOWER[bool(beyond)]}",
        measured=measured,
        origins=[*origins, *notes],
        command="merge",
        source="",
        versions=[(name, version(name)) for name in RECORDED_PACKAGES],
        tags=["model-merging"],
    )
