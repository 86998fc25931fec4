"""Applies a merger to the leaves of task vectors, whole or slice by slice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from orthoreg_jax.arithmetic.checks import check_precision
from orthoreg_jax.arithmetic.matrices import as_matrices, from_matrices
from orthoreg_jax.arithmetic.paths import briefly, flatten
from orthoreg_jax.arithmetic.precision import wide_type
from orthoreg_jax.arithmetic.rules import Adapter, Matrix, Rules, Skip, read_leaves, rules_for_part
from orthoreg_jax.arithmetic.task_vectors import read_vectors
from orthoreg_jax.arithmetic.types import PyTree

from .merger import Merger
from .order_statistics import kth_smallest
from .types import Cutoffs, Key

BLOCK = 2**16  # entries merged at once where entries are independent


class Piece(NamedTuple):
    """How a leaf is merged.

    Attributes:
      number: the leaf's number in the tree's order; random numbers depend on it.
      reading: the leaf's matrices, if the merger needs them.
      stacked: whether slices of its first axis are merged separately.
    """

    number: int
    reading: Matrix | None
    stacked: bool


def merge_task_vectors(
    vectors: Sequence[PyTree] | Mapping[str, PyTree],
    merger: Merger,
    *,
    matrices: Rules | None = None,
    key: jax.Array | None = None,
) -> PyTree:
    """Merges several task vectors into one, tau; the merged model is theta_0 + alpha * tau.

    All mergers follow one convention: `apply_task_vector` does the scaling, and its `alpha` is what
    papers call the scaling coefficient. Sums are taken in float32 (float64 for float64).

    NaN and infinity are never merged away. If an entry of one vector is NaN or infinite, that entry
    of the result is NaN. For mergers of whole tensors the whole matrix or leaf is NaN, and for
    mergers of whole vectors, such as `ties()`, the whole result.

    Args:
      vectors: a list of task vectors, or a dict by task; any pytrees of the same structure. A dict
        is always read as several vectors: put a single vector that is a dict into a list.
      merger: a merger, for example `ties(k=20)` or `tsv_m()`.
      matrices: how leaves are read as matrices, see `orthogonality_penalty`; only mergers of whole
        tensors need it. Rules that match no leaf are ignored, because a task vector may cover only
        part of the model.
      key: a random key, for mergers that draw random numbers (`dare`).

    Returns:
      A tree like each of the vectors, with the types of their leaves.

    Raises:
      ValueError: not a merger, fewer or more vectors than it takes, one vector where several are
        expected, vectors of different structure or shapes, models' weights, leaves that are not
        floating point, that JAX would truncate or that lack a rule they need, a key that is
        missing, not used or not a key.

    Examples:
      >>> vectors = {"mnist": {"w": jnp.array([1.0, 4.0])}, "emoji": {"w": jnp.array([3.0, 0.0])}}
      >>> oj.merge_task_vectors(vectors, oj.average())["w"].tolist()
      [2.0, 2.0]
    """
    _check_merger(merger)
    named = read_vectors(vectors)
    check_precision(named)
    check_fits(merger, len(named), key)
    rows = [jax.tree.map(_as_array, vector) for vector in named.values()]
    pieces = plan(rows[0], merger, matrices)
    cutoffs = stack_cutoffs([find_cutoff(merger, jax.tree.leaves(row)) for row in rows])
    leaves = [flatten(row) for row in rows]
    if merger.joint is not None:
        stacks = [jnp.stack([tree[path] for tree in leaves]) for path in pieces]
        size = sum(leaf.size for leaf in leaves[0].values())
        cutoffs = join_cutoffs(merger, cutoffs, lambda: stacks, size)
    on_host = is_on_host(merger, rows)
    merged = []
    for path, piece in pieces.items():
        own = [tree[path] for tree in leaves]
        if on_host:
            values = np.stack([np.asarray(leaf) for leaf in own])
            merged.append(_merge_on_host(values, cutoffs, key, merger, piece))
        else:
            merged.append(_merge_leaf(own, cutoffs, key, merger, piece))
    return jax.tree.unflatten(jax.tree.structure(rows[0]), merged)


def _as_array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)


def _check_merger(merger: Any) -> None:
    if not isinstance(merger, Merger):
        name = getattr(merger, "__name__", merger)
        name = name if isinstance(name, str) and name.isidentifier() else "ties"
        raise ValueError(
            f"merger is {getattr(merger, '__name__', briefly(merger))}, a {type(merger).__name__}; "
            f"give the value that a merger's function returns, such as oj.{name}(), after the "
            "vectors"
        )


def check_fits(merger: Merger, tasks: int, key: Key) -> None:
    """Checks the number of task vectors, and that there is a key if and only if one is needed.

    Raises:
      ValueError: there are too few vectors or too many, or the key is missing, not used or no key.
    """
    if not tasks:
        raise ValueError("no task vector to merge; give at least one")
    if merger.at_most and not merger.tasks <= tasks <= merger.at_most:
        raise ValueError(
            f"{merger} merges {merger.at_most} task vectors, and there are {tasks}; give "
            f"{merger.at_most}, or merge by another method"
        )
    if tasks < merger.tasks:
        raise ValueError(
            f"{merger} keeps only entries that {merger.tasks} tasks need, but there are {tasks} "
            f"task vectors, so nothing would be left; give k from 0 to {tasks}, a number of tasks"
        )
    if merger.random and key is None:
        raise ValueError(f"{merger} draws random numbers: give key=jax.random.key(seed)")
    if not merger.random and key is not None:
        raise ValueError(f"{merger} draws no random numbers: leave out the key")
    if key is not None and not _is_key(key):
        seed = key if isinstance(key, int) else 0
        raise ValueError(f"key is {briefly(key)}; give a random key: key=jax.random.key({seed})")


def _is_key(key: Any) -> bool:
    if not isinstance(key, jax.Array):
        return False
    raw = key.dtype == jnp.uint32 and key.ndim == 1  # of jax.random.PRNGKey
    return raw or (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0)


def is_on_host(merger: Merger, values: PyTree) -> bool:
    """Whether to pass NumPy arrays: the merger decomposes matrices, and they are not traced."""
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))
    return merger.reads == "matrices" and not traced


def plan(vector: PyTree, merger: Merger, rules: Rules | None) -> dict[str, Piece]:
    """Plans how each leaf is merged, by path.

    Args:
      vector: one of the task vectors, or its shapes.
      merger: the method.
      rules: see `merge_task_vectors`.

    Raises:
      ValueError: leaves are not floating point, or need a rule and have none.
    """
    whole = [path for path, leaf in flatten(vector).items() if not _is_floating(leaf)]
    if whole:
        raise ValueError(
            f"leaves {', '.join(whole[:6])}{' and more' * (len(whole) > 6)} are not floating "
            "point, so their means would be truncated; leave them out of the vectors"
        )
    pieces, leaves, readings = {}, flatten(vector), {}
    if merger.reads != "entries":
        readings = read_leaves(leaves, rules_for_part(vector, rules or {}))
    for number, (path, leaf) in enumerate(leaves.items()):
        found = readings.get(path)
        if isinstance(found, Adapter):
            raise ValueError(
                f"leaf {path!r} is a factor of an update, and factors cannot be merged separately; "
                "merge the updates, as oj.LowRank(left, right, scale) or as dense matrices"
            )
        reading = found if isinstance(found, Matrix) else None
        axes = len(leaf.shape)
        used = () if reading is None else (*reading.rows, *reading.columns)
        free = merger.reads == "entries" or reading is not None
        stacked = axes >= 3 and free and 0 not in {axis % axes for axis in used}
        stacked |= axes >= 2 and isinstance(found, Skip) and found.stacked
        pieces[path] = Piece(number, reading, stacked)
    return pieces


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating)


@functools.partial(jax.jit, static_argnames="merger")
def find_cutoff(merger: Merger, leaves: Sequence[Any]) -> Float[Array, "*c"] | None:
    """`merger.cutoff` of one task vector, compiled; None if the merger has none."""
    return None if merger.cutoff is None else merger.cutoff(leaves, *merger.options)


def stack_cutoffs(cutoffs: Sequence[Any]) -> Float[Array, "t ..."] | None:
    """Cutoffs of all task vectors; None if the merger has none."""
    return None if cutoffs[0] is None else jnp.stack(cutoffs)


def join_cutoffs(
    merger: Merger, cutoffs: Cutoffs, stacks: Callable[[], Iterable[Any]], size: int
) -> Float[Array, "t ..."]:
    """Appends what `merger.joint` finds to the cutoffs.

    Args:
      merger: with `joint`.
      cutoffs: of each task vector.
      stacks: starts a pass over the leaves, or slices of them, of all task vectors, stacked.
      size: entries of a task vector.
    """
    assert merger.joint is not None
    ranks = merger.joint.ranks(size, *merger.options) if size else ()
    if isinstance(cutoffs, jax.core.Tracer):
        parts = [_joint_values(merger, stack, cutoffs) for stack in stacks()]
        ordered = jnp.sort(jnp.concatenate(parts, axis=1), axis=1)
        found = ordered[:, jnp.asarray(ranks, int)]
    else:
        found = jnp.asarray(
            kth_smallest(
                lambda: (np.asarray(_joint_values(merger, stack, cutoffs)) for stack in stacks()),
                ranks,
            )
        )
    return jnp.concatenate([cutoffs, found.astype(cutoffs.dtype)], axis=1)


@functools.partial(jax.jit, static_argnames="merger")
def _joint_values(merger: Merger, stack: Any, cutoffs: Cutoffs) -> Float[Array, "t n"]:
    assert merger.joint is not None
    flat = stack.reshape(len(stack), -1)
    return merger.joint.values(flat.astype(wide_type(flat.dtype)), cutoffs, *merger.options)


@functools.partial(jax.jit, static_argnames=("merger", "piece"))
def _merge_leaf(
    leaves: Sequence[Any], cutoffs: Cutoffs, key: Key, merger: Merger, piece: Piece
) -> Inexact[Array, ...]:
    values = jnp.stack(leaves)
    if not piece.stacked:
        return merge_slice(values, cutoffs, key, 0, merger, piece)

    def one(values: Any, place: Any) -> Any:
        return merge_slice(values[:, None], cutoffs, key, place, merger, piece)[0]

    return jax.vmap(one, in_axes=(1, 0))(values, jnp.arange(values.shape[1]))


def _merge_on_host(
    values: Inexact[np.ndarray, "t ..."], cutoffs: Cutoffs, key: Key, merger: Merger, piece: Piece
) -> Inexact[Array, ...]:
    """Same as `_merge_leaf`, without compilation."""
    if not piece.stacked:
        return jnp.asarray(merge_slice(values, cutoffs, key, 0, merger, piece))
    merged = np.empty(values.shape[1:], values.dtype)
    for place in range(len(merged)):
        own = slice(place, place + 1)
        merged[own] = merge_slice(values[:, own], cutoffs, key, place, merger, piece)
    return jnp.asarray(merged)


def merge_slice(
    values: Inexact[Array | np.ndarray, "t ..."],
    cutoffs: Float[Array, "t ..."] | None,
    key: jax.Array | None,
    place: Any,
    merger: Merger,
    piece: Piece,
) -> Any:
    """Merges a leaf, or its slice at `place` of the first axis (kept, with length 1).

    NumPy's if the values are.
    """
    dtype, shape = values.dtype, values.shape[1:]
    xp = values.__array_namespace__()
    wide: Any = values.astype(wide_type(dtype), copy=False)
    if key is not None:
        key = jax.random.fold_in(jax.random.fold_in(key, piece.number), place)
    merge = functools.partial(_merge_numpy if xp is np else _merge, merger=merger)
    if not values.size or (merger.reads == "matrices" and piece.reading is None):
        mean = wide.mean(axis=0)
        return xp.where(xp.isfinite(mean), mean, xp.nan).astype(dtype)
    if merger.reads == "entries":
        flat = wide.reshape(len(wide), -1)
        return _merge_blocks(flat, cutoffs, key, merger).reshape(shape).astype(dtype)
    if piece.reading is None:
        return merge(wide, cutoffs, key).astype(dtype)

    matrices = as_matrices(wide, _behind_tasks(piece.reading, len(shape)))
    stacks: Any = matrices.reshape(len(wide), -1, *matrices.shape[1:])  # (t, k, m, n)
    if xp is np:
        own = [merge(stacks[:, number], cutoffs, key) for number in range(stacks.shape[1])]
        merged: Any = np.stack(own)
    else:
        merged = jax.vmap(lambda own: merge(own, cutoffs, key), in_axes=1)(stacks)
    return from_matrices(merged, shape, piece.reading).astype(dtype)


def _behind_tasks(reading: Matrix, axes: int) -> Matrix:
    """Shifts the reading of a leaf by one axis, for stacks with a leading axis of tasks."""
    rows, columns = (
        tuple(axis % axes + 1 for axis in own) for own in (reading.rows, reading.columns)
    )
    return Matrix(rows, columns)


def _merge(
    values: Float[Array, "t ..."], cutoffs: Float[Array, "t ..."] | None, key: Key, merger: Merger
) -> Float[Array, ...]:
    """Calls `merger.merge` on finite numbers only; NaN wherever an input was not finite."""
    finite = jnp.isfinite(values)
    good = jnp.all(finite, axis=0 if merger.reads == "entries" else None)
    if cutoffs is not None:
        good = good & jnp.all(jnp.isfinite(cutoffs))
    merged = merger.merge(jnp.where(finite, values, 0), cutoffs, key, *merger.options)
    return jnp.where(good, merged, jnp.nan)


def _merge_numpy(values: Any, cutoffs: Cutoffs, key: Key, merger: Merger) -> Any:
    """Same as `_merge`, for a NumPy matrix."""
    if np.isfinite(values).all():
        return merger.merge(values, cutoffs, key, *merger.options)
    return np.full(values.shape[1:], np.nan, values.dtype)


def _merge_blocks(
    values: Float[Array, "t n"], cutoffs: Float[Array, "t ..."] | None, key: Key, merger: Merger
) -> Float[Array, " n"]:
    """Merges independent entries, one block after another.

    Intermediate results are as large as the input, so memory holds those of one block only.
    """

    def merge_block(number: Any, size: int) -> Float[Array, " b"]:
        block = jax.lax.dynamic_slice_in_dim(values, number * BLOCK, size, axis=1)
        own = None if key is None else jax.random.fold_in(key, number)
        return _merge(block, cutoffs, own, merger)

    count, rest = divmod(values.shape[1], BLOCK)
    merged = [merge_block(count, rest)]
    if count:
        whole = jax.lax.map(lambda number: merge_block(number, BLOCK), jnp.arange(count))
        merged.insert(0, whole.reshape(-1))
    return jnp.concatenate(merged)
