"""The card of the embedded model: what it is, how it was made, and its measurements."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip.checkpoint import Checkpoint
from orthoreg_jax.clip.location import WEIGHTS
from orthoreg_jax.evaluation.checkpoint_accuracy import measure_accuracies
from orthoreg_jax.storage import read_json, write_text
from orthoreg_jax.tasks.task import load_tasks

CARD = """\
# Card of the embedded model

A CLIP of {parameters:.2f} M parameters (image tower {visual:.2f} M: ViT, {layers} layers, width
{width}, patches of {patch} px on 32x32 px images; text tower {text:.2f} M: {text_layers} layers,
width {text_width}, {vocabulary} tokens), trained from nothing on {pairs:,} image-caption pairs of
icons, emoji and small image sets (`DATA_CARD.md`, `ATTRIBUTION.md`) by

    python experiments/embedded/build_data.py
    python experiments/embedded/train_model.py {flags}

on {device}: {steps:,} steps of {batch} pairs ({epochs:g} epochs), last training loss
{loss:.3f}. Stored as an ordinary Hugging Face CLIP directory in float16
(`model/{weights}`, {size:.1f} MB, SHA-256 `{sha256}`).

It is there so that everything can be tried offline in minutes. It knows drawings of things at
32x32 px, and nothing else: its numbers do not compare with those of CLIP ViT-B/32 or of any model
trained on photographs, and it is of no use beyond trying this software.

{optimizer}

## Zero-shot accuracy, measured on it

| task | classes | chance | images | accuracy |
|---|---|---|---|---|
{rows}
"""

# What the optimiser means for studies of the weights.
OPTIMIZERS = {
    "adamw": "It was trained by AdamW, as CLIP was.",
    "muon": (
        "It was trained by Muon, which orthogonalises its updates: its weights have flatter\n"
        "spectra than AdamW's would have, so claims about the angles between pre-trained columns\n"
        "cannot be tested on it."
    ),
}


def write_card(out: pathlib.Path, checkpoint: Checkpoint, facts: dict[str, Any]) -> None:
    """Measures zero-shot accuracy on the test split of every task, and writes MODEL_CARD.md.

    Args:
      out: folder with `model/` and `tasks/`.
      checkpoint: the saved model, loaded again, so that the card describes the file.
      facts: arguments and results of the training.
    """
    table = read_json(out / "tasks" / "tasks.json")["tasks"]
    whole = {name: entry for name, entry in table.items() if "part_of" not in entry}
    control = next(name for name, entry in whole.items() if entry["about"]["control"])
    names = [name for name in whole if name != control]
    tasks = load_tasks(str(out / "tasks"), names, control)
    rows = []
    accuracies = []
    measured = {
        split: measure_accuracies(checkpoint, checkpoint.params, tasks, split)
        for split in ("val", "test")
    }
    for name, task in tasks.items():
        accuracy = measured["test"][name]
        classes, images = len(task.classes), len(task.splits["test"])
        rows.append(
            f"| {task.title} (`{name}`) | {classes} | {1 / classes:.1%} | {images} "
            f"| {accuracy:.1%} |"
        )
        if name != control:
            accuracies.append(accuracy)
    rows.append(f"| mean, control left out | | | | {np.mean(accuracies):.1%} |")
    val = np.mean([accuracy for name, accuracy in measured["val"].items() if name != control])
    print(f"mean zero-shot accuracy on validation, by which trainings are compared: {val:.4f}")
    sizes = {name: _millions(checkpoint.params[name]) for name in ("visual", "text")}
    visual, text = checkpoint.config.visual, checkpoint.config.text
    numbers = ("width", "layers", "patch", "vocabulary", "epochs", "batch", "learning_rate", "seed")
    flags = [f"--{name} {facts[name]:g}" for name in numbers]
    card = CARD.format(
        parameters=_millions(checkpoint.params),
        **sizes,
        layers=visual.layers,
        width=visual.width,
        patch=visual.patch_size,
        text_layers=text.layers,
        text_width=text.width,
        vocabulary=text.vocab_size,
        flags=" ".join([f"--optimizer {facts['optimizer']}", *flags]),
        optimizer=OPTIMIZERS[facts["optimizer"]],
        **{name: facts[name] for name in ("pairs", "epochs", "steps", "batch", "loss", "device")},
        weights=WEIGHTS,
        size=(checkpoint.directory / WEIGHTS).stat().st_size / 1e6,
        sha256=checkpoint.sha256,
        rows="\n".join(rows),
    )
    write_text(out / "MODEL_CARD.md", card)
    print(card)


def _millions(params: Any) -> float:
    return sum(np.size(leaf) for leaf in flatten(params).values()) / 1e6
