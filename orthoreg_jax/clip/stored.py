"""A CLIP, or a part of one, in other libraries' files: recognised, checked, read by leaf.

Strict both ways: every tensor is used or listed as ignored, and every leaf of the existing parts is
filled. Shapes and types are compared in the headers, before memory is allocated, and all problems
are reported at once.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from orthoreg_jax.arithmetic.paths import unflatten
from orthoreg_jax.words import counted

from .config import ClipConfig
from .config_files import ALONE
from .tensors import FLOATS, Tensors
from .weights import LAYOUTS, Weights, assemble, from_theirs, param_shapes, pieces

# What precedes these names is a prefix, e.g. "module." or "image_encoder.model.".
_PREFIXES = (
    ("huggingface", r"(.*)(vision_model|text_model)\."),
    (
        "open_clip",
        r"(.*)visual\.(class_embedding|positional_embedding|conv1|ln_|proj$|transformer\.)",
    ),
    ("bare", r"(.*?)(embeddings\.(class|patch|position)_|encoder\.layers\.\d|p(re|ost)_lay)"),
)
# Heads of classifiers: not part of a CLIP, which classifies with its text tower.
HEADS = (
    "classifier.weight", "classifier.bias", "classification_head.weight",
    "classification_head.bias",
)  # fmt: skip
_TEXT_BLOCKS = {"huggingface": "text_model.encoder.", "open_clip": "transformer.resblocks."}
PROBLEMS_SHOWN = 20


class Naming(NamedTuple):
    """Maps the keys of a file to those of a layout's table.

    Attributes:
      layout: a key of `LAYOUTS`.
      keys: the table's key -> the file's key.
    """

    layout: str
    keys: dict[str, str]


def recognise(keys: Iterable[str]) -> Naming:
    """Finds the layout and prefix of a file's keys.

    Raises:
      ValueError: no image tower of a CLIP ViT, more than one, or two keys for the same tensor.
    """
    keys = list(keys)
    layout, prefix = _find_layout(keys)
    names: dict[str, str] = {}
    for key in keys:
        name = key.removeprefix(prefix)
        if layout == "bare" and not name.startswith(("visual_projection.", *HEADS)):
            name = f"vision_model.{name}"
        if layout == "open_clip" and name.startswith("text."):  # from its CustomTextCLIP
            name = name.removeprefix("text.")
        if name in names:
            raise ValueError(f"contains {name} twice, as {names[name]} and as {key}")
        names[name] = key
    return Naming("huggingface" if layout == "bare" else layout, names)


def _find_layout(keys: list[str]) -> tuple[str, str]:
    for layout, pattern in _PREFIXES:
        matches = [match for key in keys if (match := re.match(pattern, key))]
        prefixes = sorted({match[1] for match in matches})
        if len(prefixes) > 1:
            raise ValueError(
                f"contains several models, whose keys begin with {', '.join(map(repr, prefixes))}; "
                "save one of them alone"
            )
        if prefixes:
            return layout, prefixes[0]
    raise ValueError(f"contains no CLIP ViT image tower; {_cause(keys)}")


def _cause(keys: list[str]) -> str:
    if any("lora_A" in key or "lora_B" in key for key in keys):
        return "it is an adapter, which needs peft's adapter_config.json next to it"
    if any(key.startswith("visual/") for key in keys):
        return "it is a task vector; pass it with --vectors"
    if any(key.endswith("attn.qkv.weight") for key in keys):
        return "its keys are timm's; supported are those of transformers and open_clip"
    return f"its keys are {', '.join(keys[:5])} ..."


class StoredClip:
    """The tensors of a CLIP, or of its image tower, as leaves of our tree.

    Attributes:
      config: the sizes of the tensors.
      paths: leaves in the file, as paths of `param_shapes`.
      ignored: keys that are not used, such as those of a classifier's head.
    """

    def __init__(self, tensors: Tensors, config: ClipConfig, based: bool = False) -> None:
        """Compares the headers with the configuration.

        Args:
          tensors: tensors of the file.
          config: the sizes they must have.
          based: whether a base provides what an image tower's file lacks.

        Raises:
          ValueError: tensors are missing, unknown or not finite, or have wrong shapes or types;
            the message names them all.
        """
        self.config, self._tensors = config, tensors
        naming = recognise(tensors.found)
        self._keys = naming.keys
        rows, ignored = LAYOUTS[naming.layout]
        self._shapes = shapes = param_shapes(config)
        whole = any(name.startswith(_TEXT_BLOCKS[naming.layout]) for name in naming.keys)
        self._rows = {
            row.path: row
            for row in rows
            if row.path.startswith("visual/")
            and (row.path != "visual/projection/kernel" or whole or row.keys[0] in naming.keys)
            or (whole and not row.path.startswith("visual/"))
        }
        # Leftovers, in an image tower's file, of a text tower whose blocks were removed.
        beside = () if whole else tuple(
            key for row in rows if row.path not in self._rows for key in row.keys
        )  # fmt: skip
        problems, known = [], set()
        for path, row in self._rows.items():
            for name, _, expected in pieces(row, shapes[path]):
                known.add(name)
                problems += self._misfits(name, expected)
        left_out = []
        for name, key in naming.keys.items():
            if name in known or any(fnmatch.fnmatch(name, each) for each in ignored):
                continue
            if name in (*HEADS, *beside):
                left_out.append(key)
            else:
                problems.append(f"not a CLIP tensor: {key} {tensors.found[key].shape}")
        self.paths, self.ignored = tuple(self._rows), tuple(left_out)
        if problems:
            problems += self._not_finite(known)
            raise ValueError(
                misfit_message(problems, "" if whole or based else f"It seems {ALONE}.")
            )
        if not whole and not based:
            raise ValueError(f"holds {ALONE}")

    def _misfits(self, name: str, expected: tuple[int, ...]) -> list[str]:
        if name not in self._keys:
            return [f"missing: {name} {expected}"]
        key = self._keys[name]
        shape, kind = self._tensors.found[key]
        if shape != expected and not (expected == () and shape == (1,)):
            return [f"wrong shape: {key} is {shape}, expected {expected}"]
        if kind not in FLOATS:
            return [f"wrong type: {key} is {kind}, expected {', '.join(FLOATS)}"]
        return []

    def _not_finite(self, names: Iterable[str]) -> list[str]:
        keys = [self._keys[name] for name in sorted(names) if name in self._keys]
        floats = [key for key in keys if self._tensors.found[key].kind in FLOATS]
        return [
            f"not finite: {key} holds NaN or infinity"
            for key in floats
            if not np.isfinite(np.asarray(self._tensors.read(key), np.float32)).all()
        ]

    def read(self, path: str, place: int | None = None) -> np.ndarray:
        """A leaf in float32, or the slice at `place` along its first axis, with that axis kept.

        Raises:
          ValueError: it contains NaN or infinity, or cannot be read.
        """
        row = self._rows[path]

        def part(name: str, _: Any, expected: tuple[int, ...]) -> np.ndarray:
            key = self._keys[name]
            tensor = np.asarray(self._tensors.read(key), np.float32).reshape(expected)
            if not np.isfinite(tensor).all():
                raise ValueError(f"not finite: {key} holds NaN or infinity")
            return from_theirs(row, tensor)

        return assemble(row, self._shapes[path], place, part)

    def params(self, base: Mapping[str, np.ndarray]) -> Weights:
        """All leaves; those missing from the file are taken from `base`, by path.

        Raises:
          ValueError: as `read`; the message names all leaves.
        """
        leaves, problems = {}, []
        for path in self._shapes:
            try:
                leaves[path] = self.read(path) if path in self._rows else base[path]
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError(misfit_message(problems, ""))
        return unflatten(leaves)


def misfit_message(problems: list[str], cause: str) -> str:
    """One message with all problems, and advice."""
    shown = "\n  ".join(problems[:PROBLEMS_SHOWN])
    more = (
        f"\n  ... and {len(problems) - PROBLEMS_SHOWN} more"
        if len(problems) > PROBLEMS_SHOWN
        else ""
    )
    hint = cause or "Use the weights that belong to this config."
    return (
        f"{counted(len(problems), 'tensor does', 'tensors do')} not fit the model that its "
        f"config describes:\n  {shown}{more}\n{hint}"
    )


def misfits(own: ClipConfig, base: ClipConfig) -> list[str]:
    """Describes where an image tower's sizes differ from those of the base it goes into."""
    return [
        f"{name} is {value!r}, the base's {getattr(base.visual, name)!r}"
        for name, value in vars(own.visual).items()
        if value != getattr(base.visual, name)
    ]
