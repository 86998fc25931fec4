"""Reads the steps from picture to pixels from a checkpoint's files.

Transformers 5 writes `processor_config.json`, which contains the image processor; earlier versions
write `preprocessor_config.json`; open_clip's configuration has "preprocess_cfg". What a file says
is applied or refused, and notes report what it omits.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from .open_clip import OPEN_CLIP, is_open_clip, read_open_clip

PROCESSOR = "processor_config.json"
PREPROCESSOR = "preprocessor_config.json"
# OpenAI's values, which transformers' CLIPImageProcessor and open_clip use where a file has none.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
BICUBIC, BILINEAR = 3, 2  # Pillow's numbers of its filters
LARGEST_RESIZE = 8  # times the model's size: limit of the resized image before the crop
# Keys that do not affect the pixels of an RGB image.
NEUTRAL_KEYS = {
    "_valid_processor_keys", "auto_map", "data_format", "default_to_square", "device",
    "disable_grouping", "do_convert_rgb", "feature_extractor_type", "image_processor_type",
    "image_seq_length", "input_data_format", "model_input_names", "processor_class",
    "return_tensors", "transformers_version", "use_fast",
}  # fmt: skip
TYPES = (
    "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor",
)  # fmt: skip


class Processor(NamedTuple):
    """The steps from picture to pixels, each stated explicitly.

    Attributes:
      values: as transformers' CLIPImageProcessor takes them.
      notes: a sentence on each value that is not from the checkpoint's files.
    """

    values: dict[str, Any]
    notes: tuple[str, ...]


def has_processor(directory: pathlib.Path) -> bool:
    """Whether a checkpoint's files describe preprocessing."""
    return _find(directory) is not None


def read_processor(directory: pathlib.Path, size: int) -> Processor:
    """Reads the files of a checkpoint; without any, uses OpenAI's published values.

    Args:
      directory: the checkpoint's directory.
      size: side of the square images that the model reads, in pixels.

    Raises:
      ValueError: a file cannot be read, or asks for something that is not supported; the message
        names every problem in it.
    """
    found = _find(directory)
    if found is None:
        return Processor(
            defaults(size),
            (
                f"{directory}: no file describes the image preprocessing; using OpenAI's values: "
                f"shortest side to {size} px, bicubic, centre crop, mean {MEAN}, std {STD}",
            ),
        )
    path, stated = found
    problems: list[str] = []
    values = _from_open_clip(stated, size) if path.name == OPEN_CLIP else _known(stated, problems)
    _check_sizes(values, size, problems)
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    silent = [key for key in ("size", "crop_size", "image_mean", "image_std") if key not in values]
    if not values.get("do_normalize", True):
        silent = [key for key in silent if not key.startswith("image_")]
    if not values.get("do_center_crop", True):
        silent = [key for key in silent if key != "crop_size"]
    notes = []
    if silent:
        notes.append(f"{path}: does not state {', '.join(silent)}; using CLIP's usual values")
    other = _read(directory / PREPROCESSOR) if path.name == PROCESSOR else None
    if other is not None and defaults(224) | _known(other, []) != defaults(224) | values:
        notes.append(f"{path}: used, as in transformers; {PREPROCESSOR} next to it differs")
    return Processor(defaults(224) | values, tuple(notes))


def _find(directory: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]] | None:
    """The file in use and its content, in transformers' order of precedence."""
    if is_open_clip(directory):
        path = directory / OPEN_CLIP
        stated = read_open_clip(directory).get("preprocess_cfg")
        if stated is not None:
            return path, _table(path, stated)
    nested = _read(directory / PROCESSOR)
    if nested is not None and "image_processor" in nested:
        return directory / PROCESSOR, _table(directory / PROCESSOR, nested["image_processor"])
    alone = _read(directory / PREPROCESSOR)
    return None if alone is None else (directory / PREPROCESSOR, alone)


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return _table(path, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); copy it again"
        ) from error


def _table(path: pathlib.Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: contains a {type(value).__name__}, expected a JSON object")
    return value


def defaults(size: int) -> dict[str, Any]:
    """CLIP's published steps for a model with `size` px input."""
    return {
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _three(value: Any, above: float) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(_is_number(each) and each > above for each in value)
    )


# What each key may contain, in words and as a check.
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **{
        name: ("true or false", lambda value: isinstance(value, bool))
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    },
    "resample": (
        "a filter of Pillow's, 0 to 5",
        lambda value: not isinstance(value, bool) and value in range(6),
    ),
    "rescale_factor": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "image_mean": ("three numbers", lambda value: _three(value, -math.inf)),
    "image_std": ("three numbers above 0", lambda value: _three(value, 0)),
    "size": (
        'a number of pixels, {"shortest_edge": ...} or {"height": ..., "width": ...}',
        lambda value: _edges(value, square=False) is not None,
    ),
    "crop_size": (
        'a number of pixels or {"height": ..., "width": ...}',
        lambda value: "height" in (_edges(value, square=True) or {}),
    ),
}


def _edges(value: Any, square: bool) -> dict[str, int] | None:
    """A size as a table, whatever its form; None if it is not a size."""
    if _is_count(value):
        return {"height": value, "width": value} if square else {"shortest_edge": value}
    if isinstance(value, list | tuple) and len(value) == 2:
        value = dict(zip(("height", "width"), value, strict=True))
    if not isinstance(value, dict):
        return None
    stated = {key: each for key, each in value.items() if each is not None}
    fits = {*stated} in ({"height", "width"}, {"shortest_edge"})
    return stated if fits and all(map(_is_count, stated.values())) else None


def _known(stated: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Values of a transformers file."""
    values: dict[str, Any] = {}
    for key, value in stated.items():
        if key in _ALLOWED:
            words, fits = _ALLOWED[key]
            if fits(value):
                values[key] = value
            else:
                problems.append(f"{key} is {value!r}, allowed: {words}")
        elif key not in NEUTRAL_KEYS and value not in (None, False):
            problems.append(
                f"{key} is {value!r}, which is not supported; supported is what "
                "CLIPImageProcessor does to an RGB image"
            )
    kinds = [stated.get(key) for key in ("image_processor_type", "feature_extractor_type")]
    kind = kinds[0] or kinds[1] or TYPES[0]
    if kind not in TYPES:
        problems.append(f"image processor type is {kind!r}, allowed: {', '.join(TYPES)}")
    for key in ("image_mean", "image_std"):
        if key in values:
            values[key] = tuple(values[key])
    if "size" in values:
        values["size"] = _edges(values["size"], square=bool(stated.get("default_to_square")))
    if "crop_size" in values:
        values["crop_size"] = _edges(values["crop_size"], square=True)
    return values


def _from_open_clip(stated: dict[str, Any], size: int) -> dict[str, Any]:
    """open_clip's inference transform, in transformers' terms."""
    problems = []
    names = {"mean": "image_mean", "std": "image_std"}
    values: dict[str, Any] = {}
    for theirs, ours in names.items():
        words, fits = _ALLOWED[ours]
        if theirs in stated and fits(stated[theirs]):
            values[ours] = tuple(stated[theirs])
        elif theirs in stated:
            problems.append(f"{theirs} is {stated[theirs]!r}, allowed: {words}")
    allowed = {
        "interpolation": ("bicubic", "bilinear", "random"),  # "random" is for training only
        "resize_mode": ("shortest", "squash"),
        "mode": ("RGB",),
        "size": (None, size, [size, size], [3, size, size]),
    }
    for key, choices in allowed.items():
        if key in stated and stated[key] not in choices:
            problems.append(
                f"{key} is {stated[key]!r}, allowed: {', '.join(str(each) for each in choices)}"
            )
    strange = [key for key in stated if key not in {*names, *allowed, "fill_color"}]
    if strange:
        problems.append(f"has {', '.join(strange)}, which is not supported")
    if problems:
        raise ValueError(f"{OPEN_CLIP}: preprocess_cfg: {'; '.join(problems)}")
    square = {"height": size, "width": size}
    squash = stated.get("resize_mode") == "squash"
    bilinear = stated.get("interpolation") == "bilinear"
    return values | {
        "size": square if squash else {"shortest_edge": size},
        "crop_size": square,
        "resample": BILINEAR if bilinear else BICUBIC,
    }


def to_preprocess_cfg(values: dict[str, Any], size: int) -> dict[str, Any]:
    """open_clip's "preprocess_cfg" of the same steps: the inverse of `_from_open_clip`.

    Args:
      values: of a `Processor`.
      size: of the square images that the model reads, in pixels.

    Raises:
      ValueError: steps that open_clip does not have, all named.
    """
    square = {"height": size, "width": size}
    stated = {
        "size": size,
        "mode": "RGB",
        "mean": list(values["image_mean"]),
        "std": list(values["image_std"]),
        "interpolation": "bilinear" if values["resample"] == BILINEAR else "bicubic",
        "resize_mode": "squash" if values["size"] == square else "shortest",
    }
    read = defaults(size) | _from_open_clip(stated, size)
    wrong = [f"{key} {values[key]}" for key, value in read.items() if values[key] != value]
    if wrong:
        raise ValueError(
            f"--layout open_clip: cannot state this preprocessing: {', '.join(wrong)}; write "
            "another layout"
        )
    return stated


def _check_sizes(values: dict[str, Any], size: int, problems: list[str]) -> None:
    """Checks that the result has the size the model reads, and fits in memory on the way."""
    full = defaults(224) | values
    hint = "use the file that belongs to the weights"
    longest = max(full["size"].values())
    if full["do_resize"] and longest > LARGEST_RESIZE * size:
        problems.append(
            f"size is {full['size']}, allowed: at most {LARGEST_RESIZE} times the model's "
            f"image size, {size} px"
        )
    crop = (full["crop_size"]["height"], full["crop_size"]["width"])
    if full["do_center_crop"] and crop != (size, size):
        stated = "crops" if "crop_size" in values else "has no crop_size and so crops"
        problems.append(f"{stated} to {crop}, but the model reads {(size, size)}; {hint}")
    if full["do_center_crop"] or problems:
        return
    square = full["do_resize"] and full["size"] == {"height": size, "width": size}
    if not square:
        problems.append(
            f"do_center_crop is false, but do_resize does not give the {(size, size)} that the "
            f'model reads; allowed without a crop: "size": {{"height": {size}, "width": '
            f"{size}}}"
        )
