"""CLIP weights in other layouts: one key table per layout, used in both directions.

`stored` checks which of a table's tensors a file has, and whether they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.arithmetic.rules import Matrix, Rules, Skip

from .config import ClipConfig
from .modules import Clip

Weights = dict[str, Any]


class Row(NamedTuple):
    """One leaf of our tree, and the tensors from which it is assembled.

    `keys` are joined along the last axis of our layout (query, key, value -> in_proj). A key with
    `{layer}` stands for one tensor per block, stacked along a new first axis.
    """

    path: str
    keys: tuple[str, ...]
    layout: str = "same"


# From (out, in) axes in their layout to (in, out) in ours, and back.
_FORTH = {"same": (), "linear": (1, 0), "patches": (2, 3, 1, 0)}
_BACK = {"same": (), "linear": (1, 0), "patches": (3, 2, 0, 1)}


def _affine(path: str, key: str, last: str = "scale", layout: str = "same") -> tuple[Row, Row]:
    return (
        Row(f"{path}/{last}", (f"{key}.weight",), layout),
        Row(f"{path}/bias", (f"{key}.bias",)),
    )


def _tower(ours: str, theirs: str) -> tuple[Row, ...]:
    blocks, layers = f"{ours}/blocks", f"{theirs}.encoder.layers.{{layer}}"
    attention = f"{layers}.self_attn"
    return (
        Row(
            f"{blocks}/attn/in_proj/kernel",
            tuple(f"{attention}.{part}_proj.weight" for part in "qkv"),
            "linear",
        ),
        Row(
            f"{blocks}/attn/in_proj/bias", tuple(f"{attention}.{part}_proj.bias" for part in "qkv")
        ),
        *_affine(f"{blocks}/attn/out_proj", f"{attention}.out_proj", "kernel", "linear"),
        *_affine(f"{blocks}/mlp/fc1", f"{layers}.mlp.fc1", "kernel", "linear"),
        *_affine(f"{blocks}/mlp/fc2", f"{layers}.mlp.fc2", "kernel", "linear"),
        *_affine(f"{blocks}/norm1", f"{layers}.layer_norm1"),
        *_affine(f"{blocks}/norm2", f"{layers}.layer_norm2"),
    )


_HUGGINGFACE: tuple[Row, ...] = (
    Row("logit_scale", ("logit_scale",)),
    Row("visual/class_embedding", ("vision_model.embeddings.class_embedding",)),
    Row(
        "visual/patch_embedding",
        ("vision_model.embeddings.patch_embedding.weight",),
        "patches",
    ),
    Row("visual/position_embedding", ("vision_model.embeddings.position_embedding.weight",)),
    *_affine("visual/pre_norm", "vision_model.pre_layrnorm"),  # their spelling
    *_tower("visual", "vision_model"),
    *_affine("visual/post_norm", "vision_model.post_layernorm"),
    Row("visual/projection/kernel", ("visual_projection.weight",), "linear"),
    Row("text/token_embedding", ("text_model.embeddings.token_embedding.weight",)),
    Row("text/position_embedding", ("text_model.embeddings.position_embedding.weight",)),
    *_tower("text", "text_model"),
    *_affine("text/final_norm", "text_model.final_layer_norm"),
    Row("text/projection/kernel", ("text_projection.weight",), "linear"),
)


def _blocks(ours: str, theirs: str) -> tuple[Row, ...]:
    """A tower's blocks in open_clip's layout, which fuses query, key and value as ours does."""
    blocks, layers = f"{ours}/blocks", f"{theirs}.resblocks.{{layer}}"
    return (
        Row(f"{blocks}/attn/in_proj/kernel", (f"{layers}.attn.in_proj_weight",), "linear"),
        Row(f"{blocks}/attn/in_proj/bias", (f"{layers}.attn.in_proj_bias",)),
        *_affine(f"{blocks}/attn/out_proj", f"{layers}.attn.out_proj", "kernel", "linear"),
        *_affine(f"{blocks}/mlp/fc1", f"{layers}.mlp.c_fc", "kernel", "linear"),
        *_affine(f"{blocks}/mlp/fc2", f"{layers}.mlp.c_proj", "kernel", "linear"),
        *_affine(f"{blocks}/norm1", f"{layers}.ln_1"),
        *_affine(f"{blocks}/norm2", f"{layers}.ln_2"),
    )


_OPEN_CLIP: tuple[Row, ...] = (
    Row("logit_scale", ("logit_scale",)),
    Row("visual/class_embedding", ("visual.class_embedding",)),
    Row("visual/patch_embedding", ("visual.conv1.weight",), "patches"),
    Row("visual/position_embedding", ("visual.positional_embedding",)),
    *_affine("visual/pre_norm", "visual.ln_pre"),
    *_blocks("visual", "visual.transformer"),
    *_affine("visual/post_norm", "visual.ln_post"),
    Row("visual/projection/kernel", ("visual.proj",)),
    Row("text/token_embedding", ("token_embedding.weight",)),
    Row("text/position_embedding", ("positional_embedding",)),
    *_blocks("text", "transformer"),
    *_affine("text/final_norm", "ln_final"),
    Row("text/projection/kernel", ("text_projection",)),
)


class Layout(NamedTuple):
    """How another library names and lays out the tensors of a CLIP.

    `ignored` are tensors that are not weights: buffers that older versions also saved.
    """

    rows: tuple[Row, ...]
    ignored: tuple[str, ...]


LAYOUTS = {
    "huggingface": Layout(_HUGGINGFACE, ("*.embeddings.position_ids",)),
    "open_clip": Layout(_OPEN_CLIP, ("attn_mask",)),
}


def param_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameter leaves by path, e.g. "visual/projection/kernel"."""
    size = config.visual.image_size
    shapes = jax.eval_shape(
        Clip(config).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, config.text.context_length), jnp.int32),
    )["params"]
    return {path: leaf.shape for path, leaf in flatten(shapes).items()}


def pieces(
    row: Row, shape: tuple[int, ...], place: int | None = None
) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Each tensor of a row: its key, its place in our leaf, its shape in their layout.

    With `place`, only the tensors of that layer.
    """
    stacked = is_stacked(row)
    inner = shape[1:] if stacked else shape
    if inner and len(row.keys) > 1:
        inner = (*inner[:-1], inner[-1] // len(row.keys))
    theirs = tuple(inner[axis] for axis in _BACK[row.layout] or range(len(inner)))
    for layer in range(shape[0] if stacked else 1) if place is None else (place,):
        for part, key in enumerate(row.keys):
            columns = (slice(part * inner[-1], (part + 1) * inner[-1]),) if inner else ()
            index = (layer,) * stacked + (...,) + columns
            yield key.format(layer=layer), index, theirs


def is_stacked(row: Row) -> bool:
    """Whether the leaf of a row has layers as its first axis."""
    return "{layer}" in row.keys[0]


def assemble(
    row: Row,
    shape: tuple[int, ...],
    place: int | None,
    part: Callable[[str, Any, tuple[int, ...]], np.ndarray],
) -> np.ndarray:
    """A leaf in float32, assembled from its tensors; or its slice at `place`.

    Args:
      row: row of the leaf.
      shape: shape of the leaf.
      place: index along its first axis, which the slice keeps; None: the whole leaf.
      part: reads a tensor, given what `pieces` yields; its axes are in our order.
    """
    layer = place if is_stacked(row) else None
    leaf = np.empty(shape if layer is None else (1, *shape[1:]), np.float32)
    for name, index, theirs in pieces(row, shape, layer):
        leaf[index if layer is None else (0, *index[1:])] = part(name, index, theirs)
    return leaf if place is None or layer is not None else leaf[place : place + 1]


def from_theirs(row: Row, tensor: np.ndarray) -> np.ndarray:
    """A tensor of a row with its axes in our order."""
    return _reorder(tensor, _FORTH[row.layout])


def to_theirs(row: Row, part: np.ndarray) -> np.ndarray:
    """A part of our leaf as the tensor of the row, with its axes in their order."""
    return _reorder(part, _BACK[row.layout])


def _reorder(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return array.transpose(axes) if axes else array


def to_layout(params: Weights, layout: str) -> dict[str, np.ndarray]:
    """Tensors in another layout and naming, by their keys.

    Args:
      params: `{"visual": ..., "text": ..., "logit_scale": ()}`.
      layout: a key of `LAYOUTS`.

    Raises:
      ValueError: a leaf of the key table is missing, or a leaf is not in it.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    rows = LAYOUTS[layout].rows
    wrong = {row.path for row in rows} ^ leaves.keys()
    if wrong:
        raise ValueError(
            f"not the parameters of a whole CLIP: {', '.join(sorted(wrong))} missing or unknown; "
            "merge an image tower into the full parameters first"
        )
    return {
        # np.array, because np.ascontiguousarray would make the 0-d logit_scale 1-d.
        key: np.array(_reorder(leaves[row.path][index], _BACK[row.layout]), order="C")
        for row in rows
        for key, index, _ in pieces(row, leaves[row.path].shape)
    }


# The text tower's 2-D tensors outside its blocks. The authors' image encoder drops the text tower's
# blocks but keeps these, so they are trainable there.
TEXT = "text"
TEXT_TENSORS = ("token_embedding", "position_embedding", "projection")


def beside_text_tensors(params: Weights) -> Weights:
    """A whole model's image tower, with the tensors that it never reads under "text"."""
    return {**params["visual"], TEXT: {name: params[TEXT][name] for name in TEXT_TENSORS}}


# How the penalty reads the image tower: the tensors that are 2-D in the layout of the authors'
# code (here blocks are stacked). Each is named, or left out for a stated reason.
VISUAL_MATRICES: Rules = {
    "*patch_embedding": Skip("convolution: 4-D in the released code, which penalises 2-D tensors"),
    "*class_embedding": Skip("one vector"),
    "*position_embedding": Matrix(),
    "*blocks/*/kernel": Matrix(),
    "*blocks/*/bias": Skip("biases, one vector per layer", stacked=True),
    "*blocks/*/scale": Skip("layer norm scales, one vector per layer", stacked=True),
    "*projection/kernel": Matrix(),
}
# The same, with the text tensors; an embedding needs a rule to be read as a matrix.
TRAINED_MATRICES: Rules = {**VISUAL_MATRICES, f"{TEXT}/token_embedding": Matrix()}
