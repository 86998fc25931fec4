"""Disentanglement error: how often adding one vector changes predictions on the other task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from orthoreg_jax.arithmetic.checks import named_vectors
from orthoreg_jax.clip.checkpoint import Checkpoint, check_checkpoint
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.training.modes.mode import Outputs, edited_outputs
from orthoreg_jax.words import counted

from .accuracy import NO_CLASS, EvaluationSet, Evaluator
from .checkpoint_accuracy import open_evaluation, visual_parts
from .checks import read_alphas, read_tasks


def disentanglement_error(
    evaluator: Evaluator,
    vectors: tuple[Any, Any],
    sets: tuple[EvaluationSet, EvaluationSet],
    alphas: Sequence[float],
) -> Float[np.ndarray, "a a"]:
    r"""xi(a1, a2) of two tasks, on a grid.

    xi(a1, a2) = sum_{i=1,2} P_{x in D_i}[ argmax f(x; theta_0 + a_i tau_i)
                                           != argmax f(x; theta_0 + a_1 tau_1 + a_2 tau_2) ]

    One compiled function evaluates all edits; the edits by one vector alone are the grid's row and
    column at 0. A prediction from logits that are not finite counts as changed.

    Args:
      evaluator: the evaluator of the method that made the vectors.
      vectors: tau_1 and tau_2.
      sets: images of task 1 and of task 2.
      alphas: the grid of both a1 and a2; it must contain 0.

    Returns:
      Errors from 0 (disentangled) to 2 (every prediction changes on both tasks); rows are a1,
      columns a2.

    Raises:
      ValueError: the grid lacks 0, or has numbers that are not finite.

    Reference: "Task Arithmetic in the Tangent Space", NeurIPS 2023 (arXiv 2305.12827), equation 5.
    """
    grid = _read_grid(alphas)
    zero, size = int(np.argmax(grid == 0)), len(grid)
    rows = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    error = np.zeros((size, size))
    for axis, data in enumerate(sets):
        answers = evaluator.predictions(vectors, rows, data).reshape(size, size, -1)
        alone = answers.take([zero], axis=1 - axis)  # the other vector's coefficient is 0
        error += np.mean((answers != alone) | (answers == NO_CLASS), axis=-1)
    return error


def _read_grid(alphas: Any) -> Float[np.ndarray, " a"]:
    grid = read_alphas(alphas)
    if not np.any(grid == 0):
        raise ValueError(f"alphas {grid.tolist()} lack 0, the edit by one vector alone; add it")
    return grid


def measure_disentanglement(
    checkpoint: Checkpoint,
    vectors: Mapping[str, Any] | Sequence[Any],
    tasks: Mapping[str, Task] | Sequence[Task],
    alphas: Sequence[float],
    *,
    split: str = "test",
    outputs: Outputs = edited_outputs,
    limit: int = 256,
    batch_size: int = 256,
) -> Float[np.ndarray, "a a"]:
    """xi(a1, a2) of two task vectors of a CLIP on a grid; see `disentanglement_error`.

    Args:
      checkpoint: the pre-trained model.
      vectors: tau_1 and tau_2, `{"visual": ...}` as runs save them; a list, or a dict by task.
      tasks: the two tasks, from `load_tasks`; a list in the same order, or a dict by name.
      alphas: the grid of both a1 and a2; it must contain 0.
      split: the split whose images are used.
      outputs: how the vectors act on the model; `linearized_outputs` for linearised fine-tuning.
      limit: number of images of each task, chosen by a fixed seed; 0 uses all.
      batch_size: number of images computed at once.

    Returns:
      Errors from 0 (disentangled) to 2 (every prediction changes on both tasks); rows are a1,
      columns a2.

    Raises:
      ValueError: not two vectors and two tasks, a grid without 0, or as `sweep_accuracy`.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> tasks = oj.load_tasks("embedded", ["weather", "digits"])
      >>> nothing = {"visual": jax.tree.map(np.zeros_like, clip.params["visual"])}
      >>> xi = oj.measure_disentanglement(clip, [nothing] * 2, [*tasks.values()], [0, 1], limit=4)
      >>> xi.tolist()
      [[0.0, 0.0], [0.0, 0.0]]
    """
    check_checkpoint(checkpoint)
    named = named_vectors(vectors)
    if isinstance(vectors, Mapping) and isinstance(tasks, Mapping):
        if set(vectors) != set(tasks):
            raise ValueError(
                f"vectors of {', '.join(vectors)}, but tasks {', '.join(tasks)}; give the same two"
            )
        vectors = [vectors[name] for name in tasks]
    else:
        vectors = list(named.values())
    tasks = read_tasks(tasks, split)
    if len(vectors) != 2 or len(tasks) != 2:
        raise ValueError(
            f"{counted(len(vectors), 'vector')} and {counted(len(tasks), 'task')}; the error is "
            "defined for two tasks and their two vectors: measure more of them pair by pair"
        )
    first, second = visual_parts(vectors)
    alphas = _read_grid(alphas).tolist()
    evaluator, sets = open_evaluation(
        checkpoint,
        checkpoint.params["visual"],
        tasks,
        split,
        outputs=outputs,
        limit=limit,
        batch_size=batch_size,
    )
    return disentanglement_error(evaluator, (first, second), (sets[0], sets[1]), alphas)
