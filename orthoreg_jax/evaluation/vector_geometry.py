"""Geometry of task vectors: norms, angles, singular values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from orthoreg_jax.arithmetic.geometry import (
    column_angles,
    column_cosines,
    gram_deviation,
    singular_values,
    stable_rank,
)
from orthoreg_jax.arithmetic.matrices import has_matrices
from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.arithmetic.task_vectors import cosine_matrix, norm
from orthoreg_jax.arithmetic.types import PyTree
from orthoreg_jax.clip.weights import VISUAL_MATRICES

from .results import Geometry


def measure_geometry(vectors: dict[str, Any]) -> Geometry:
    """Norms, angles and singular values of one method's task vectors.

    If they have no weight matrices, for example only biases, the measures of matrices are empty.
    """
    rules = rules_for_part(next(iter(vectors.values())), VISUAL_MATRICES)
    shaped = {task: vector for task, vector in vectors.items() if has_matrices(vector, rules)}
    spectra = {task: singular_values(vector, rules) for task, vector in shaped.items()}
    columns = {task: column_cosines(vector, rules) for task, vector in shaped.items()}

    def means(by_task: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """Mean over all matrices of each task."""
        return {
            task: float(np.concatenate(list(leaves.values())).mean())
            for task, leaves in by_task.items()
        }

    def of_spectra(measure: Callable[[Any], Any]) -> dict[str, float]:
        return means(
            {
                task: {leaf: measure(values) for leaf, values in leaves.items()}
                for task, leaves in spectra.items()
            }
        )

    angles = [weight_angles(vector) for vector in vectors.values()]
    return {
        "norms": {task: float(norm(vector)) for task, vector in vectors.items()},
        "cosines": np.asarray(cosine_matrix(vectors)).tolist(),
        "singular_values": {
            task: {leaf: np.asarray(values).tolist() for leaf, values in leaves.items()}
            for task, leaves in spectra.items()
        },
        "angles": {
            leaf: np.mean([histogram[leaf] for histogram in angles], axis=0).tolist()
            for leaf in angles[0]
        },
        "column_cosines": means(columns),
        "stable_ranks": of_spectra(stable_rank),
        "gram_deviations": of_spectra(gram_deviation),
    }


def weight_angles(tree: PyTree) -> dict[str, list[float]]:
    """Fraction of column pairs by angle, in 90 bins from 0 to 180 degrees, mean over layers."""
    rules = rules_for_part(tree, VISUAL_MATRICES)
    if not has_matrices(tree, rules):
        return {}
    return {
        leaf: np.asarray(shares).mean(axis=0).tolist()
        for leaf, shares in column_angles(tree, rules).items()
    }
