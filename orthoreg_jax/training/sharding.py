"""Placement of arrays on a mesh: batches are split over all devices, weights over some.

The mesh has two axes. Along "data" the weights are replicated. Along "fsdp" each device holds a
shard of every large array (fully sharded data parallelism), gathered layer by layer as the model
runs. Batches are split over both axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.custom_derivatives import linear_call
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from orthoreg_jax.arithmetic.types import PyTree

SMALLEST = 2**12  # elements; smaller arrays are replicated: gathering them costs more than it saves


class Shardings(NamedTuple):
    """Placements on one mesh."""

    mesh: Mesh

    @property
    def batch(self) -> NamedSharding:
        """Splits the first axis over all devices."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp")))

    @property
    def microbatches(self) -> NamedSharding:
        """Splits the second axis over all devices; the first axis is the sequential parts."""
        return NamedSharding(self.mesh, PartitionSpec(None, ("data", "fsdp")))

    @property
    def replicated(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def put_batch(self, tree: PyTree) -> PyTree:
        """Puts a batch on the devices; every process passes its own part."""
        return jax.tree.map(
            lambda array: jax.make_array_from_process_local_data(self.batch, array), tree
        )

    def put_weights(self, tree: PyTree) -> PyTree:
        """Puts weights on the devices; every process passes all of them."""
        return jax.device_put(tree, self.weights(tree))

    def weights(self, tree: PyTree) -> PyTree:
        """Placement of every leaf of a tree of weights, gradients or optimiser state.

        Splits the longest axis that the mesh divides. For a weight matrix that is the side over
        which the penalty's Gram matrix sums, so devices multiply their own shards and exchange
        only Gram matrices.
        """
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self._spec(leaf.shape)), tree)

    @property
    def gather(self) -> Callable[[Any], Any] | None:
        """Gathers weights on every device inside `jit`; their gradients are sharded again.

        None if weights are not sharded. Without it, XLA also splits a layer's products as its
        weights are split and exchanges activations, which are many times as many bytes.
        """
        place = jax.lax.with_sharding_constraint

        def gather_leaf(leaf: Any, placed: NamedSharding) -> Any:
            # The derivative of a gather would sum whole gradients over all devices. Instead,
            # gradients are scattered along "fsdp", and only shards are summed along "data".
            return linear_call(
                lambda _, piece: place(place(piece, placed), self.replicated),
                lambda _, gradient: place(gradient, placed),
                (),
                leaf,
            )

        def gather(tree: PyTree) -> Any:
            return jax.tree.map(gather_leaf, tree, self.weights(tree))

        return gather if self.mesh.shape["fsdp"] > 1 else None

    def _spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        pieces = self.mesh.shape["fsdp"]
        lengths = [length if length % pieces == 0 else 0 for length in shape]
        if pieces == 1 or np.prod(shape) < SMALLEST or max(lengths) == 0:
            return PartitionSpec()
        axis = lengths.index(max(lengths))
        return PartitionSpec(*[None] * axis, "fsdp")


def make_shardings(*batch_sizes: int, fsdp: int = 1, local: bool = False) -> Shardings:
    """Placements over all devices of this run, including those of other processes.

    Args:
      batch_sizes: numbers of images computed at once, over all devices.
      fsdp: number of devices over which weights are split.
      local: use the devices of this process only.

    Raises:
      ValueError: the number of devices does not divide a batch, or `fsdp` does not divide the
        number of devices.
    """
    devices = jax.local_device_count() if local else jax.device_count()
    if devices % fsdp:
        raise ValueError(
            f"training.fsdp {fsdp}: {devices} devices cannot be split into groups of {fsdp}; "
            f"choose a divisor of {devices}"
        )
    for size in batch_sizes:
        if size % devices:
            raise ValueError(
                f"batch_size {size} cannot be split over {devices} devices; choose a multiple of "
                f"{devices} for training.batch_size / training.accumulate, "
                "penalty.taujp.batch_size and evaluation.batch_size"
            )
    mesh = jax.make_mesh(
        (devices // fsdp, fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=jax.local_devices() if local else None,
    )
    return Shardings(mesh)
