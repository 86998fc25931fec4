"""Task vectors of models, tau = theta - theta_0, read leaf by leaf from the models' files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from orthoreg_jax.arithmetic.paths import flatten, unflatten
from orthoreg_jax.trees import hash_leaves

from .adapters import StoredAdapter
from .checkpoint import Checkpoint, load_checkpoint
from .opening import Base, open_model
from .processor import has_processor, read_processor
from .weights import param_shapes

# Keys of the base's hashes, of its file and of its image tower, in a vector file's metadata.
FILE, TOWER = "pretrained_sha256", "pretrained_tower_sha256"


class ModelVector:
    """A model's difference from its base, with the interface of `StoredTree`.

    It has every leaf of the image tower, with zeros where the model uses the base's leaves. It has
    the text tower and logit_scale if one of them differs.

    Attributes:
      path: name of the model, for messages.
      shapes: shapes of the leaves, by path.
      notes: a sentence on each part that was left out, or taken from the base.
    """

    def __init__(self, source: str | os.PathLike[str], base: Checkpoint) -> None:
        """Opens the model and compares its text tower with the base's.

        Raises:
          ValueError: as `load_checkpoint`; or the text tower has another size than the base's.
        """
        self._base = flatten(base.params)
        opened = open_model(source, Base(base.config, self._base))
        self._stored, self.path = opened.stored, str(source)
        own, theirs = param_shapes(opened.stored.config), param_shapes(base.config)
        wrong = [
            f"{path} is {own[path]}, the base's {theirs[path]}"
            for path in opened.stored.paths
            if own[path] != theirs[path]
        ]
        if wrong:
            raise ValueError(f"{source}: was not fine-tuned from that base: {'; '.join(wrong)}")
        self.notes, self._directory = opened.notes, opened.directory
        self._size = base.config.visual.image_size
        self._files, self._checkpoint = opened.files, base
        image = [path for path in self._base if path.startswith("visual/")]
        self._text = [path for path in self._base if path not in image]
        self.shapes = self._shapes_of(image)
        self.both_towers = any(self.read(path).any() for path in self._text)
        if self.both_towers:
            self.hold_text()

    def hold_text(self) -> None:
        """Includes the text tower's leaves, even if they are zeros."""
        self.shapes = self._shapes_of(self._base)

    def drop_text(self) -> None:
        """Keeps only the image tower's leaves, even if the model changed the text tower."""
        image = [path for path in self._base if path.startswith("visual/")]
        self.shapes, self.both_towers = self._shapes_of(image), False

    def _shapes_of(self, paths: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            path: jax.ShapeDtypeStruct(self._base[path].shape, np.float32) for path in sorted(paths)
        }

    def read(self, name: str, place: int | None = None) -> np.ndarray:
        """A leaf, or the slice at `place` along its first axis, with that axis kept.

        Raises:
          ValueError: it is not finite, or cannot be read.
        """
        base = self._base[name] if place is None else self._base[name][place : place + 1]
        if name not in self._stored.paths:
            return np.zeros(base.shape, np.float32)
        try:
            if isinstance(self._stored, StoredAdapter):
                return self._stored.delta(name, place)
            return np.asarray(self._stored.read(name, place) - base)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def check(self) -> str:
        """Returns the hash of the model's weights files; their content is checked when read."""
        return self._files.sha256

    @property
    def about(self) -> dict[str, str]:
        """Hashes of the model and of the base."""
        return base_facts(self._checkpoint) | {"model_sha256": self._files.sha256}

    @property
    def revision(self) -> str:
        """The commit of a hub model, from the hub's cache; empty for other models."""
        parts = self._directory.parts if self._directory else ()
        return parts[-1] if parts[-2:-1] == ("snapshots",) else ""

    def tree(self) -> dict[str, Any]:
        """The whole vector, in memory."""
        return unflatten({name: self.read(name) for name in self.shapes})

    def factored_tree(self) -> dict[str, Any]:
        """What an adapter changes, in `LowRank` nodes where it has factors.

        Raises:
          ValueError: the model is no adapter.
        """
        if not isinstance(self._stored, StoredAdapter):
            raise ValueError(
                f"{self.path}: is not a LoRA adapter, so its update has no factors; leave out "
                "dense=False"
            )
        stored = self._stored
        return unflatten(
            {path: stored.factored(path) for path in stored.paths if path in self.shapes}
        )

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        """The preprocessing in the model's own files; None if it has none."""
        if self._directory is None or not has_processor(self._directory):
            return None
        return read_processor(self._directory, self._size).values

    def preprocessing_problem(self) -> str:
        """How the model's own preprocessing differs from its base's; empty if it does not."""
        own, base = self.preprocessing, self._checkpoint
        theirs = read_processor(base.preprocessing_directory, self._size).values
        if own is None or own == theirs:
            return ""
        wrong = [f"{key} {own[key]}, {each}" for key, each in theirs.items() if each != own[key]]
        return (
            f"{self.path}: preprocesses images differently from the base "
            f"({'; '.join(wrong)}), but one model has one preprocessing. Put the right "
            "preprocessor_config.json next to the weights whose files are wrong"
        )


def base_facts(base: Checkpoint) -> dict[str, str]:
    """Hashes that identify a vector's base: its file's, and its image tower's.

    The image tower's is a hash of the numbers, independent of the file's layout and type.
    """
    return {FILE: base.sha256, TOWER: hash_tower(base.params["visual"])}


def hash_tower(visual: Any) -> str:
    """SHA-256 of an image tower's numbers in float32, by the paths of its leaves."""
    leaves = flatten({"visual": visual})
    return hash_leaves((path, np.asarray(leaves[path], np.float32)) for path in sorted(leaves))


def base_problem(about: Mapping[str, Any], base: Checkpoint) -> str:
    """What is wrong with the base that a vector's file names; "" if nothing."""
    stated = {key: about[key] for key in (FILE, TOWER) if key in about}
    if not stated:
        return (
            "does not record which weights it was computed against; make it with `orthoreg "
            f'vector`, or give save_tree the metadata {{"{FILE}": clip.sha256}}'
        )
    if base.sha256 == stated.get(FILE) or base_facts(base)[TOWER] == stated.get(TOWER):
        return ""
    found = next(iter(stated.values()))
    return (
        f"was computed against other pre-trained weights (SHA-256 {str(found)[:12]}) than the "
        f"base's ({base.sha256[:12]}); give the base that the model was fine-tuned from"
    )


def load_task_vector(
    model: str | os.PathLike[str],
    base: str | os.PathLike[str] | Checkpoint,
    visual_only: bool = False,
    dense: bool = True,
) -> dict[str, Any]:
    """Tau = theta - theta_0 of a fine-tuned CLIP.

    Args:
      model: anything that `load_checkpoint` reads with a base: a whole CLIP, an image tower, a LoRA
        adapter, as directory, file or hub name.
      base: the CLIP that it was fine-tuned from, theta_0.
      visual_only: leave out what it changed of the text tower.
      dense: multiply out a LoRA adapter's factors. False, for adapters alone: a tree of the leaves
        that the adapter changes, as `LowRank` nodes, which `dense` and `apply_task_vector` take.

    Returns:
      `{"visual": ...}` of float32 numpy arrays, as runs save it; also "text" and "logit_scale" if
      the model's differ from the base's. Parts that the model lacks are zeros.

    Raises:
      ValueError: as `load_checkpoint`; or the model has another size than the base.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> float(oj.norm(oj.load_task_vector("embedded", clip)))
      0.0
    """
    vector = ModelVector(model, base if isinstance(base, Checkpoint) else load_checkpoint(base))
    if visual_only:
        vector.drop_text()
    return vector.tree() if dense else vector.factored_tree()
