"""Task-feature specialisation: which features of a layer a task uses, and which tasks share them.

The paper derives weight disentanglement from it: every task t depends on a set I_t of features
(the outputs z_k = w_k^T x + b_k of a linear layer), and the sets of different tasks are disjoint.
Here it is measured with soft sets: each feature's fraction of its layer's sensitivity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from orthoreg_jax.arithmetic.paths import flatten, replace, select
from orthoreg_jax.arithmetic.types import Apply, Params, TaskVector
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.penalties.taujp import tau_jacobian

# A feature's bias moves the feature at all tokens at once.
FEATURES = ("blocks/attn/*/bias", "blocks/mlp/*/bias")


def feature_sensitivity(
    apply: Apply,
    params: Params,
    head: Head,
    pixels: Float[Array, "n h w 3"],
    labels: Int[np.ndarray, " n"],
    batch_size: int = 64,
    features: tuple[str, ...] = FEATURES,
) -> dict[str, Float[np.ndarray, "layers features"]]:
    """E |d f / d z_k| over a task's images, for every feature of every linear layer.

    f is the margin of the true class: its logit minus the log-sum-exp of the others. z_k changes at
    all tokens together (the derivative by the layer's bias b_k), for one image at a time.

    Args:
      apply: (params, pixels) -> features; compiled once for each function given.
      params: weights of the image tower, pre-trained or edited.
      head: the task's zero-shot head.
      pixels: preprocessed images.
      labels: class indices in the head.
      batch_size: number of images computed at once; memory grows with batch size times number of
        features.
      features: globs of the biases' paths in `params`.

    Returns:
      Sensitivities by path of the bias, e.g. "blocks/mlp/fc1/bias".
    """
    measure, biases = _compiled(apply), select(params, features)
    totals = None
    for start in range(0, len(pixels), batch_size):
        rows = slice(start, start + batch_size)
        slopes = measure(biases, params, head, pixels[rows], jnp.asarray(labels[rows]))
        totals = slopes if totals is None else jax.tree.map(jnp.add, totals, slopes)
    if totals is None:
        raise ValueError("no image to measure sensitivity on; give at least one")
    return {path: np.asarray(total) / len(pixels) for path, total in totals.items()}


@functools.cache
def _compiled(apply: Apply) -> Callable[..., dict[str, Float[Array, "layers features"]]]:
    def margin(biases: Any, params: Params, head: Head, image: Array, label: Array) -> Array:
        logits = head.logits(apply(replace(params, biases), image[None]))[0]
        right = jnp.arange(len(logits)) == label
        return logits[label] - jax.nn.logsumexp(jnp.where(right, -jnp.inf, logits))

    @jax.jit
    def absolute_slopes(
        biases: Any, params: Params, head: Head, pixels: Array, labels: Array
    ) -> dict[str, Array]:
        per_image = jax.vmap(jax.grad(margin), in_axes=(None, None, None, 0, 0))
        slopes = per_image(biases, params, head, pixels, labels)
        return {path: jnp.sum(jnp.abs(leaf), axis=0) for path, leaf in flatten(slopes).items()}

    return absolute_slopes


def specialisation(
    sensitivities: Mapping[str, Mapping[str, Float[np.ndarray, "layers features"]]],
) -> dict[str, Float[np.ndarray, "t t layers"]]:
    r"""Weighted Jaccard overlap of the features of every pair of tasks, by leaf and layer.

    With s_t the sensitivities of task t in a layer, divided by their sum:
    J(t, u) = sum_k min(s_t,k, s_u,k) / sum_k max(s_t,k, s_u,k).

    Args:
      sensitivities: one tree for each of two or more tasks, from `feature_sensitivity`.

    Returns:
      Overlaps: 1 if two tasks depend equally on the same features, 0 if they depend on disjoint
      features, as in task-feature specialisation. 1 minus the mean over t != u is a score of
      specialisation.
    """
    tasks = list(sensitivities.values())
    overlaps = {}
    for path in tasks[0]:
        shares = np.stack([task[path] / task[path].sum(axis=1, keepdims=True) for task in tasks])
        low = np.minimum(shares[:, None], shares[None]).sum(axis=-1)
        high = np.maximum(shares[:, None], shares[None]).sum(axis=-1)
        overlaps[path] = low / high
    return overlaps


def mean_overlap(overlaps: Mapping[str, Float[np.ndarray, "t t layers"]]) -> float:
    """Mean of `specialisation` over leaves, layers and pairs of different tasks."""
    count = len(next(iter(overlaps.values())))
    different = ~np.eye(count, dtype=bool)
    return float(np.mean([values[different].mean() for values in overlaps.values()]))


@functools.partial(jax.jit, static_argnums=0)
def tau_jacobian_norm(
    apply: Apply, params0: Params, vector: TaskVector, pixels: Float[Array, "n h w 3"]
) -> Float[Array, ""]:
    """E_x || J(x) tau ||: how far a task vector moves the linearised features of given inputs.

    The norm of this tau-Jacobian product on *other* tasks' inputs bounds interference there.

    Args:
      apply: (image tower's params, pixels) -> features.
      params0: pre-trained weights, where J is taken.
      vector: tau, a tree like params0 or a part of it.
      pixels: preprocessed images of one task.

    Reference: the regulariser tauJp, ICLR 2025, which keeps it small during training.
    """
    return jnp.mean(jnp.linalg.norm(tau_jacobian(apply, params0, vector, pixels), axis=-1))
