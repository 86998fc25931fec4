"""Merges task vectors from files, one layer at a time."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.checks import check_precision
from orthoreg_jax.arithmetic.paths import flatten, unflatten
from orthoreg_jax.arithmetic.rules import Rules
from orthoreg_jax.arithmetic.task_vectors import check_same
from orthoreg_jax.trees import StoredTree

from .applying import (
    Piece,
    check_fits,
    find_cutoff,
    is_on_host,
    join_cutoffs,
    merge_slice,
    plan,
    stack_cutoffs,
)
from .merger import Merger
from .norms import match_source_norms


@runtime_checkable
class Source(Protocol):
    """One task vector, read leaf by leaf: a file, or a model and its base."""

    @property
    def path(self) -> Any:
        """Its name in messages."""

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of the leaves, by path."""

    def read(self, name: str, place: int | None = None) -> np.ndarray:
        """A leaf, or the slice at `place` of its first axis, with that axis kept."""

    def check(self) -> str:
        """Checks that it is complete, and returns the hash of its content."""


class Merged(NamedTuple):
    """A merged task vector and the content hash of each input file."""

    vector: dict[str, Any]
    sha256: tuple[str, ...]


def merge_files(
    sources: Sequence[pathlib.Path | Source],
    merger: Merger,
    *,
    matrices: Rules | None = None,
    key: jax.Array | None = None,
    match: str = "",
) -> Merged:
    """Same result as `merge_task_vectors`, for more files than fit in memory.

    Reads one layer of one leaf from all files at a time: a slice of the first axis of a stacked
    leaf, otherwise the whole leaf. Memory holds that and the merged vector. For 64 files of
    ViT-B/32 (335 MiB each, with a largest slice of 9), this is less than four files. Before that,
    every file is read leaf by leaf to check its hash; for mergers with a cutoff over the whole
    vector (`ties(over="vector")`) once more, a vector at a time; for `pcb` then twice more.

    Args:
      sources: safetensors files of task vectors, as a run writes them; or any `Source`.
      merger: see `merge_task_vectors`.
      matrices: see `merge_task_vectors`.
      key: see `merge_task_vectors`.
      match: the norm to scale the vectors to first, see `match_norms`; "" leaves them unchanged.

    Raises:
      ValueError: as `merge_task_vectors` and `match_norms`; files of different structure or
        shapes are named.
      StorageError: a file is missing or damaged.
    """
    check_fits(merger, len(sources), key)
    files: list[Source]
    files = [StoredTree(each) if isinstance(each, pathlib.Path) else each for each in sources]
    shapes = check_alike(files)
    pieces = plan(shapes, merger, matrices)
    on_host = is_on_host(merger, ())
    if not on_host:  # NumPy computes with float64
        check_precision({str(files[0].path): shapes})
    sha256 = tuple(file.check() for file in files)
    if match:
        files = list(match_source_norms(files, match))
    cutoffs = None
    if jax.eval_shape(find_cutoff, merger, jax.tree.leaves(shapes)) is not None:
        cutoffs = stack_cutoffs([_find_cutoff(merger, file) for file in files])
    if merger.joint is not None:
        size = sum(math.prod(leaf.shape) for leaf in flatten(shapes).values())
        cutoffs = join_cutoffs(merger, cutoffs, lambda: _slices(files, shapes, pieces), size)
    values: Any
    merged = {}
    for path, shape in flatten(shapes).items():
        leaf = merged[path] = np.empty(shape.shape, shape.dtype)
        piece = pieces[path]
        for place in _places(piece, leaf):
            index = ... if place is None else slice(place, place + 1)
            if on_host:
                values = np.empty((len(files), *leaf[index].shape), leaf.dtype)
                for number, file in enumerate(files):
                    values[number] = file.read(path, place)
                leaf[index] = merge_slice(values, cutoffs, key, place or 0, merger, piece)
            else:
                values = _read_all(files, path, place)
                leaf[index] = _merge_slice(values, cutoffs, key, place or 0, merger, piece)
            del values  # frees them before the next read
    return Merged(unflatten(merged), sha256)


_merge_slice = jax.jit(merge_slice, static_argnames=("merger", "piece"))


def _find_cutoff(merger: Merger, file: Source) -> jax.Array | None:
    """Finds one file's cutoff, and frees its vector before the next one is read."""
    # Copied, leaf by leaf: JAX would hold NumPy's memory until some later call.
    leaves = [jax.block_until_ready(jnp.array(file.read(name))) for name in file.shapes]
    return jax.block_until_ready(find_cutoff(merger, leaves))


def check_alike(sources: Sequence[Source]) -> Any:
    """The shapes of the leaves, which must be those of all sources.

    Raises:
      ValueError: sources of different structure or shapes.
    """
    shapes = unflatten(sources[0].shapes)
    for source in sources[1:]:
        check_same(unflatten(source.shapes), shapes, (str(source.path), str(sources[0].path)))
    return shapes


def _places(piece: Piece, leaf: Any) -> Sequence[int | None]:
    return range(leaf.shape[0]) if piece.stacked else [None]


def _slices(
    files: Sequence[Source], shapes: Any, pieces: Mapping[str, Piece]
) -> Iterator[jax.Array]:
    """The vector of all files, in the pieces in which it is merged."""
    for path, shape in flatten(shapes).items():
        for place in _places(pieces[path], shape):
            yield _read_all(files, path, place)


def _read_all(files: Sequence[Source], path: str, place: int | None) -> jax.Array:
    """Reads a leaf of all files into one array; only one file's copy exists at a time."""
    leaf = files[0].shapes[path]
    shape = leaf.shape if place is None else (1, *leaf.shape[1:])
    values = jnp.zeros((len(files), *shape), leaf.dtype)
    for number, file in enumerate(files):
        # Waited for: calls under way would hold what other files gave.
        values = jax.block_until_ready(_fill(values, file.read(path, place), number))
    return values


_fill = jax.jit(lambda values, value, number: values.at[number].set(value), donate_argnums=0)
