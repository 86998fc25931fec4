"""Rules for the stock layers of flax, Equinox and Haiku."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from typing import Any

import jax

from .low_rank import is_low_rank
from .paths import flatten, leaf_path
from .rules import LORA_LEAVES, Adapter, Matrix, Reading, Skip, shape_of, without_value
from .types import PyTree

Shapes = Mapping[str, tuple[int, ...]]  # by path, without nnx's "/value"


def layer_rules(library: str, tree: PyTree) -> dict[str, Reading]:
    """Rules for those leaves of a library's stock layers that need one.

    Covers multi-head attention, convolutions, layers stacked by scan or vmap, and LoRA in nnx. For
    Equinox, whose layers are nodes of the tree, it also covers linear layers (which are
    (outputs, inputs) there), embeddings and normalisations. Layers of flax and Haiku are recognised
    by the names of their leaves and by matching shapes. An ambiguous leaf gets no rule and is an
    error later if it needs one: a `DenseGeneral` over several axes, for example.

    Args:
      library: "linen", "nnx", "equinox" or "haiku".
      tree: all parameters, or their shapes; for Equinox the module itself, as
        `eqx.filter(model, eqx.is_inexact_array)`.

    Returns:
      Rules by full path. Put your own in front:
      `{"head/kernel": oj.Skip("frozen"), **oj.layer_rules("linen", params)}`.

    Raises:
      ValueError: an unknown library.

    Examples:
      >>> attention = {"query": {"kernel": jnp.zeros((8, 2, 4))},
      ...              "out": {"kernel": jnp.zeros((2, 4, 8))}}
      >>> print(oj.describe_matrices(attention, oj.layer_rules("linen", attention)))
      leaf          shape      read as
      out/kernel    (2, 4, 8)  (8 rows, 8 columns)
      query/kernel  (8, 2, 4)  (8 rows, 8 columns)
    """
    if library == "equinox":
        return _equinox_rules(tree)
    if library not in READ_BY_NAME:
        allowed = ", ".join(map(repr, [*READ_BY_NAME, "equinox"]))
        raise ValueError(f"library {library!r}; allowed: {allowed}")
    shapes = {
        without_value(path): shape_of(leaf) for path, leaf in flatten(tree, is_low_rank).items()
    }
    found: dict[str, Reading] = {}
    for path in shapes:
        node, _, name = path.rpartition("/")
        reading = READ_BY_NAME[library](shapes, node, name)
        if reading is not None:
            found[glob.escape(node if isinstance(reading, Adapter) else path)] = reading
    return found


def _below(node: str, name: str) -> str:
    return f"{node}/{name}".lstrip("/")


def _flax(shapes: Shapes, node: str, name: str) -> Reading | None:
    """Rules for linen and nnx, whose leaves have the same names and layouts."""
    if name in LORA_LEAVES:
        return Adapter(*LORA_LEAVES)
    if name != "kernel":
        return None
    attention, _, part = node.rpartition("/")
    query = shapes.get(_below(attention, "query/kernel"), ())
    out = shapes.get(_below(attention, "out/kernel"), ())
    if len(query) == len(out) >= 3 and query[-2:] == out[-3:-1]:  # (heads, head_dim)
        if part in ("query", "key", "value"):
            return Matrix((-3,), (-2, -1))
        if part == "out":
            return Matrix((-3, -2), (-1,))
    return _kernel(shapes[_below(node, name)], shapes.get(_below(node, "bias")), part)


def _haiku(shapes: Shapes, node: str, name: str) -> Reading | None:
    shape = shapes[_below(node, name)]
    if name == "b" and len(shape) > 1:
        return Skip("a bias, by its name")
    outputs = -2 if "transpose" in node.rpartition("/")[2] else -1
    return _kernel(shape, shapes.get(_below(node, "b")), node, outputs) if name == "w" else None


def _kernel(
    shape: tuple[int, ...], bias: tuple[int, ...] | None, layer: str, outputs: int = -1
) -> Reading | None:
    """The rule for a kernel (..., in, out) of three or more axes; None if fewer, or ambiguous."""
    axes = len(shape)
    if axes < 3:
        return None
    if "conv" not in layer.rpartition("/")[2].lower():
        stacked = bias == (*shape[:-2], shape[-1])
        return Matrix() if stacked and bias != shape[1:] else None
    # (height, width, in, out); stacked layers have one more axis, and so do their biases.
    first = 0 if bias is None else len(bias) - 1
    fits = axes <= 4 if bias is None else bias == (*shape[:first], shape[outputs])
    columns = outputs % axes
    rows = tuple(axis for axis in range(first, axes) if axis != columns)
    return Matrix(rows, (columns,)) if fits else None


# Library -> function of (shapes, path of a layer, name of its leaf) that gives the leaf's reading.
READ_BY_NAME: dict[str, Callable[[Shapes, str, str], Reading | None]] = {
    "linen": _flax,
    "nnx": _flax,
    "haiku": _haiku,
}


def _equinox_rules(tree: PyTree) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for place, layer in jax.tree.leaves_with_path(tree, is_leaf=_is_equinox_layer):
        for path in flatten(layer) if _is_equinox_layer(layer) else ():
            reading = _equinox(layer, path)
            if reading is not None:
                found[glob.escape(_below(leaf_path(place), path))] = reading
    return found


def _is_equinox_layer(node: Any) -> bool:
    kind = type(node)
    return kind.__module__.startswith("equinox.nn") and kind.__name__.startswith(LAYERS)


LAYERS = ("Linear", "Conv", "GRUCell", "LSTMCell", "Embedding", "Layer", "RMS", "Group", "Batch")


def _equinox(layer: Any, name: str) -> Reading | None:
    kind = type(layer).__name__
    if kind == "Embedding":
        return Skip("an embedding")
    if kind.endswith("Norm"):
        return Skip("of a normalisation")
    if not name.startswith("weight"):
        return None
    # (outputs, inputs); (outputs, inputs, height, width) in a convolution.
    spatial = layer.num_spatial_dims if kind.startswith("Conv") else 0
    return Matrix(tuple(range(-1 - spatial, 0)), (-2 - spatial,))
