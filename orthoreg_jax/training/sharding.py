"""Where arrays live: batches split over all devices, everything else on each of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


class Shardings(NamedTuple):
    """The two placements that a run needs."""

    batch: NamedSharding
    replicated: NamedSharding


def make_shardings(*batch_sizes: int) -> Shardings:
    """Placements over all devices of this run.

    Raises:
      ValueError: a batch that the number of devices does not divide.
    """
    devices = jax.device_count()
    for size in batch_sizes:
        if size % devices:
            raise ValueError(
                f"batch_size {size} cannot be split over {devices} devices; choose a multiple of "
                f"{devices} for training.batch_size and evaluation.batch_size"
            )
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    return Shardings(
        NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    )
