"""Which leaves of a pytree are weight matrices, and how each is read as one.

A rule says of a leaf, found by its path, either which axes are rows and which are columns
(`Matrix`) or why it is none (`Skip`). Rules are a dict from glob patterns to readings; the first
pattern that matches a path counts, and one that matches no leaf is an error. What no rule matches
is read by its number of axes: 0 or 1, no matrix; 2, a matrix (rows, columns), unless it is called
a bias or a scale; 3 or more, an error, because (layers, rows, columns), (rows, heads, head_dim)
and a convolution look alike, and guessing would drop or misread weights.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from .low_rank import dense, is_low_rank
from .paths import check_arrays, flatten, is_array


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Axes of a leaf that are rows (inputs) and columns (outputs, the features z = W^T x).

    Several axes are merged in the order given, e.g. `Matrix(rows=(0,), columns=(1, 2))` for a
    kernel of shape (d, heads, head_dim). Every other axis counts matrices: the default
    `Matrix()` reads (rows, columns), (layers, rows, columns), and so on.
    """

    rows: tuple[int, ...] = (-2,)
    columns: tuple[int, ...] = (-1,)


@dataclasses.dataclass(frozen=True)
class Skip:
    """A leaf that is deliberately no matrix, and the reason, which the report shows."""

    reason: str


Reading = Matrix | Skip

# Names of leaves that are vectors: with two axes they are most likely stacked, or split by heads.
VECTORS = ("bias", "scale", "offset", "gamma", "beta")
Rules = Mapping[str, Reading]


def read_leaf(path: str, shape: tuple[int, ...], rules: Rules | None = None) -> Reading:
    """How the leaf at `path` is read.

    Raises:
      ValueError: no rule for a leaf that needs one, or a rule that does not fit the shape.
    """
    for pattern, reading in (rules or {}).items():
        if fnmatch.fnmatchcase(path, pattern):
            if isinstance(reading, Matrix):
                _check_axes(path, shape, pattern, reading)
            elif not isinstance(reading, Skip):
                raise ValueError(
                    f"rule {pattern!r} is {reading!r}; allowed: Matrix(...) or Skip('why')"
                )
            return reading
    if len(shape) < 2:
        return Skip(f"{len(shape)} axes: a bias, scale or scalar")
    name = path.removesuffix("/value").rsplit("/", 1)[-1]  # nnx.Variable holds its array there
    if len(shape) == 2 and name not in VECTORS:
        return Matrix()
    if len(shape) == 2:
        raise ValueError(
            f"leaf {path!r} of shape {shape} has no rule, and is a matrix by its axes but not by "
            f"its name: say how to read it, e.g. matrices={{{path!r}: Skip('a bias')}} to leave it "
            "out, or Matrix() for (rows, columns). `describe_matrices(tree, rules)` shows all "
            "leaves"
        )
    raise ValueError(
        f"leaf {path!r} of shape {shape} has no rule and could be read in many ways: say how, "
        f"e.g. matrices={{{path!r}: Matrix()}} for stacked (layers, rows, columns), "
        "Matrix(rows=(0,), columns=(1, 2)) for (rows, heads, head_dim), "
        "Matrix(rows=(0, 1), columns=(2,)) for (heads, head_dim, columns), "
        "Matrix(rows=(0, 1, 2), columns=(3,)) for a convolution, or Skip('why') to leave it out. "
        "`describe_matrices(tree, rules)` shows all leaves; a CLIP's rules are VISUAL_MATRICES"
    )


def _check_axes(path: str, shape: tuple[int, ...], pattern: str, reading: Matrix) -> None:
    axes = (*reading.rows, *reading.columns)
    inside = all(-len(shape) <= axis < len(shape) for axis in axes)
    distinct = inside and len({axis % len(shape) for axis in axes}) == len(axes)
    if not (distinct and reading.rows and reading.columns):
        raise ValueError(
            f"rule {pattern!r}: {reading} does not fit leaf {path!r} of shape {shape}; rows and "
            f"columns must each name axes of it, none twice, between {-len(shape)} and "
            f"{len(shape) - 1}"
        )


def as_matrices(leaf: Inexact[Array | np.ndarray, ...], reading: Matrix) -> Any:
    """A leaf as `k` matrices of `m` rows and `n` columns, (k, m, n); NumPy's if the leaf is."""
    rows = tuple(axis % leaf.ndim for axis in reading.rows)
    columns = tuple(axis % leaf.ndim for axis in reading.columns)
    batch = tuple(axis for axis in range(leaf.ndim) if axis not in rows + columns)
    size = [math.prod(leaf.shape[axis] for axis in axes) for axes in (batch, rows, columns)]
    return leaf.transpose(batch + rows + columns).reshape(size)


def from_matrices(
    matrices: Inexact[Array | np.ndarray, "k m n"], shape: tuple[int, ...], reading: Matrix
) -> Any:
    """The leaf of a shape that `as_matrices` reads as these matrices: its inverse."""
    axes = len(shape)
    rows = tuple(axis % axes for axis in reading.rows)
    columns = tuple(axis % axes for axis in reading.columns)
    order = (*(axis for axis in range(axes) if axis not in rows + columns), *rows, *columns)
    leaf = matrices.reshape([shape[axis] for axis in order])
    return leaf.transpose([order.index(axis) for axis in range(axes)])


def select_matrices(tree: Any, rules: Rules | None = None) -> dict[str, Inexact[Array, "k m n"]]:
    """All weight matrices of a tree, by leaf path, in the tree's order.

    Args:
      tree: any pytree of arrays and `LowRank` nodes; the latter are multiplied out.
      rules: how leaves are read, see the module's docstring.

    Raises:
      ValueError: from `read_leaf`; a rule that matches no leaf (most likely misspelt: "fc1" is not
        "fc1/kernel" nor "*fc1*"); no matrix at all.
    """
    return {
        path: as_matrices(jnp.asarray(dense(leaf)), reading)
        for path, (leaf, reading) in select_leaves(tree, rules).items()
    }


def select_leaves(tree: Any, rules: Rules | None = None) -> dict[str, tuple[Any, Matrix]]:
    """The leaves that `select_matrices` reads, as they are, and how each is read.

    Raises:
      ValueError: as `select_matrices`; a leaf that is no array.
    """
    check_arrays(tree, "tree of updates")
    leaves = flatten(tree, is_low_rank)
    unused = [pattern for pattern in rules or {} if not fnmatch.filter(leaves, pattern)]
    if unused:
        raise ValueError(
            f"matrices: no leaf matches {', '.join(map(repr, unused))}; patterns are globs over "
            f"whole paths, which are {', '.join(leaves)}"
        )
    readings = {
        path: read_leaf(path, leaf.shape if is_low_rank(leaf) else jnp.shape(leaf), rules)
        for path, leaf in leaves.items()
    }
    selected = {
        path: (leaves[path], reading)
        for path, reading in readings.items()
        if isinstance(reading, Matrix)
    }
    if not selected:
        raise ValueError(
            f"the tree holds no weight matrix: {describe_matrices(tree, rules) or 'it is empty'}"
        )
    return selected


def has_matrices(tree: Any, rules: Rules | None = None) -> bool:
    """Whether any leaf is read as a weight matrix.

    Raises:
      ValueError: from `read_leaf`.
    """
    return any(
        isinstance(read_leaf(path, tuple(leaf.shape), rules), Matrix)
        for path, leaf in flatten(tree, is_low_rank).items()
    )


def rules_for_part(tree: Any, rules: Rules) -> dict[str, Reading]:
    """Of rules written for a whole model, those that match a leaf of `tree`, a part of it."""
    leaves = flatten(tree, is_low_rank)
    return {pattern: rules[pattern] for pattern in rules if fnmatch.filter(leaves, pattern)}


def describe_matrices(tree: Any, rules: Rules | None = None) -> str:
    """A table of every leaf: path, shape, and how it is read or why it is not.

    Rules that match no leaf are listed below it.

    Args:
      tree: any pytree of arrays or of `jax.ShapeDtypeStruct`.
      rules: as for `orthogonality_penalty`.

    Examples:
      >>> tree = {"bias": jnp.zeros(3), "heads": jnp.zeros((8, 2, 4))}
      >>> rules = {"heads": oj.Matrix(rows=(0,), columns=(1, 2))}
      >>> print(oj.describe_matrices(tree, rules))
      leaf   shape      read as
      bias   (3,)       -- 1 axes: a bias, scale or scalar
      heads  (8, 2, 4)  (8 rows, 8 columns)
    """
    lines = [("leaf", "shape", "read as")]
    leaves = flatten(tree, is_low_rank)
    for name, leaf in leaves.items():
        if not is_array(leaf):
            lines.append((name, "", f"-- ERROR: a {type(leaf).__name__} and no array"))
            continue
        shape = tuple(jnp.shape(leaf))
        try:
            reading = read_leaf(name, shape, rules)
        except ValueError as error:
            reading = Skip(f"ERROR: {str(error).partition(', e.g.')[0]}")
        if isinstance(reading, Matrix):
            struct = jax.eval_shape(
                lambda x, reading=reading: as_matrices(x, reading),
                jax.ShapeDtypeStruct(shape, leaf.dtype),
            )
            count, rows, columns = struct.shape
            text = f"{count} x " * (count != 1) + f"({rows} rows, {columns} columns)"
        else:
            text = f"-- {reading.reason}"
        lines.append((name, str(shape), text))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    table = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in lines]
    unused = [pattern for pattern in rules or {} if not fnmatch.filter(leaves, pattern)]
    return "\n".join(table + [f"rule {pattern!r} matches no leaf" for pattern in unused])
