"""Leaves of a pytree by their path as text: the names that errors, files and rules speak of."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax


def leaf_path(path: tuple[Any, ...]) -> str:
    """A leaf's key path as text, e.g. "blocks/mlp/fc1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """All leaves of any pytree by their path, in the tree's order."""
    return {leaf_path(path): leaf for path, leaf in jax.tree.leaves_with_path(tree, is_leaf)}


def check_arrays(tree: Any, name: str) -> None:
    """Checks that a tree holds arrays and nothing else.

    Raises:
      ValueError: it does not; the leaves are named, and the tree called `name`.
    """
    others = {path: leaf for path, leaf in flatten(tree).items() if not is_array(leaf)}
    if others:
        path, leaf = next(iter(others.items()))
        raise ValueError(
            f"{name}: {len(others)} of its leaves are no arrays, the first is {path!r}, a "
            f"{type(leaf).__name__}; give the arrays alone, for an Equinox model "
            "eqx.filter(model, eqx.is_inexact_array)"
        )


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, its shape and type, or a number."""
    return isinstance(leaf, int | float | complex) or hasattr(leaf, "dtype")


def unflatten(leaves: dict[str, Any]) -> dict[str, Any]:
    """The nested dict whose `flatten` this is."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def select(tree: Any, patterns: Sequence[str]) -> dict[str, Any]:
    """The part of a nested dict whose leaf paths match one of the globs.

    Raises:
      ValueError: a glob that matches no leaf.
    """
    leaves = flatten(tree)
    found = {pattern: fnmatch.filter(leaves, pattern) for pattern in patterns}
    unused = [pattern for pattern, paths in found.items() if not paths]
    if unused:
        raise ValueError(
            f"no leaf matches {', '.join(map(repr, unused))}; leaves are {', '.join(leaves)}"
        )
    wanted = {path for paths in found.values() for path in paths}
    return unflatten({path: leaf for path, leaf in leaves.items() if path in wanted})


def replace(tree: Any, part: Any) -> Any:
    """`tree` with the leaves of `part`, a nested dict like a piece of it, in place of its own."""
    changes = flatten(part)
    return jax.tree.map_with_path(lambda path, leaf: changes.get(leaf_path(path), leaf), tree)
