"""Rules for the stock layers of flax, Equinox and Haiku."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from .low_rank import is_low_rank
from .paths import flatten, leaf_path
from .rules import LORA_LEAVES, Adapter, Matrix, Reading, Skip, shape_of, without_value
from .types import PyTree

Shapes = Mapping[str, tuple[int, ...]]  # by path, without nnx's "/value"
# Names of layers: Conv_0, ConvTranspose_1, conv, conv2, down_conv, but not conversation.
CONVOLUTION = re.compile(r"(^|_)conv(transpose|local)?(\d|_|$)")
HAIKU_CONVOLUTION = re.compile(r"(?:^|_)conv(\d)_d")


def layer_rules(library: str, tree: PyTree, spatial: int | None = None) -> dict[str, Reading]:
    """Rules for those leaves of a library's stock layers that need one.

    Covers multi-head attention, `DenseGeneral`, convolutions, layers stacked by scan or vmap, and
    LoRA in nnx. For Equinox, whose layers are nodes of the tree, it also covers linear layers
    (which are (outputs, inputs) there), embeddings and normalisations. Layers of flax and Haiku are
    recognised by their leaves' names and shapes, the shape of the bias above all.

    An ambiguous leaf gets no rule, and is an error later if it needs one:

    * a convolution without bias in linen or nnx, unless `spatial` tells its axes: one over images
      looks like a stack of those over sequences. Its layer must be called conv.
    * a convolution over one input channel, which looks like one channel by channel; in Equinox,
      one of several groups. Columns of different groups see different inputs.

    Args:
      library: "linen", "nnx", "equinox" or "haiku".
      tree: all parameters, or their shapes; for Equinox the module itself, as
        `eqx.filter(model, eqx.is_inexact_array)`.
      spatial: axes over which convolutions without bias slide, 2 for images; all axes before them
        stack layers.

    Args:
      library: "linen", "nnx", "equinox" or "haiku".
      tree: all parameters, or their shapes; for Equinox the module itself, as
        `eqx.filter(model, eqx.is_inexact_array)`.

    Returns:
      Rules by full path. Put your own in front:
      `{"head/kernel": oj.Skip("frozen"), **oj.layer_rules("linen", params)}`.

    Raises:
      ValueError: an unknown library, or `spatial` is below 1.

    Examples:
      >>> attention = {"query": {"kernel": jnp.zeros((8, 2, 4))},
      ...              "out": {"kernel": jnp.zeros((2, 4, 8))}}
      >>> print(oj.describe_matrices(attention, oj.layer_rules("linen", attention)))
      leaf          shape      read as
      out/kernel    (2, 4, 8)  (8 rows, 8 columns)
      query/kernel  (8, 2, 4)  (8 rows, 8 columns)
    """
    if spatial is not None and not (isinstance(spatial, int) and spatial > 0):
        raise ValueError(f"spatial is {spatial!r}; give a number of axes from 1, such as 2")
    if library == "equinox":
        return _equinox_rules(tree)
    if not isinstance(library, str) or library not in READ_BY_NAME:
        allowed = ", ".join(map(repr, [*READ_BY_NAME, "equinox"]))
        came = repr(library) if isinstance(library, str) else f"a {type(library).__name__}"
        raise ValueError(f"library is {came}; allowed: {allowed}")
    shapes = {
        without_value(path): shape_of(leaf) for path, leaf in flatten(tree, is_low_rank).items()
    }
    found: dict[str, Reading] = {}
    for path in shapes:
        node, _, name = path.rpartition("/")
        reading = READ_BY_NAME[library](shapes, node, name, spatial)
        if reading is not None:
            found[glob.escape(node if isinstance(reading, Adapter) else path)] = reading
    return found


def _below(node: str, name: str) -> str:
    return f"{node}/{name}".lstrip("/")


def _flax(shapes: Shapes, node: str, name: str, spatial: int | None) -> Reading | None:
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
    if not CONVOLUTION.search(part.lower()):
        spatial = None
    elif len(shapes[_below(node, name)]) == 3:
        spatial = 1
    return _kernel(shapes[_below(node, name)], shapes.get(_below(node, "bias")), spatial)


def _haiku(shapes: Shapes, node: str, name: str, spatial: int | None) -> Reading | None:
    shape, layer = shapes[_below(node, name)], node.rpartition("/")[2]
    if name == "b" and len(shape) > 1:
        return Skip("a bias, by its name")
    if name != "w":
        return None
    said = HAIKU_CONVOLUTION.search(layer)
    outputs = -2 if "transpose" in layer else -1
    return _kernel(shape, shapes.get(_below(node, "b")), int(said[1]) if said else None, outputs)


def _kernel(
    shape: tuple[int, ...],
    bias: tuple[int, ...] | None,
    spatial: int | None,
    outputs: int = -1,
) -> Reading | None:
    """The rule for a kernel (..., in, out) of three or more axes; None if fewer, or ambiguous.

    Args:
      shape: of the kernel.
      bias: its shape, if there is one: (stack..., out), or as many last axes as the outputs have.
      spatial: axes that a convolution slides over, where they are known.
      outputs: the axis of the outputs.
    """
    axes = len(shape)
    if axes < 3:
        return None
    columns, first = (outputs % axes,), 0
    if bias is not None:
        first = len(bias) - 1
        stacked = bias == (*shape[:first], shape[outputs])
        several = 1 < len(bias) < axes and bias == shape[-len(bias) :]
        if stacked == several:
            return None
        if several:
            return Matrix(tuple(range(axes - len(bias))), tuple(range(axes - len(bias), axes)))
    elif spatial is not None and axes >= spatial + 2:
        first = axes - spatial - 2
    else:
        return None
    rows = tuple(axis for axis in range(first, axes) if axis not in columns)
    one_channel = len(rows) > 1 and shape[rows[-1]] == 1
    return None if one_channel else Matrix(rows, columns)


# Library -> function of (shapes, path of a layer, name of its leaf, axes of convolutions without
# bias) that gives the leaf's reading.
READ_BY_NAME: dict[str, Callable[[Shapes, str, str, int | None], Reading | None]] = {
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
    if getattr(layer, "groups", 1) > 1 and kind.startswith("Conv"):
        return None
    # (outputs, inputs); (outputs, inputs, height, width) in a convolution.
    spatial = layer.num_spatial_dims if kind.startswith("Conv") else 0
    return Matrix(tuple(range(-1 - spatial, 0)), (-2 - spatial,))
