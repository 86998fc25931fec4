"""Leaves of a pytree by their path as text: the names used in errors, files and rules."""

from __future__ import annotations

import fnmatch
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .types import PyTree


def leaf_path(path: tuple[Any, ...]) -> str:
    """A leaf's key path as text, e.g. "blocks/mlp/fc1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """All leaves of any pytree by their path, in the tree's order.

    Raises:
      ValueError: two leaves have one path as text, as in {"a/b": x, "a": {"b": y}}.
    """
    found: dict[str, Any] = {}
    for key, leaf in jax.tree.leaves_with_path(tree, is_leaf):
        path = leaf_path(key)
        if path in found:
            raise ValueError(
                f"two leaves have the path {path!r}; rename a key, so that each has its own"
            )
        found[path] = leaf
    return found


def check_arrays(tree: PyTree, name: str) -> None:
    """Checks that a tree contains only arrays of real numbers.

    Raises:
      ValueError: it does not. The error names the leaves, and calls the tree `name`.
    """
    leaves = flatten(tree)
    others = {path: leaf for path, leaf in leaves.items() if not is_array(leaf)}
    if others:
        path, leaf = next(iter(others.items()))
        if not path:
            raise not_a_tree(tree, name)
        raise ValueError(
            f"{name}: {len(others)} leaves are not arrays (first: {path!r}, a "
            f"{type(leaf).__name__}); pass arrays only; for an Equinox model, "
            "eqx.filter(model, eqx.is_inexact_array)"
        )
    complex_ = [path for path, leaf in leaves.items() if _is_a(leaf, jnp.complexfloating)]
    if complex_:
        raise ValueError(
            f"{name}: {len(complex_)} leaves are complex (first: {complex_[0]!r}); weights must "
            "be real: pass the real and imaginary parts as two leaves"
        )


def not_a_tree(value: Any, name: str) -> ValueError:
    """The error for a value that is no tree of arrays at all; a model has one in `params`."""
    remedy = f"{name}.params" if hasattr(value, "params") else "a tree of arrays"
    return ValueError(f"{name} is {briefly(value)}, a {type(value).__name__}; give {remedy}")


def briefly(value: Any) -> str:
    """A value in a message: on one line, and shortened if it is long."""
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and shape:
        return f"an array of shape {shape}"
    value = value.item() if isinstance(value, np.generic) else value
    text = " ".join(reprlib.repr(value).split())
    return text if len(text) <= 100 else f"{text[:96]} ..."


def check_finite(tree: PyTree, name: str, advice: str) -> None:
    """Checks that a tree contains no NaN or infinity; traced leaves pass.

    Raises:
      ValueError: it does. The error names the leaf, calls the tree `name` and ends with `advice`.
    """
    wrong = {path: leaf for path, leaf in flatten(tree).items() if not _all_finite(leaf)}
    if wrong:
        path, leaf = next(iter(wrong.items()))
        count = int(np.sum(~np.isfinite(np.asarray(leaf))))
        more = f" (as do {len(wrong) - 1} more leaves)" if len(wrong) > 1 else ""
        raise ValueError(
            f"{name}: leaf {path!r} has {count} NaN or infinite values out of "
            f"{np.size(leaf)}{more}; {advice}"
        )


def _all_finite(leaf: Any) -> bool:
    # Computed where the array is, so that checking an array on a device does not copy it.
    library: Any = jnp if isinstance(leaf, jax.Array) else np
    if isinstance(leaf, jax.core.Tracer):
        return True
    return not _is_a(leaf, jnp.inexact) or bool(library.isfinite(leaf).all())


def _is_a(leaf: Any, kind: Any) -> bool:
    """Whether a leaf is an array, or a number, of the given kind of numbers."""
    return is_array(leaf) and jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), kind)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, a `jax.ShapeDtypeStruct` or a number."""
    if isinstance(leaf, int | float | complex | jax.Array):
        return True
    return isinstance(getattr(leaf, "dtype", None), np.dtype)  # other libraries have other types


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is an array, or a number, of a floating point type."""
    return _is_a(leaf, jnp.floating)


def unflatten(leaves: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`: a nested dict."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def select(tree: PyTree, patterns: Sequence[str]) -> dict[str, Any]:
    """The part of a nested dict whose leaf paths match a glob.

    Raises:
      ValueError: a glob matches no leaf.
    """
    leaves = flatten(tree)
    found = {pattern: fnmatch.filter(leaves, pattern) for pattern in patterns}
    unused = [pattern for pattern, paths in found.items() if not paths]
    if unused:
        raise ValueError(
            f"no leaf matches {', '.join(map(repr, unused))}; the leaves are {', '.join(leaves)}"
        )
    wanted = {path for paths in found.values() for path in paths}
    return unflatten({path: leaf for path, leaf in leaves.items() if path in wanted})


def replace(tree: PyTree, part: Any) -> PyTree:
    """`tree` with some leaves replaced by those of `part`, a nested dict."""
    changes = flatten(part)
    return jax.tree.map_with_path(lambda path, leaf: changes.get(leaf_path(path), leaf), tree)
