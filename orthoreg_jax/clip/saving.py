"""Writes a CLIP, or its image tower alone, in the layouts that other libraries read.

Weights are written one layer after the other, so that memory never holds a second copy of them.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from orthoreg_jax.arithmetic.paths import briefly, check_finite
from orthoreg_jax.storage import replacing_folder

from .config import ClipConfig
from .config_files import to_huggingface
from .location import OPEN_CLIP_WEIGHTS, TOKENIZER, WEIGHTS
from .open_clip import OPEN_CLIP, to_open_clip
from .preprocessing import Preprocessing, write_preprocessing
from .processor import read_processor, to_preprocess_cfg
from .tensors import FLOATS, KINDS
from .weights import LAYOUTS, Row, is_stacked, param_shapes, pieces, to_theirs

PROJECTION = "visual/projection/kernel"
# A leaf by its path, or the slice at a place of its first axis, with that axis kept.
Read = Callable[[str, int | None], np.ndarray]


class Companions(NamedTuple):
    """What a model's directory holds beside its weights.

    Attributes:
      config: the model's sizes.
      preprocessing: of images.
      preprocessing_directory: that it was read from.
      tokenizer_directory: with the tokenizer's files.
    """

    config: ClipConfig
    preprocessing: Preprocessing
    preprocessing_directory: pathlib.Path
    tokenizer_directory: pathlib.Path


class Output(NamedTuple):
    """A layout to write.

    Attributes:
      table: a key of `LAYOUTS`.
      file: of the weights.
      kind: transformers' class; empty for other libraries.
      holds: whether it contains the leaf at a path.
      prefix: left out of the keys.
    """

    table: str
    file: str
    kind: str
    holds: Callable[[str], bool] = lambda path: True
    prefix: str = ""


def _tower(path: str) -> bool:
    return path.startswith("visual/") and path != PROJECTION


OUTPUTS = {
    "transformers": Output("huggingface", WEIGHTS, "CLIPModel"),
    "vision": Output("huggingface", WEIGHTS, "CLIPVisionModel", _tower),
    "vision-bare": Output("huggingface", WEIGHTS, "CLIPVisionModel", _tower, "vision_model."),
    "vision-projection": Output(
        "huggingface",
        WEIGHTS,
        "CLIPVisionModelWithProjection",
        lambda path: path.startswith("visual/"),
    ),
    "open_clip": Output("open_clip", OPEN_CLIP_WEIGHTS, ""),
}


def check_output(layout: str, changed: Mapping[str, Any]) -> None:
    """Refuses a layout that there is not, or that leaves out something that was changed.

    Args:
      layout: a key of `OUTPUTS`.
      changed: leaves of the vector, by path; zeros are no change.

    Raises:
      ValueError: that.
    """
    if not isinstance(layout, str) or layout not in OUTPUTS:
        raise ValueError(f"layout {briefly(layout)}: allowed are {', '.join(OUTPUTS)}")
    lost = [
        path for path, leaf in changed.items()
        if not OUTPUTS[layout].holds(path) and np.any(np.asarray(leaf))
    ]  # fmt: skip
    if lost:
        others = [name for name, each in OUTPUTS.items() if all(map(each.holds, lost))]
        raise ValueError(
            f"layout {layout!r}: leaves out {', '.join(lost[:5])}"
            f"{' ...' if len(lost) > 5 else ''}, which this edit changes; write "
            f"{' or '.join(others)}"
        )


def stored_type(dtype: Any) -> np.dtype:
    """The type of a file's tensors, in a file's order of bytes.

    Raises:
      ValueError: one that `load_checkpoint` does not read.
    """
    try:
        name = None if dtype is None else np.dtype(dtype).name  # None would be float64
    except TypeError:
        name = None
    if name not in FLOATS:
        raise ValueError(f"dtype is {briefly(dtype)}; allowed are {', '.join(FLOATS)}")
    return np.dtype(name).newbyteorder("<")


def write_model(
    target: pathlib.Path,
    read: Read,
    like: Companions,
    layout: str = "transformers",
    dtype: Any = np.float32,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Writes a model's directory, whole or not at all.

    Args:
      target: of the directory; what it holds is replaced.
      read: gives the leaves.
      like: its configuration, tokenizer and preprocessing.
      layout: a key of `OUTPUTS`.
      dtype: of the tensors in the file; a type that `load_checkpoint` reads.
      texts: further files by name.

    Raises:
      ValueError: another type, numbers that are NaN or infinite, or a configuration or
        preprocessing that the layout cannot express.
      StorageError: it cannot be written.
    """
    output, dtype = OUTPUTS[layout], stored_type(dtype)
    files = dict(texts or {})
    if output.kind:
        config = to_huggingface(like.config)
        if layout != "transformers":
            config = config["vision_config"]
        files["config.json"] = _json(config | {"architectures": [output.kind]})
    else:
        size = like.config.visual.image_size
        values = read_processor(like.preprocessing_directory, size).values
        stated = to_open_clip(like.config) | {"preprocess_cfg": to_preprocess_cfg(values, size)}
        files[OPEN_CLIP] = _json(stated)
    with replacing_folder(target) as scratch:
        path = scratch / output.file
        _write_weights(path, read, output, param_shapes(like.config), dtype, str(target))
        for name in TOKENIZER if output.holds("logit_scale") else ():
            if (like.tokenizer_directory / name).is_file():
                shutil.copy(like.tokenizer_directory / name, scratch / name)
        if output.kind:
            write_preprocessing(like.preprocessing, scratch)
        for name, text in files.items():
            (scratch / name).write_text(text, encoding="utf-8")


def _json(table: Any) -> str:
    return json.dumps(table, indent=2) + "\n"


def _write_weights(
    path: pathlib.Path,
    read: Read,
    output: Output,
    shapes: Mapping[str, Any],
    dtype: Any,
    place: str,
) -> None:
    """Writes a safetensors file: the header's length, the header, and tensor after tensor."""
    rows = [row for row in LAYOUTS[output.table].rows if output.holds(row.path)]
    kinds = {name: kind for kind, name in KINDS.items()}
    size, end = np.dtype(dtype).itemsize, 0
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for row in rows:
        for key, _, theirs in pieces(row, shapes[row.path]):
            start, end = end, end + size * int(np.prod(theirs))
            header[key.removeprefix(output.prefix)] = {
                "dtype": kinds[np.dtype(dtype).name], "shape": theirs, "data_offsets": [start, end]
            }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # where numbers begin
    advice = f"choose a smaller alpha, or a wider type than {np.dtype(dtype)}"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for row in rows:
            for key, part in _tensors(row, shapes[row.path], read):
                with np.errstate(over="ignore"):  # it is looked for
                    tensor = np.array(to_theirs(row, part), dtype=dtype, order="C")
                name = key.removeprefix(output.prefix)
                check_finite({name: tensor}, f"{place}: not written", advice)
                file.write(tensor.reshape(-1).view(np.uint8).data)


def _tensors(row: Row, shape: Any, read: Read) -> Iterator[tuple[str, np.ndarray]]:
    stacked = is_stacked(row)
    for place in range(shape[0]) if stacked else (None,):
        leaf = read(row.path, place)
        for key, index, _ in pieces(row, shape, place):
            yield key, leaf[(0, *index[1:]) if stacked else index]
