"""Which features tasks use, and how task vectors act on other tasks' inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from orthoreg_jax.arithmetic.types import Apply, Params, PyTree
from orthoreg_jax.clip.zeroshot import Head

from .results import Features
from .specialisation import (
    FEATURES,
    feature_sensitivity,
    mean_overlap,
    specialisation,
    tau_jacobian_norm,
)


def measure_features(
    apply: Apply,
    params0: Params,
    heads: Mapping[str, Head],
    batches: Mapping[str, tuple[Array, np.ndarray]],
    outputs: Callable[..., Any],
    vectors: Mapping[str, Any] | None,
) -> Features:
    """Measures how the tasks' features overlap, and how vectors act on other tasks' inputs.

    Args:
      apply: (params, pixels) -> image features.
      params0: pre-trained weights of the image tower.
      heads: zero-shot heads by task.
      batches: images, as the model takes them, and labels, by task.
      outputs: `outputs` of the `Mode` that made the vectors.
      vectors: task vectors by task; None measures the pre-trained model.
    """
    edited = _edited(outputs, apply) if vectors else _plain(apply)
    sensitivities = {
        task: feature_sensitivity(
            edited,
            {"model": params0} | ({"vector": vectors[task]} if vectors else {}),
            heads[task],
            pixels,
            labels,
            features=tuple(f"model/{pattern}" for pattern in FEATURES),
        )
        for task, (pixels, labels) in batches.items()
    }
    overlaps = specialisation(sensitivities)
    different = ~np.eye(len(batches), dtype=bool)
    return {
        "overlap": mean_overlap(overlaps),
        "by_layer": {
            path.removeprefix("model/"): values[different].mean(axis=0).tolist()
            for path, values in overlaps.items()
        },
        "tau_jacobian": [
            [
                float(tau_jacobian_norm(apply, params0, vector, pixels))
                for pixels, _ in batches.values()
            ]
            for vector in (vectors or {}).values()
        ],
    }


@functools.cache
def _edited(outputs: Callable[..., Any], apply: Apply) -> Apply:
    """The model with its task vector, as the mode applies it; features are those of "model"."""

    def features(tree: PyTree, pixels: Any) -> Any:
        return outputs(apply, tree["model"], [tree["vector"]], jnp.ones((1, 1)), pixels)[0]

    return features


@functools.cache
def _plain(apply: Apply) -> Apply:
    return lambda tree, pixels: apply(tree["model"], pixels)
