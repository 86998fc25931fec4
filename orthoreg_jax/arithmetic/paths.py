"""Leaves of a pytree by their path as text: the names that errors, files and rules speak of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def leaf_path(path: tuple[Any, ...]) -> str:
    """A leaf's key path as text, e.g. "blocks/mlp/fc1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """All leaves of any pytree by their path, in the tree's order."""
    return {leaf_path(path): leaf for path, leaf in jax.tree.leaves_with_path(tree, is_leaf)}


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
