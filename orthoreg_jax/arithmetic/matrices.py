"""Finds the weight matrices of a pytree by rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from .low_rank import dense, is_low_rank
from .paths import check_arrays, flatten, is_array
from .rules import (
    Adapter,
    Matrix,
    Rules,
    Skip,
    Unread,
    check_rules,
    read_leaf,
    read_leaves,
    shadowed_rules,
    shape_of,
    unused_rules,
    without_value,
)
from .types import PyTree


def as_matrices(leaf: Inexact[Array | np.ndarray, ...], reading: Matrix) -> Any:
    """A leaf as `k` matrices of `m` rows and `n` columns, (k, m, n); NumPy arrays stay NumPy."""
    rows = tuple(axis % leaf.ndim for axis in reading.rows)
    columns = tuple(axis % leaf.ndim for axis in reading.columns)
    batch = tuple(axis for axis in range(leaf.ndim) if axis not in rows + columns)
    size = [math.prod(leaf.shape[axis] for axis in axes) for axes in (batch, rows, columns)]
    return leaf.transpose(batch + rows + columns).reshape(size)


def from_matrices(
    matrices: Inexact[Array | np.ndarray, "k m n"], shape: tuple[int, ...], reading: Matrix
) -> Any:
    """Inverse of `as_matrices`: the leaf, of the given shape, that holds these matrices."""
    axes = len(shape)
    rows = tuple(axis % axes for axis in reading.rows)
    columns = tuple(axis % axes for axis in reading.columns)
    order = (*(axis for axis in range(axes) if axis not in rows + columns), *rows, *columns)
    leaf = matrices.reshape([shape[axis] for axis in order])
    return leaf.transpose([order.index(axis) for axis in range(axes)])


def select_matrices(tree: PyTree, rules: Rules | None = None) -> dict[str, Inexact[Array, "k m n"]]:
    """All weight matrices of a tree, by leaf path, in the tree's order.

    Args:
      tree: any pytree of arrays and `LowRank` nodes, which are multiplied out.
      rules: how leaves are read, see `arithmetic/rules.py`.

    Raises:
      ValueError: from `read_leaves`; a rule matches no leaf (probably a misspelling: "fc1" is
        neither "fc1/kernel" nor "*fc1*"); there is no matrix at all.
    """
    return {
        path: as_matrices(jnp.asarray(dense(leaf)), reading)
        for path, (leaf, reading) in select_leaves(tree, rules).items()
    }


def select_leaves(tree: PyTree, rules: Rules | None = None) -> dict[str, tuple[Any, Matrix]]:
    """The leaves that `select_matrices` reads, unchanged, and how each is read.

    Two leaves that a rule reads as an `Adapter` become one `LowRank`, at the path of their node.

    Raises:
      ValueError: as `select_matrices`; a leaf is not an array; one of two factors is missing.
    """
    check_arrays(tree, "tree of updates")
    check_rules(rules)
    leaves = flatten(tree, is_low_rank)
    unused = unused_rules(tree, rules or {})
    if unused:
        raise ValueError(f"matrices: {'; '.join(_why_unused(each, rules) for each in unused)}; the "
                         f"paths are {', '.join(leaves)}")  # fmt: skip
    selected = read_updates(leaves, rules)
    if not selected:
        table = f", only these leaves:\n{describe_matrices(tree, rules)}" if leaves else ""
        raise ValueError(f"the tree has no weight matrix{table or '; it is empty'}")
    return selected


def _why_unused(pattern: str, rules: Rules | None) -> str:
    reading = (rules or {})[pattern]
    if isinstance(reading, Adapter):
        return (
            f"no node matches {pattern!r} and has leaves {reading.left!r} and {reading.right!r}; "
            "the pattern of an Adapter is a glob over the node that holds both factors"
        )
    return f"no leaf matches {pattern!r}; patterns are globs over whole paths"


def read_updates(
    leaves: Mapping[str, Any], rules: Rules | None = None
) -> dict[str, tuple[Any, Matrix]]:
    """Picks the matrices' updates from leaves by path, each with its reading.

    Raises:
      ValueError: as `select_leaves`, except for rules that match nothing.
    """
    selected: dict[str, tuple[Any, Matrix]] = {}
    for path, reading in read_leaves(leaves, rules).items():
        if isinstance(reading, Matrix):
            selected[path] = leaves[path], reading
        elif isinstance(reading, Adapter):
            node, pair = _factors(leaves, path, reading)
            selected[node or reading.left] = reading.update(*pair), Matrix()
    return selected


def _factors(leaves: Mapping[str, Any], path: str, adapter: Adapter) -> tuple[str, tuple[Any, Any]]:
    """The node that a factor belongs to, and both factors of that node."""
    node = adapter.node(path)
    assert node is not None  # because the rule matched
    paths = {without_value(each): each for each in leaves}
    names = [f"{node}/{factor}".lstrip("/") for factor in (adapter.left, adapter.right)]
    missing = [name for name in names if name not in paths]
    if missing:
        raise ValueError(
            f"{adapter}: leaf {path!r} is one of two factors, but {missing[0]!r} is missing; "
            f"the leaves are {', '.join(leaves)}"
        )
    left, right = (leaves[paths[name]] for name in names)
    shapes = [shape_of(each) for each in (left, right)]
    good = len(shapes[0]) == len(shapes[1]) >= 2 and shapes[0][-1] == shapes[1][-2]
    if not (good and shapes[0][:-2] == shapes[1][:-2]):
        raise ValueError(
            f"{adapter}: {names[0]!r} of shape {shapes[0]} and {names[1]!r} of shape {shapes[1]} "
            "cannot be multiplied; the left factor must end with the axes (m, r), the right one "
            "with (r, n)"
        )
    return node, (left, right)


def has_matrices(tree: PyTree, rules: Rules | None = None) -> bool:
    """Whether any leaf is read as a weight matrix.

    Raises:
      ValueError: from `read_leaves`.
    """
    readings = read_leaves(flatten(tree, is_low_rank), rules)
    return not all(isinstance(each, Skip) for each in readings.values())


def describe_matrices(tree: PyTree, rules: Rules | None = None) -> str:
    """A table of every leaf: path, shape, and how it is read or why it is not.

    Rules that match no leaf, or only leaves that rules before them match, are listed below it.

    Args:
      tree: any pytree of arrays or of `jax.ShapeDtypeStruct`.
      rules: as for `orthogonality_penalty`.

    Examples:
      >>> tree = {"bias": jnp.zeros(3), "heads": jnp.zeros((8, 2, 4))}
      >>> rules = {"heads": oj.Matrix(rows=(0,), columns=(1, 2))}
      >>> print(oj.describe_matrices(tree, rules))
      leaf   shape      read as
      bias   (3,)       -- 1-D: a bias, scale or scalar
      heads  (8, 2, 4)  (8 rows, 8 columns)
    """
    check_rules(rules)
    lines = [("leaf", "shape", "read as")]
    leaves = flatten(tree, is_low_rank)
    for path, leaf in leaves.items():
        shape = str(shape_of(leaf)) if is_array(leaf) else ""
        lines.append((path, shape, _describe_leaf(path, leaves, rules)))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    table = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in lines]
    unused = unused_rules(tree, rules or {})
    notes = [f"rule {pattern!r} matches no leaf" for pattern in unused]
    notes += [
        f"rule {pattern!r} never applies: the rules before it match its leaves first"
        for pattern in shadowed_rules(leaves, rules or {})
        if pattern not in unused
    ]
    return "\n".join(table + notes)


def _describe_leaf(path: str, leaves: Mapping[str, Any], rules: Rules | None) -> str:
    leaf = leaves[path]
    if not is_array(leaf):
        return f"-- ERROR: a {type(leaf).__name__}, not an array"
    try:
        reading = read_leaf(path, leaf, rules)
        if isinstance(reading, Skip):
            return f"-- {reading.reason}"
        if isinstance(reading, Unread):
            return f"-- ERROR: needs a rule, {reading.reason}"
        if isinstance(reading, Matrix):
            return _describe_size(shape_of(leaf), reading)
        _, pair = _factors(leaves, path, reading)
    except ValueError as error:
        return f"-- ERROR: {error}"
    product = f"{reading.scale:g} * left @ right"
    if f"/{without_value(path)}".endswith(f"/{reading.right}"):
        return f"right of {product}"
    structs = [jax.ShapeDtypeStruct(shape_of(each), jnp.float32) for each in pair]
    update = jax.eval_shape(lambda left, right: reading.update(left, right).dense(), *structs)
    return f"left of {product}: {_describe_size(update.shape, Matrix())}"


def _describe_size(shape: tuple[int, ...], reading: Matrix) -> str:
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    count, rows, columns = jax.eval_shape(lambda x: as_matrices(x, reading), leaf).shape
    sides = [
        f"{side} {name}{'s' * (side != 1)}" for side, name in ((rows, "row"), (columns, "column"))
    ]
    return f"{count} x " * (count != 1) + f"({', '.join(sides)})"
