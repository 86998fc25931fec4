"""Writes a model's task vector to a file that records the base weights."""

from __future__ import annotations

import pathlib

from orthoreg_jax.arithmetic.task_vectors import norm
from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.differences import ModelVector
from orthoreg_jax.progress import say
from orthoreg_jax.trees import save_tree


def write_vector(model: str, base: str, out: pathlib.Path, visual_only: bool = False) -> str:
    """Writes tau = theta - theta_0 and returns a one-line description.

    Args:
      model: anything that `load_checkpoint` reads with a base.
      base: the CLIP that it was fine-tuned from.
      out: a new safetensors file.
      visual_only: ignore the model's changes to the text tower.

    Raises:
      ValueError: `out` exists, or a model cannot be read or does not fit its base.
      StorageError: `out` cannot be written.
    """
    if out.exists():
        raise ValueError(f"--out {out}: already exists; choose a new file")
    checkpoint = load_checkpoint(base)
    vector = ModelVector(model, checkpoint)
    for note in (*checkpoint.notes, *vector.notes):
        say(note)
    if visual_only:
        vector.drop_text()
    tree = vector.tree()
    save_tree(out, tree, {"model": model, **vector.about})
    share = float(norm(tree["visual"])) / float(norm(checkpoint.params["visual"]))
    held = "both towers" if vector.both_towers else "the image tower"
    same = "; the model equals its base" if share == 0 and not vector.both_towers else ""
    return f"{out}: task vector of {held}, {share:.3g} times the norm of the base{same}"
