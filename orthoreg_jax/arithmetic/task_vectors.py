"""Task vectors as plain pytrees: difference, application, sum, negation, analogy, similarity.

`LowRank` nodes of a tree are multiplied out.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .checks import (
    check_floating,
    check_precision,
    check_scale,
    check_vector,
    check_weights,
    named_vectors,
)
from .low_rank import dense
from .paths import check_arrays, flatten, leaf_path, not_a_tree
from .precision import wide_type
from .rules import is_factor
from .types import PyTree


def task_vector(finetuned: PyTree, pretrained: PyTree) -> PyTree:
    """Tau = theta_t - theta_0, leaf by leaf.

    Args:
      finetuned: weights after fine-tuning.
      pretrained: weights before fine-tuning, of the same structure and shapes.

    Returns:
      A tree like both. NumPy computes differences of NumPy arrays.

    Raises:
      ValueError: the trees differ in structure or shape, have leaves that are not floating point
        or that JAX would truncate, or hold LoRA's factors, whose difference is not the difference
        of the weights. The error names the leaves.

    Reference: "Editing models with task arithmetic", ICLR 2023 (arXiv 2212.04089), section 2.

    Examples:
      >>> before, after = {"w": jnp.ones(2)}, {"w": jnp.array([1.0, 3.0])}
      >>> oj.task_vector(after, before)
      {'w': Array([0., 2.], dtype=float32)}
    """
    both = {"finetuned": finetuned, "pretrained": pretrained}
    check_same(finetuned, pretrained, ("finetuned", "pretrained"))
    for name, tree in both.items():
        check_floating(tree, name)
    check_precision(both, numpy_stays=True)
    factors = [path for path in flatten(finetuned) if is_factor(path)]
    if factors:
        raise ValueError(
            f"leaves {_some(factors)} are LoRA factors; the change of the weights is their "
            "product: pass oj.dense of oj.LowRank(left, right, scale), minus the initial product "
            "if that is not 0"
        )
    return optax.tree.sub(finetuned, pretrained)


def apply_task_vector(
    pretrained: PyTree, vector: PyTree, scale: float | Float[Array, ""] = 1.0
) -> PyTree:
    """theta_0 + scale * tau; a negative scale forgets the task.

    Args:
      pretrained: the weights to edit. Leaves that `vector` lacks are unchanged, so the vector of
        an image tower, or of its attention alone, can be applied to the whole model.
      vector: a task vector, or a sum of several; `pretrained` must have each of its leaves.
      scale: alpha, one finite number or a scalar array, which may be traced.

    Returns:
      A tree like `pretrained`, with the types of its leaves.

    Raises:
      ValueError: a leaf of the vector is not in the weights, has another shape, is not floating
        point, or would be truncated; the vector is a model's weights, or several vectors; the scale
        is not one finite number.

    Examples:
      >>> weights, vector = {"b": jnp.zeros(1), "w": jnp.ones(2)}, {"w": jnp.array([0.0, 2.0])}
      >>> oj.apply_task_vector(weights, vector, 0.5)
      {'b': Array([0.], dtype=float32), 'w': Array([1., 2.], dtype=float32)}
    """
    check_vector(vector, "vector")
    check_scale(scale)
    changes = flatten(dense(vector))
    weights = flatten(pretrained)
    if list(weights) == [""] and not hasattr(weights[""], "dtype"):
        raise not_a_tree(pretrained, "pretrained")
    unknown = [path for path in changes if path not in weights]
    if unknown:
        raise ValueError(
            f"the task vector has leaves {_some(unknown)}, which the weights lack (they have "
            f"{_some(list(weights))}): it belongs to another model, or to another part of this one"
        )
    _check_shapes(changes, weights, ("vector", "pretrained"))
    edited = {path: weights[path] for path in changes}
    check_arrays(edited, "pretrained")
    check_floating(edited, "pretrained")
    check_precision({"pretrained": edited})

    def edit(path: Any, leaf: Any) -> Any:
        change = changes.get(leaf_path(path))
        if change is None:
            return leaf
        leaf, change = jnp.asarray(leaf), jnp.asarray(change)
        wide = wide_type(leaf.dtype, change.dtype)
        step = jnp.asarray(scale, wide) * change.astype(wide)
        return (leaf.astype(wide) + step).astype(leaf.dtype)

    return jax.tree.map_with_path(edit, pretrained)


def add_task_vectors(vectors: Sequence[PyTree] | Mapping[str, PyTree]) -> PyTree:
    """sum_t tau_t (task addition, before scaling by alpha).

    The sum is taken in float32 (float64 if a vector is float64) and returned in the leaves' type.
    NumPy adds NumPy arrays.

    Args:
      vectors: a list of task vectors, or a dict by task. A dict is always read as several vectors:
        put a single vector that is a dict into a list.

    Raises:
      ValueError: there is no vector, or one where several are expected; their structures or shapes
        differ; leaves are not floating point, or JAX would truncate them; they are models' weights.

    Examples:
      >>> oj.add_task_vectors([{"w": jnp.ones(2)}, {"w": jnp.array([0.0, 2.0])}])
      {'w': Array([1., 3.], dtype=float32)}
    """
    rows = read_vectors(vectors)
    check_precision(rows, numpy_stays=True)
    return jax.tree.map(lambda *leaves: _sum(leaves), *rows.values())


def _sum(leaves: Sequence[Any]) -> Any:
    types = [getattr(leaf, "dtype", jnp.result_type(leaf)) for leaf in leaves]
    same = len({*types}) == 1
    kind = types[0] if same else functools.reduce(jnp.promote_types, types)
    if len(leaves) == 1:
        return leaves[0]
    wide = wide_type(*types)
    total = functools.reduce(operator.add, (_as_type(leaf, wide) for leaf in leaves))
    return _as_type(total, kind)


def _as_type(leaf: Any, dtype: Any) -> Any:
    """An array cast to a type; NumPy arrays stay NumPy, because JAX would truncate 64 bits."""
    return leaf.astype(dtype) if hasattr(leaf, "astype") else np.asarray(leaf, dtype)


def read_vectors(vectors: Any, name: str = "vectors") -> dict[str, PyTree]:
    """Task vectors by what errors call them, checked, with `LowRank` updates multiplied out.

    Args:
      vectors: a list of task vectors, or a dict by task.
      name: what errors call them all.

    Raises:
      ValueError: there is none, or one where several are expected; one cannot be a task vector;
        or they differ in structure or shapes.
    """
    found = {each: dense(vector) for each, vector in named_vectors(vectors, name).items()}
    first = next(iter(found))
    for each, vector in found.items():
        check_vector(vector, each)
        try:
            check_same(vector, found[first], (each, first))
        except ValueError as error:
            if not isinstance(vectors, Mapping):
                raise
            raise ValueError(
                f"{error}; {name} is a dict, and so read as task vectors by name: put a single "
                "vector into a list"
            ) from None
    return found


def negate_task_vector(vector: PyTree) -> PyTree:
    """-tau, which makes a model, or a sum of task vectors, forget the task.

    Args:
      vector: a task vector.

    Raises:
      ValueError: it is several vectors, a model's weights, or has leaves that are not floating
        point.

    Examples:
      >>> oj.negate_task_vector({"w": jnp.array([1.0, -2.0])})
      {'w': Array([-1.,  2.], dtype=float32)}
    """
    check_vector(vector, "vector")
    return jax.tree.map(operator.neg, dense(vector))


def analogy(a: PyTree, b: PyTree, c: PyTree) -> PyTree:
    """tau_c + (tau_b - tau_a): "a is to b as c is to ?".

    Args:
      a: a task vector.
      b: a task vector; the result is to `c` as `b` is to `a`.
      c: a task vector.

    Raises:
      ValueError: as `add_task_vectors`.

    Reference: "Editing models with task arithmetic", ICLR 2023, section 5.

    Examples:
      >>> a, b, c = ({"w": jnp.array([x])} for x in (1.0, 3.0, 10.0))
      >>> oj.analogy(a, b, c)
      {'w': Array([12.], dtype=float32)}
    """
    for vector, name in ((a, "a"), (b, "b"), (c, "c")):
        check_vector(vector, f"analogy(a, b, c): {name}")
    return add_task_vectors([c, b, negate_task_vector(a)])


def norm(vector: PyTree) -> Float[Array, ""]:
    """||tau||, the Euclidean norm over all leaves, computed in float32.

    With `jax_enable_x64` it is computed in float64 for float64 leaves.

    Args:
      vector: a task vector, or weights. Several vectors in one tree have one norm, that of all
        their leaves; those of a CLIP are refused.

    Raises:
      ValueError: it is several vectors, or has leaves that are not floating point.

    Examples:
      >>> print(oj.norm({"b": jnp.array([4.0]), "w": jnp.array([3.0])}))
      5.0
    """
    check_weights(vector, "vector")
    return optax.tree.norm(_widened(dense(vector)))


def cosine_matrix(vectors: Sequence[PyTree] | Mapping[str, PyTree]) -> Float[Array, "t t"]:
    """Cosine similarity of every pair of task vectors, over all leaves.

    A zero vector has cosine 0 with every other vector, and 1 with itself. Cosines are NaN for a
    vector with a NaN or infinite entry, or with a squared norm too large for float32.

    Args:
      vectors: as of `add_task_vectors`.

    Raises:
      ValueError: as `add_task_vectors`.

    Examples:
      >>> print(oj.cosine_matrix([{"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([3.0, 4.0])}]))
      [[1.  0.6]
       [0.6 1. ]]
    """
    rows = [_widened(vector) for vector in read_vectors(vectors).values()]
    products = jnp.array([[optax.tree.vdot(a, b) for b in rows] for a in rows])
    norms = jnp.sqrt(jnp.diag(products))
    scale = norms[:, None] * norms[None]
    cosines = jnp.where(scale == 0, 0.0, products / jnp.where(scale == 0, 1.0, scale))
    cosines = jnp.fill_diagonal(cosines, 1.0, inplace=False)
    return jnp.where(jnp.isfinite(scale), cosines, jnp.nan)


def _widened(tree: PyTree) -> PyTree:
    """Leaves cast to at least float32, so that sums over millions of entries stay accurate."""
    return jax.tree.map(lambda x: jnp.asarray(x, wide_type(jnp.result_type(x))), tree)


def check_same(left: PyTree, right: PyTree, names: tuple[str, str]) -> None:
    """Checks that two trees contain arrays, with the same structure and shapes.

    Raises:
      ValueError: they do not. The error names the leaves, and calls the trees by `names`.
    """
    for tree, name in zip((left, right), names, strict=True):
        check_arrays(tree, name)
    structures = [str(jax.tree.structure(tree)) for tree in (left, right)]
    if structures[0] != structures[1]:
        ours, theirs = flatten(left), flatten(right)
        only_left = [path for path in ours if path not in theirs]
        only_right = [path for path in theirs if path not in ours]
        raise ValueError(
            f"{names[0]} and {names[1]} differ in structure; only in {names[0]}: "
            f"{_some(only_left)}; only in {names[1]}: {_some(only_right)}"
            + (
                ""
                if only_left or only_right
                else f"; same leaves in other containers: {structures[0]} and {structures[1]}"
            )
        )
    _check_shapes(flatten(left), flatten(right), names)


def _check_shapes(left: dict[str, Any], right: dict[str, Any], names: tuple[str, str]) -> None:
    wrong = [
        f"{path}: {jnp.shape(leaf)} and {jnp.shape(right[path])}"
        for path, leaf in left.items()
        if jnp.shape(leaf) != jnp.shape(right[path])
    ]
    if wrong:
        raise ValueError(f"{names[0]} and {names[1]} differ in shape: {'; '.join(wrong[:8])}")


def _some(paths: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return (", ".join(paths[:limit]) or "none") + more
