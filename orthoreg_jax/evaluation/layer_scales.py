"""A scale for each layer of a merged task vector, searched on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.checks import check_precision, check_scale, check_scales
from orthoreg_jax.arithmetic.paths import flatten, unflatten
from orthoreg_jax.arithmetic.task_vectors import apply_task_vector
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, TaskVector
from orthoreg_jax.clip.checkpoint import Checkpoint, check_checkpoint
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.words import counted

from .checkpoint_accuracy import open_evaluation, visual_parts
from .checks import check_whole, read_accuracies, read_tasks
from .search import search_per_task

BLOCKS, FIRST = "blocks/", ("patch_embedding", "class_embedding", "position_embedding", "pre_norm")


def layer_names(vector: TaskVector) -> list[str]:
    """The layers of an image tower's task vector: embeddings, each block, and what comes last.

    Args:
      vector: `{"visual": ...}`, of the tower or a part of it.

    Raises:
      ValueError: one that is not of an image tower alone.

    Examples:
      >>> oj.layer_names({"visual": {"blocks": {"scale": jnp.ones((2, 3))}}})
      ['embeddings', 'block 0', 'block 1', 'last']
    """
    (tower,) = visual_parts([vector])
    return ["embeddings", *(f"block {number}" for number in range(_depth(tower))), "last"]


def scale_layers(
    vector: TaskVector, scales: Sequence[float] | Float[Array | np.ndarray, " l"]
) -> TaskVector:
    """Multiplies each layer of an image tower's task vector by a number of its own.

    Args:
      vector: `{"visual": ...}`, merged by any merger.
      scales: one finite number for each of `layer_names`.

    Raises:
      ValueError: one that is not of an image tower alone, or whose leaves JAX would truncate;
        another number of scales, or what is no finite number.

    Examples:
      >>> vector = {"visual": {"blocks": {"scale": jnp.ones((2, 1))}}}
      >>> oj.scale_layers(vector, [1.0, 0.5, 2.0, 1.0])["visual"]["blocks"]["scale"].tolist()
      [[0.5], [2.0]]
    """
    check_scales(scales)
    names = layer_names(vector)
    check_precision({"vector": vector})
    if len(scales) != len(names):
        raise ValueError(
            f"{counted(len(scales), 'scale')} for {counted(len(names), 'layer')}; give one for "
            f"each of {', '.join(names)}"
        )
    (tower,) = visual_parts([vector])
    return {"visual": _scaled(tower, jnp.asarray(scales))}


def search_layer_scales(
    checkpoint: Checkpoint,
    vector: TaskVector,
    tasks: Mapping[str, Task],
    single: Sequence[float] | Float[np.ndarray, " t"],
    *,
    alpha: float = 1.0,
    rounds: int = 1,
    limit: int = 0,
    batch_size: int = 256,
) -> list[float]:
    """Searches one scale for each layer of a merged task vector, on validation images.

    Layer after layer, half, 0.71, 1.41 and twice its scale are tried while the others stay; the
    best validation mean of normalised accuracy stays, as in the search of one alpha for each task.
    The result goes on top of any merger; it takes 1 + 4 * layers * rounds evaluations.

    Args:
      checkpoint: the pre-trained model.
      vector: `{"visual": ...}`, merged by any merger.
      tasks: with the split "val", from `load_tasks`.
      single: validation accuracy of each task's own fine-tuned model, in the order of `tasks`.
      alpha: of all layers, to begin with; not 0.
      rounds: how often all layers are gone through.
      limit: images of each task, chosen by a fixed seed; 0: all.
      batch_size: images at a time.

    Returns:
      Scales for `scale_layers`, alpha included.

    Raises:
      ValueError: not one accuracy from 0 to 1 for each task; alpha is no number, or 0; rounds are
        no whole number from 0; as `sweep_accuracy`.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> tasks = oj.load_tasks("embedded", ["weather"])
      >>> vector = {"visual": jax.tree.map(np.zeros_like, clip.params["visual"])}
      >>> found = oj.search_layer_scales(clip, vector, tasks, [1.0], rounds=0, limit=8)
      >>> set(found)
      {1.0}
    """
    check_checkpoint(checkpoint)
    check_scale(alpha, "alpha")
    if alpha == 0:
        raise ValueError("alpha is 0, and so every scale would stay 0; give another, such as 1.0")
    check_whole("rounds", rounds, 0)
    given, found = read_accuracies(single, "single"), read_tasks(tasks, "val")
    if given.shape != (len(found),):
        raise ValueError(
            f"{counted(given.size, 'accuracy', 'accuracies')} for {counted(len(found), 'task')}; "
            "give one for each"
        )
    names, (tower,) = layer_names(vector), visual_parts([vector])
    evaluator, sets = open_evaluation(
        checkpoint,
        checkpoint.params["visual"],
        tasks,
        "val",
        outputs=layered_outputs,
        limit=limit,
        batch_size=batch_size,
    )
    scales = search_per_task(
        lambda rows: evaluator.accuracies([tower], rows, sets),
        alpha,
        given,
        rounds,
        len(names),
    )
    return [float(scale) for scale in scales]


def layered_outputs(
    apply: Apply,
    params0: Params,
    vectors: Sequence[Any],
    coefficients: Float[Array, "g l"],
    inputs: Inputs,
) -> Float[Array, "g b p"]:
    """As `edited_outputs`, of one task vector with a coefficient for each of its layers."""
    (tower,) = vectors

    def outputs(row: Float[Array, " l"]) -> Any:
        return apply(apply_task_vector(params0, _scaled(tower, row)), inputs)

    return jax.lax.map(outputs, coefficients)


def _depth(tower: Any) -> int:
    return max((len(leaf) for path, leaf in flatten(tower).items() if path.startswith(BLOCKS)),
               default=0)  # fmt: skip


def _scaled(tower: Any, scales: Any) -> Any:
    def scale(path: str, leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        if path.startswith(BLOCKS):
            own = scales[1:-1].reshape(-1, *[1] * (leaf.ndim - 1))
        else:
            own = scales[0 if path.startswith(FIRST) else -1]
        return leaf * own.astype(leaf.dtype)

    return unflatten({path: scale(path, leaf) for path, leaf in flatten(tower).items()})
