"""Opens a CLIP, or a part of one, by its headers: which parts exist, and which are missing."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .adapters import ADAPTER_WEIGHTS, StoredAdapter, is_adapter, read_adapter_config
from .adapters import CONFIG as ADAPTER_CONFIG
from .config import PRESETS, ClipConfig
from .config_files import read_config
from .location import OPEN_CLIP_WEIGHTS, WEIGHTS, locate
from .open_clip import is_open_clip
from .stored import StoredClip, misfits
from .tensors import TensorFiles, find_weights


class Base(NamedTuple):
    """The CLIP that a model was fine-tuned from: its sizes, and its leaves by path."""

    config: ClipConfig
    leaves: Mapping[str, np.ndarray]


class Opened(NamedTuple):
    """A model whose headers passed the checks.

    Attributes:
      stored: reads its leaves.
      files: its weights files.
      directory: the directory with its other files; None for a single file.
      notes: a sentence on each part that is left out, or taken from the base.
    """

    stored: StoredClip | StoredAdapter
    files: TensorFiles
    directory: pathlib.Path | None
    notes: tuple[str, ...]


def open_model(source: str | os.PathLike[str], base: Base | None = None) -> Opened:
    """Reads a model's configuration and headers, and compares them.

    Args:
      source: see `load_checkpoint`.
      base: provides what the model lacks.

    Raises:
      ValueError: as `load_checkpoint`.
    """
    place = locate(source)
    if place.is_file():
        files, where = TensorFiles((place,)), place
        if base is None:
            raise ValueError(
                f"{place}: contains weights but no configuration; name the CLIP it was fine-tuned "
                "from: base= in Python, --base in commands"
            )
        config, directory = base.config, None
    elif is_adapter(place):
        return _open_adapter(place, base)
    else:
        directory = place
        # The sizes and QuickGELU of OpenAI's models are known, whatever the file of a copy says.
        config = PRESETS.get(str(source)) or read_config(place, base and base.config)
        name = OPEN_CLIP_WEIGHTS if is_open_clip(place) else WEIGHTS
        if base is not None and not (place / "config.json").is_file():
            there = (place / OPEN_CLIP_WEIGHTS).is_file()
            name = OPEN_CLIP_WEIGHTS if there else name
        files = TensorFiles(find_weights(place, name))
        where = files.paths[0] if len(files.paths) == 1 else place
    if base is not None and (problems := misfits(config, base.config)):
        raise ValueError(f"{where}: was not fine-tuned from that base: {'; '.join(problems)}")
    try:
        stored = StoredClip(files, config, base is not None)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Opened(stored, files, directory, _notes(where, stored))


def _open_adapter(place: pathlib.Path, base: Base | None) -> Opened:
    options = read_adapter_config(place)
    if base is None:
        trained_on = options.get("base_model_name_or_path")
        hint = f" (it says {trained_on!r})" if trained_on else ""
        raise ValueError(
            f"{place / ADAPTER_CONFIG}: is an adapter; name the CLIP it was trained on{hint}: "
            "base= in Python, --base in commands"
        )
    files = TensorFiles(find_weights(place, ADAPTER_WEIGHTS))
    try:
        stored = StoredAdapter(files, options, *base)
    except ValueError as error:
        raise ValueError(f"{files.paths[0]}: {error}") from error
    return Opened(stored, files, place, _notes(files.paths[0], stored))


def _notes(where: pathlib.Path, stored: StoredClip | StoredAdapter) -> tuple[str, ...]:
    notes = []
    if stored.ignored:
        some = ", ".join(stored.ignored[:6])
        more = f" and {len(stored.ignored) - 6} more" if len(stored.ignored) > 6 else ""
        notes.append(f"{where}: ignored {some}{more}, not part of the image tower")
    if isinstance(stored, StoredClip):
        lacks = [
            words
            for words, path in (
                ("projection", "visual/projection/kernel"),
                ("text tower and logit_scale", "logit_scale"),
            )
            if path not in stored.paths
        ]
        if lacks:
            notes.append(f"{where}: {' and '.join(lacks)} taken from the base")
    return tuple(notes)
