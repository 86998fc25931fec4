"""The model card of an edited CLIP: its formula, its accuracies and its sources."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from orthoreg_jax.clip.config import HUB_NAMES
from orthoreg_jax.clip.saving import OUTPUTS
from orthoreg_jax.reporting.summary import ImageCount
from orthoreg_jax.reporting.tables import markdown_rows, percent

CARD_TEMPLATE = """\
---
{front}---

# {title}

A CLIP {kind}:

    {formula}

θ₀ are the weights of `{model}`; τ, a task vector, is {vector}. {text}

{usage}

## Measured

{measured}

## Made of

{origins}

{made_by}; {versions}.
"""
# How to load each layout, and the hub's names for its library and task.
_IMAGE_TOWER = """\
    from transformers import CLIPImageProcessor, {kind}
    model, processor = {kind}.from_pretrained("."), CLIPImageProcessor.from_pretrained(".")"""
_OPEN_CLIP = """\
    import open_clip  # from 3.0; earlier versions read open_clip_model.safetensors by its path
    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:.")"""
_WHOLE = """\
    from transformers import CLIPModel, CLIPProcessor
    model, processor = CLIPModel.from_pretrained("."), CLIPProcessor.from_pretrained(".")"""
ZERO_SHOT, FEATURES = "zero-shot-image-classification", "image-feature-extraction"


def _loading(layout: str) -> tuple[str, str, str]:
    """Lines that load a layout, the library, and the task."""
    kind = OUTPUTS[layout].kind
    if not kind:
        return _OPEN_CLIP, "open_clip", ZERO_SHOT
    if kind == "CLIPModel":
        return _WHOLE, "transformers", ZERO_SHOT
    alone = "\n\nThis directory holds the image tower alone; projection and text tower are θ₀'s."
    if "Projection" in kind:
        alone = (
            "\n\nThis directory holds the image tower and its projection; the text tower is θ₀'s."
        )
    return _IMAGE_TOWER.format(kind=kind) + alone, "transformers", FEATURES


MADE_BY = "Made by `orthoreg "  # every card says so


class AccuracyRow(NamedTuple):
    """Test accuracies on one task.

    Attributes:
      title: the task's.
      images: how many of its test images were used.
      compared: accuracies of the models that the edited one is compared with.
      accuracy: the edited model's.
    """

    title: str
    images: ImageCount
    compared: tuple[float, ...]
    accuracy: float


class Shown(NamedTuple):
    """A card's text on accuracies, and the rows of its table."""

    text: str
    rows: tuple[AccuracyRow, ...] = ()


def show_accuracies(compared: Sequence[str], rows: Sequence[AccuracyRow], note: str) -> Shown:
    """The table of a card; `compared` names the models of `AccuracyRow.compared`."""
    header = ("Test accuracy, %", "images", *compared, "this model")
    cells = [
        (row.title, f"{row.images}", *map(percent, (*row.compared, row.accuracy))) for row in rows
    ]
    return Shown(f"{markdown_rows(header, cells)}\n\n{note}", tuple(rows))


class Card(NamedTuple):
    """The parts of a card that differ between cards.

    Attributes:
      title: the card's first line.
      model: the pre-trained model.
      kind: completes "A CLIP ...".
      formula: formula of the weights.
      vector: what a task vector is, in words.
      text: further facts, in particular about the text tower.
      measured: accuracies.
      origins: a line for each input that it was made from.
      command: the command of `orthoreg` that made it.
      source: what it was made from, in words.
      versions: package versions, by name.
      tags: tags in addition to those of every edited CLIP.
    """

    title: str
    model: str
    kind: str
    formula: str
    vector: str
    text: str
    measured: Shown
    origins: Sequence[str]
    command: str
    source: str
    versions: Sequence[tuple[str, str]]
    tags: Sequence[str] = ()

    def format(self, layout: str = "transformers") -> str:
        """The card of a model in a layout, in the hub's format."""
        usage, library, task = _loading(layout)
        return CARD_TEMPLATE.format(
            front=_front(self.model, self.title, self.measured.rows, self.tags, library, task),
            usage=usage,
            title=self.title,
            kind=self.kind,
            formula=self.formula,
            model=self.model,
            vector=self.vector,
            text=self.text,
            measured=self.measured.text,
            origins="\n".join(f"- {line}" for line in self.origins),
            made_by=f"{MADE_BY}{self.command}`{self.source}",
            versions=", ".join(f"{name} {version}" for name, version in self.versions),
        )


def _front(
    model: str,
    title: str,
    rows: Sequence[AccuracyRow],
    tags: Sequence[str],
    library: str,
    pipeline: str,
) -> str:
    """The metadata block of a card, which the hub uses to show and find models.

    Args:
      model: the pre-trained one, named as the base if the hub has it.
      title: of the card.
      rows: of its table of accuracies.
      tags: in addition to those of every edited CLIP.
      library: that loads it.
      pipeline: the hub's name of what it does.
    """
    from huggingface_hub import EvalResult, ModelCardData

    repository = HUB_NAMES.get(model, model).partition("@")[0]
    on_hub = repository.count("/") == 1 and not pathlib.Path(model).is_dir()
    results = [
        EvalResult(
            task_type=ZERO_SHOT,
            dataset_type=re.sub("[^a-z0-9]+", "-", row.title.lower()).strip("-"),
            dataset_name=row.title,
            dataset_split="test",
            metric_type="accuracy",
            metric_name=f"accuracy on {row.images} test images",
            metric_value=round(row.accuracy, 4),
        )
        for row in rows
    ]
    data = ModelCardData(
        base_model=repository if on_hub else None,
        library_name=library,
        pipeline_tag=pipeline,
        tags=["clip", "task-arithmetic", *tags],
        model_name=title,
        eval_results=results or None,
    )
    return f"{data.to_yaml()}\n"
