"""Computations on arrays sharded over a mesh with Explicit axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from .types import PyTree


def automatically_sharded(compute: Callable[[Any], Any], tree: PyTree) -> Any:
    """Runs `compute(tree)` and lets XLA lay out intermediate arrays, as on a mesh with Auto axes.

    On a mesh of Explicit axes, the kind that `jax.make_mesh` makes, a product over a sharded axis
    is ambiguous. Arrays on other meshes, or on none, go to `compute` unchanged.

    Args:
      compute: a function of arrays with a small, replicated result, such as a scalar.
      tree: arrays on one mesh.
    """
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree)]
    for mesh in meshes:
        kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
        explicit = tuple(name for name, kind in kinds if kind == AxisType.Explicit)
        if explicit:
            with jax.sharding.use_abstract_mesh(mesh):
                automatic = jax.sharding.auto_axes(
                    compute, axes=explicit, out_sharding=PartitionSpec()
                )
                return automatic(tree)
    return compute(tree)
