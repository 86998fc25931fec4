"""Models that were fine-tuned elsewhere, as the method "given" of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip.checkpoint import Checkpoint
from orthoreg_jax.clip.differences import ModelVector, base_problem
from orthoreg_jax.storage import StorageError
from orthoreg_jax.trees import StoredTree

ONLY_IMAGE = (
    "a run evaluates image towers with the zero-shot heads of the base. To leave the text tower "
    "unchanged, give the file that `orthoreg vector --visual-only` writes"
)
# What a vector's file says of the model that it was read from.
GIVEN_FACTS = ("model", "model_sha256", "revision")


class Given(NamedTuple):
    """One model, opened and checked.

    Attributes:
      name: as the config has it.
      source: its difference from the base.
      about: facts for the vector's file: the model's name, its hash, its revision on the hub.
      notes: a sentence for all that is left out, or taken from the base.
    """

    name: str
    source: ModelVector | StoredTree
    about: dict[str, str]
    notes: tuple[str, ...] = ()


def open_given(entries: Sequence[str], tasks: Sequence[str], base: Checkpoint) -> dict[str, Given]:
    """Opens the models of all tasks and compares them with the base.

    Args:
      entries: "TASK=MODEL".
      tasks: in the order of the result.
      base: the model that they were fine-tuned from.

    Raises:
      ValueError: models that cannot be read, do not fit the base or equal it, preprocess images in
        another way, or change the text tower: all of them in one message.
    """
    named = {task: model for task, _, model in (entry.partition("=") for entry in entries)}
    opened, problems = {}, []
    for task in tasks:
        try:
            opened[task] = _open(named[task], base)
        except (ValueError, StorageError) as error:
            problems.append(f"{task}: {error}")
    if problems:
        raise ValueError("given: " + "; ".join(problems))
    return opened


def _open(name: str, base: Checkpoint) -> Given:
    path = pathlib.Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        stored = StoredTree(path)
        if any(leaf.startswith("visual/") for leaf in stored.shapes):
            return _open_vector(name, stored, base)
    vector = ModelVector(name, base)
    problem = vector.preprocessing_problem()
    if vector.both_towers:
        problem = f"{name}: changes the text tower, too, but {ONLY_IMAGE}"
    if problem:
        raise ValueError(problem)
    _check_changed(name, vector)
    about = dict(zip(GIVEN_FACTS, (name, vector.check(), vector.revision), strict=True))
    return Given(name, vector, about, vector.notes)


def _open_vector(name: str, stored: StoredTree, base: Checkpoint) -> Given:
    if problem := base_problem(stored.about, base):
        raise ValueError(f"{name}: {problem}")
    leaves = flatten({"visual": base.params["visual"]})
    beyond = [path for path in stored.shapes if not path.startswith("visual/")]
    if beyond:
        raise ValueError(f"{name}: holds {', '.join(beyond[:5])}, too, but {ONLY_IMAGE}")
    wrong = [
        f"{path} is {leaf.shape}, the base's {leaves[path].shape if path in leaves else 'none'}"
        for path, leaf in stored.shapes.items()
        if path not in leaves or leaf.shape != leaves[path].shape
    ]
    if missing := sorted(leaves.keys() - stored.shapes.keys()):
        wrong.append(f"it lacks {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}")
    if wrong:
        raise ValueError(f"{name}: does not fit the base: {'; '.join(wrong)}")
    sha256 = stored.check()
    _check_changed(name, stored)
    model = stored.about.get("model")
    notes = (f"{name}: task vector of {model}",) if model else ()
    about = dict(zip(GIVEN_FACTS, (name, sha256, ""), strict=True))
    return Given(name, stored, about, notes)


def _check_changed(name: str, source: ModelVector | StoredTree) -> None:
    if not any(source.read(path).any() for path in source.shapes):
        raise ValueError(f"{name}: equals its base; give the fine-tuned model")


def changed_leaves(models: Collection[Given] | Iterable[Given]) -> list[str]:
    """Leaves that any of the models changes: the others say nothing of how vectors look."""
    models = list(models)
    return [
        path
        for path in models[0].source.shapes
        if any(each.source.read(path).any() for each in models)
    ]
