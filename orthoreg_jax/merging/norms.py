"""Task vectors scaled to a common norm before they are merged, in memory or from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.checks import check_precision
from orthoreg_jax.arithmetic.precision import wide_type
from orthoreg_jax.arithmetic.task_vectors import norm, read_vectors
from orthoreg_jax.arithmetic.types import PyTree

from .parameters import check_among

TARGETS: dict[str, Callable[[Any], Any]] = {"mean": np.mean, "smallest": np.min, "largest": np.max}


def match_norms(vectors: Sequence[PyTree] | Mapping[str, PyTree], to: str = "mean") -> Any:
    """Scales task vectors to one norm: tau_t * n / ||tau_t||, n a mean, minimum or maximum.

    A vector that is much longer than the others decides what mergers make of all of them: it
    outvotes them in TIES' election and owns the leading singular directions. Lengths differ between
    learning rates, numbers of steps and penalties; OrthoReg makes some vectors ten times as long.
    It says nothing of how well a scaled vector does its own task: measure that, too. DisTaC shrinks
    the long ones, and trains them further for what that costs, which is not done here.

    Args:
      vectors: a list of task vectors, or a dict of them by task.
      to: the common norm: the "mean" of all norms, the "smallest" or the "largest".

    Returns:
      A list, or a dict as given, with the types of the leaves.

    Raises:
      ValueError: another word, a vector that is 0 or not finite, or as `merge_task_vectors` for the
        vectors.

    Reference: "DisTaC: Conditioning Task Vectors via Distillation for Robust Model Merging", ICLR
      2026 (arXiv 2508.01148), which finds what norms that differ do to mergers.

    Examples:
      >>> long, short = {"w": jnp.array([0.0, 6.0])}, {"w": jnp.array([2.0, 0.0])}
      >>> [each["w"].tolist() for each in oj.match_norms([long, short])]
      [[0.0, 4.0], [4.0, 0.0]]
    """
    named = read_vectors(vectors)
    check_precision(named)
    rows = list(named.values())
    names = list(vectors) if isinstance(vectors, Mapping) else range(len(rows))
    factors = norm_factors([float(norm(row)) for row in rows], names, to)
    scaled = [
        jax.tree.map(lambda leaf, own=factor: _scale(jnp.asarray(leaf), own), row)
        for row, factor in zip(rows, factors, strict=True)
    ]
    return dict(zip(vectors, scaled, strict=True)) if isinstance(vectors, Mapping) else scaled


def norm_factors(norms: Sequence[float], names: Sequence[Any] | range, to: str) -> list[float]:
    """What each vector is multiplied by; `names` are for the message."""
    check_among("match_norms", "to", to, list(TARGETS))
    if not len(norms):
        raise ValueError("no task vector to scale; give at least one")
    for name, found in zip(names, norms, strict=True):
        if not 0 < found < float("inf"):
            raise ValueError(
                f"match_norms: vector {name} has norm {found:g} and cannot be scaled to the others'"
                "; leave it out"
            )
    common = float(TARGETS[to](norms))
    return [common / found for found in norms]


class Scaled:
    """A source of a task vector, multiplied by a number; see `files.Source`."""

    def __init__(self, source: Any, factor: float) -> None:
        self.path, self.shapes = source.path, source.shapes
        self.source, self.factor = source, factor

    def read(self, name: str, place: int | None = None) -> np.ndarray:
        """A leaf, or a slice of it."""
        return np.asarray(_scale(self.source.read(name, place), self.factor))

    def check(self) -> str:
        """The content hash of the vector as it is stored."""
        return str(self.source.check())


def match_source_norms(sources: Sequence[Any], to: str) -> list[Scaled]:
    """Same as `match_norms`, for sources; reads one leaf of one source at a time."""
    norms = [
        float(np.sqrt(sum(_squares(source.read(name)) for name in source.shapes)))
        for source in sources
    ]
    factors = norm_factors(norms, [str(source.path) for source in sources], to)
    return [Scaled(source, factor) for source, factor in zip(sources, factors, strict=True)]


def _squares(leaf: np.ndarray) -> float:
    wide = np.asarray(leaf).astype(np.float64).reshape(-1)
    return float(wide @ wide)


def _scale(leaf: Any, factor: float) -> Any:
    wide = wide_type(leaf.dtype)
    return (leaf.astype(wide) * np.asarray(factor, wide)).astype(leaf.dtype)
