"""Mergers that combine task vectors by the angles between them, tensor by tensor.

Angles are taken within each tensor: each matrix of a leaf, and each leaf that is not a matrix.
Both methods were published for the weights of models; here they act on task vectors, whose angles
are those that the models have as seen from theta_0.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from .merger import Merger, shown_as_called
from .parameters import check_within
from .types import Cutoffs, Key, Values

PARALLEL = 0.9995  # of a cosine: beyond it, published code interpolates along the straight line


@shown_as_called
def slerp(t: float = 0.5) -> Merger:
    """SLERP: goes from one task vector to another along a circle, at constant angular speed.

    With Omega the angle between the two in a tensor,
    tau = sin((1 - t) Omega) / sin(Omega) * tau_1 + sin(t Omega) / sin(Omega) * tau_2.

    Two vectors of one length give a third of that length, where their mean would be shorter:
    orthogonal ones, at t = 0.5, their sum divided by sqrt(2). Where a vector is 0 in a tensor, or
    |cos Omega| is above 0.9995, tau = (1 - t) tau_1 + t tau_2.

    mergekit and FusionBench interpolate the *weights* of two models, theta_1 and theta_2. Seen from
    the origin their angle is tiny, so that they mostly average. Neither uses theta_0.

    Args:
      t: fraction of the way from the first vector to the second, from 0 to 1.

    Raises:
      ValueError: t out of its range; when vectors are merged, not two of them.

    Reference: "Animating Rotation with Quaternion Curves", SIGGRAPH 1985.

    Examples:
      >>> oj.slerp(0.25)
      slerp(t=0.25)
    """
    t = check_within("slerp", "t", t, (0, 1), "a fraction of the way, from 0 to 1")
    return Merger(_slerp, (t,), reads="tensors", tasks=2, at_most=2)


def _slerp(values: Values, cutoffs: Cutoffs, key: Key, t: float) -> Float[Array, ...]:
    del cutoffs, key
    first, second = _directions(values)
    cosine = jnp.clip(jnp.sum(first * second), -1.0, 1.0)
    both = jnp.any(first != 0) & jnp.any(second != 0)
    curved = both & (jnp.abs(cosine) <= PARALLEL)
    angle = jnp.where(curved, jnp.arccos(jnp.where(curved, cosine, 0.0)), 1.0)
    sine = jnp.sin(angle)
    weights = jnp.stack([jnp.sin((1 - t) * angle) / sine, jnp.sin(t * angle) / sine])
    straight = jnp.asarray([1 - t, t], values.dtype)
    return jnp.tensordot(jnp.where(curved, weights, straight), values, axes=1)


@shown_as_called
def model_stock() -> Merger:
    """Model Stock: the mean, shortened by how much the task vectors disagree in each tensor.

    With c the mean cosine of all pairs of the T task vectors, tau = T c / (1 + (T - 1) c) times
    their mean: equal vectors stay what they are, and orthogonal ones give 0. So it is for models
    that were fine-tuned on one task; those of different tasks are nearly orthogonal, and it returns
    nearly theta_0. The papers take alpha = 1.

    The paper merges two models, and says nothing of the angle of several: mergekit takes the mean
    of the cosines, as here, FusionBench that of the angles. A negative c counts as 0 here; there
    the result points away from the task vectors. mergekit's option `filter_wise` takes angles row
    by row. A vector that is 0 in a tensor has cosine 0 with the others.

    Reference: "Model Stock: All we need is just a few fine-tuned models", ECCV 2024
      (arXiv 2403.19522), section 4.

    Examples:
      >>> one = {"kernel": jnp.eye(2)}
      >>> oj.merge_task_vectors([one, one], oj.model_stock())["kernel"].shape
      (2, 2)
    """
    return Merger(_model_stock, reads="tensors")


def _model_stock(values: Values, cutoffs: Cutoffs, key: Key) -> Float[Array, ...]:
    del cutoffs, key
    mean, tasks = jnp.mean(values, axis=0), len(values)
    if tasks == 1:
        return mean
    units = _directions(values)
    # The cosines of all pairs, from the length of the sum of the directions.
    squares = jnp.sum(jnp.square(jnp.sum(units, axis=0))) - jnp.sum(jnp.square(units))
    cosine = jnp.clip(squares / (tasks * (tasks - 1)), 0.0, 1.0)
    return tasks * cosine / (1 + (tasks - 1) * cosine) * mean


def _directions(values: Values) -> Values:
    """Each tensor divided by its norm; 0 stays 0."""
    axes = tuple(range(1, values.ndim))
    largest = jnp.max(jnp.abs(values), axis=axes, keepdims=True)
    scaled = values / jnp.where(largest > 0, largest, 1)  # squares can neither over- nor underflow
    norms = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=axes, keepdims=True))
    return scaled / jnp.where(norms > 0, norms, 1)
