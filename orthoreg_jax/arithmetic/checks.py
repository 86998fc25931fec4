"""Checks of what task arithmetic is given: one task vector, several, a scale, types of leaves.

They read structures, shapes and types, and of the numbers only a scale and two layer norms: they
take the same time for any model, and let traced values pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .paths import briefly, check_arrays, flatten, is_floating
from .types import PyTree

PARTS = frozenset({"visual", "text", "logit_scale"})  # of a CLIP
# Layer norms of a CLIP's image tower: their scales are near 1 in a model, near 0 in a vector.
_NORMS = ("pre_norm", "post_norm")
_LARGEST_CHANGE = 0.25  # of either's mean


def check_vector(tree: PyTree, name: str) -> None:
    """Checks that a tree can be a task vector: floating point leaves, a difference of weights.

    Raises:
      ValueError: it cannot. The error names the leaf, and calls the tree `name`.
    """
    check_weights(tree, name)
    found = _layer_norm_scale(tree)
    if found > _LARGEST_CHANGE:
        raise ValueError(
            f"{name}: the mean layer-norm scale is {found:.2g}, so these are a model's weights (in "
            "a task vector it is near 0); give oj.task_vector(weights, pretrained)"
        )


def check_weights(tree: PyTree, name: str) -> None:
    """Checks that a tree can be a task vector, or a model's weights.

    Raises:
      ValueError: it cannot. The error names the leaf, and calls the tree `name`.
    """
    if isinstance(tree, int | float):
        raise ValueError(f"{name} is {briefly(tree)}; give a tree of arrays")
    check_arrays(tree, name)
    _check_single(tree, name)
    check_floating(tree, name)


def _check_single(tree: PyTree, name: str) -> None:
    """Refuses several task vectors of a CLIP in the place of one."""
    items = _items(tree)
    if len(items) > 1 and all(isinstance(v, Mapping) and "visual" in v for v in items.values()):
        raise ValueError(
            f"{name}: contains {len(items)} task vectors ({', '.join(map(str, items))}); give one "
            "of them, or their sum"
        )


def _items(tree: PyTree) -> Mapping[Any, Any]:
    if isinstance(tree, Mapping):
        return tree
    return dict(enumerate(tree)) if isinstance(tree, list | tuple) else {}


def check_floating(tree: PyTree, name: str) -> None:
    """Checks that every leaf is of a floating point type.

    Raises:
      ValueError: it is not. The error names the leaves, and calls the tree `name`.
    """
    wrong = {path: leaf for path, leaf in flatten(tree).items() if not is_floating(leaf)}
    if wrong:
        path, leaf = next(iter(wrong.items()))
        raise ValueError(
            f"{name}: {len(wrong)} leaves are not floating point (first: {path!r}, "
            f"{getattr(leaf, 'dtype', type(leaf).__name__)}), so that differences and means of them"
            " would be wrong; leave them out (apply_task_vector keeps leaves that a vector lacks)"
        )


def _layer_norm_scale(tree: PyTree) -> float:
    """The mean scale of a CLIP's layer norms, the smaller; 0 for other trees and traced values."""
    tower = tree.get("visual", tree) if isinstance(tree, Mapping) else None
    if not isinstance(tower, Mapping):
        return 0.0
    norms = [tower.get(name) for name in _NORMS if "blocks" in tower]
    scales = [norm.get("scale") for norm in norms if isinstance(norm, Mapping)]
    if len(scales) < len(_NORMS) or not all(map(is_known, scales)):
        return 0.0
    return min(float(np.asarray(leaf, np.float32).mean()) for leaf in scales)


def is_known(leaf: Any) -> bool:
    """Whether the numbers of a leaf can be read here: it is not traced, nor on another host."""
    if isinstance(leaf, jax.Array):
        return not isinstance(leaf, jax.core.Tracer) and leaf.is_fully_addressable
    return isinstance(leaf, np.ndarray)


def named_vectors(vectors: Any, name: str = "vectors") -> dict[str, PyTree]:
    """Several task vectors, a list or a dict by task, by what errors call them.

    Raises:
      ValueError: there is none, or it is one task vector of a CLIP.
    """
    if isinstance(vectors, Mapping):
        if "visual" in vectors and vectors.keys() <= PARTS:
            raise ValueError(
                f"{name} is one task vector ({', '.join(vectors)}); give several: a list, "
                "[first, second], or a dict by task"
            )
        found = {f"{name}[{key!r}]": each for key, each in vectors.items()}
    elif isinstance(vectors, str) or not isinstance(vectors, Iterable):
        raise ValueError(
            f"{name} is {briefly(vectors)}; give task vectors as a list, or as a dict by task"
        )
    else:
        found = {f"{name}[{number}]": each for number, each in enumerate(vectors)}
    if not found:
        raise ValueError(f"{name} contains no task vector; give at least one")
    return found


def check_scale(scale: Any, name: str = "scale") -> None:
    """Checks that a scale is one finite number; a traced one need only be a real scalar.

    Raises:
      ValueError: it is not.
    """
    if not _is_number(scale):
        raise ValueError(f"{name} is {briefly(scale)}; give one finite number, such as 0.3")


def check_scales(scales: Any, name: str = "scales") -> None:
    """Checks that scales are a sequence of finite numbers, or a traced vector.

    Raises:
      ValueError: they are not.
    """
    shaped = hasattr(scales, "dtype")
    if shaped:
        good = np.ndim(scales) == 1
    else:
        good = isinstance(scales, Sequence) and not isinstance(scales, str)
    if not good:
        raise ValueError(f"{name} is {briefly(scales)}; give a list of finite numbers")
    if isinstance(scales, jax.core.Tracer):
        return
    for place, scale in enumerate(np.asarray(scales) if shaped else scales):
        if not _is_number(scale):
            raise ValueError(f"{name}: contains {briefly(scale)} at {place}; give finite numbers")


def _is_number(value: Any) -> bool:
    if not hasattr(value, "dtype"):
        real = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        real = np.ndim(value) == 0 and any(
            jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer)
        )
    if not real or isinstance(value, jax.core.Tracer):
        return real
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the largest float
        return False


def check_precision(trees: Mapping[str, PyTree], numpy_stays: bool = False) -> None:
    """Checks that no NumPy leaf is of a type that JAX would replace by one with fewer digits.

    Args:
      trees: what is computed with, by what errors call it.
      numpy_stays: NumPy computes if all leaves are NumPy's, in their own types.

    Raises:
      ValueError: float64 without `jax_enable_x64`. The error names the leaf.
    """
    leaves = [
        (name, path, leaf) for name, tree in trees.items() for path, leaf in flatten(tree).items()
    ]
    if numpy_stays and not any(isinstance(leaf, jax.Array) for _, _, leaf in leaves):
        return
    for name, path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype == np.float64 and jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(
                f"{name}: leaf {path!r} is float64, of which JAX would keep float32's digits; cast "
                "it to float32, or keep them all: jax.config.update('jax_enable_x64', True) before "
                "any array is made (JAX_ENABLE_X64=1 for commands)"
            )
