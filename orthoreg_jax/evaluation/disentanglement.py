"""Disentanglement error: how far adding one task vector changes answers on the other's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .accuracy import EvaluationSet, Evaluator


def disentanglement_error(
    evaluator: Evaluator,
    vectors: tuple[Any, Any],
    sets: tuple[EvaluationSet, EvaluationSet],
    alphas: Sequence[float],
) -> Float[np.ndarray, "a a"]:
    r"""xi(a1, a2) of two tasks on a grid.

    xi(a1, a2) = sum_{i=1,2} P_{x in D_i}[ argmax f(x; theta_0 + a_i tau_i)
                                           != argmax f(x; theta_0 + a_1 tau_1 + a_2 tau_2) ]

    All edits of a set are one compiled function; those of one vector alone are the grid's own
    row and column at 0.

    Args:
      evaluator: of the method by which the vectors were made.
      vectors: tau_1 and tau_2.
      sets: images of task 1 and of task 2.
      alphas: the grid of both a1 and a2; it must hold 0.

    Returns:
      Rows are a1, columns a2; from 0 (disentangled) to 2 (every answer changes on both tasks).

    Raises:
      ValueError: a grid without 0.

    Reference: "Task Arithmetic in the Tangent Space", NeurIPS 2023 (arXiv 2305.12827), equation 5.
    """
    grid = np.asarray(alphas, float)
    if not np.any(grid == 0):
        raise ValueError(f"alphas {list(alphas)} hold no 0, the edit by one vector alone; add it")
    zero, size = int(np.argmax(grid == 0)), len(grid)
    rows = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    error = np.zeros((size, size))
    for axis, data in enumerate(sets):
        answers = evaluator.predictions(vectors, rows, data).reshape(size, size, -1)
        alone = answers.take([zero], axis=1 - axis)  # the other vector's coefficient is 0
        error += np.mean(answers != alone, axis=-1)
    return error
