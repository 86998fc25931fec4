"""The model card of an edited CLIP: its formula, its accuracies and its sources."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from orthoreg_jax.clip.config import HUB_NAMES

CARD_TEMPLATE = """\
---
{front}---

# {title}

A CLIP {kind}:

    {formula}

θ₀ are the weights of `{model}`; τ, a task vector, is {vector}. {text}

    from transformers import CLIPModel, CLIPProcessor
    model, processor = CLIPModel.from_pretrained("."), CLIPProcessor.from_pretrained(".")

## Measured

{measured}

## Made of

{origins}

{made_by}; {versions}.
"""
MADE_BY = "Made by `orthoreg "  # in every card


class Shown(NamedTuple):
    """A card's text on accuracies, and the model's test accuracies by task title."""

    text: str
    test: tuple[tuple[str, float], ...] = ()


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

    def format(self) -> str:
        """Formats the card for the hub."""
        return CARD_TEMPLATE.format(
            front=_front(self.model, self.title, self.measured.test, self.tags),
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
    model: str, title: str, accuracies: Sequence[tuple[str, float]], tags: Sequence[str]
) -> str:
    """The metadata block of a card, which the hub uses to show and find models.

    Args:
      model: the pre-trained model, named as the base if the hub has it.
      title: the card's title.
      accuracies: test accuracies, by task title.
      tags: tags in addition to those of every edited CLIP.
    """
    from huggingface_hub import EvalResult, ModelCardData

    task = "zero-shot-image-classification"
    repository = HUB_NAMES.get(model, model).partition("@")[0]
    on_hub = repository.count("/") == 1 and not pathlib.Path(model).is_dir()
    results = [
        EvalResult(
            task_type=task,
            dataset_type=re.sub("[^a-z0-9]+", "-", name.lower()),
            dataset_name=name,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=round(value, 4),
        )
        for name, value in accuracies
    ]
    data = ModelCardData(
        base_model=repository if on_hub else None,
        library_name="transformers",
        pipeline_tag=task,
        tags=["clip", "task-arithmetic", *tags],
        model_name=title,
        eval_results=results or None,
    )
    return f"{data.to_yaml()}\n"
