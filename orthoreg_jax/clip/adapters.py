"""peft LoRA adapters of a CLIP, as dense or factored updates of its weights.

peft stores `lora_A` (r, in) and `lora_B` (out, r) for a linear layer. The update is scale * B A,
with scale alpha / r, or alpha / sqrt(r) if "use_rslora" is true.

Reference: "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022 (arXiv 2106.09685); "A
Rank Stabilization Scaling Factor for Fine-Tuning with LoRA" (arXiv 2312.03732).
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.low_rank import LowRank
from orthoreg_jax.arithmetic.paths import unflatten

from .config import ClipConfig
from .stored import HEADS, misfit_message
from .tensors import FLOATS, Tensors
from .weights import LAYOUTS, Weights, assemble, from_theirs, is_stacked, param_shapes, pieces

CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Options that change what an adapter computes, with the values that leave it unchanged.
PLAIN: dict[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None,), "fan_in_fan_out": (False, None),
    "layer_replication": (None,), "lora_bias": (False, None), "target_parameters": (None, []),
    "trainable_token_indices": (None,), "use_bdlora": (False, None), "use_dora": (False, None),
    "use_qalora": (False, None),
}  # fmt: skip


def is_adapter(directory: pathlib.Path) -> bool:
    """Whether a directory contains an adapter but no model."""
    return (directory / CONFIG).is_file() and not (directory / "config.json").is_file()


def read_adapter_config(directory: pathlib.Path) -> dict[str, Any]:
    """Reads `adapter_config.json`.

    Raises:
      ValueError: the file cannot be read, or describes another kind of adapter than plain LoRA.
    """
    path = directory / CONFIG
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error}); copy it again") from error
    if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
        kind = raw.get("peft_type") if isinstance(raw, dict) else None
        raise ValueError(f"{path}: describes an adapter of type {kind!r}, allowed: 'LORA'")
    problems = [
        f"{key} is {raw[key]!r}, allowed: {' or '.join(map(repr, plain))}"
        for key, plain in PLAIN.items()
        if key in raw and raw[key] not in plain
    ]
    if not _is_positive(raw.get("lora_alpha")):
        problems.append(f"lora_alpha is {raw.get('lora_alpha')!r}, allowed: a number above 0")
    if not isinstance(raw.get("use_rslora", False), bool):
        problems.append(f"use_rslora is {raw['use_rslora']!r}, allowed: true or false")
    pattern = raw.get("alpha_pattern") or {}
    if not isinstance(pattern, dict) or not all(map(_is_positive, pattern.values())):
        problems.append(f"alpha_pattern is {pattern!r}, allowed: numbers above 0 by module")
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return raw


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


class StoredAdapter:
    """The leaves of a base that an adapter changes; same interface as `StoredClip`.

    Attributes:
      config: the base's sizes.
      paths: paths of the leaves that it changes.
      ignored: keys that are not used, such as those of a classifier's head.
    """

    def __init__(
        self,
        tensors: Tensors,
        options: Mapping[str, Any],
        config: ClipConfig,
        base: Mapping[str, np.ndarray],
    ) -> None:
        """Compares the adapter with the base.

        Args:
          tensors: tensors of `adapter_model.safetensors`.
          options: from `read_adapter_config`.
          config: the base's sizes.
          base: the base's leaves, by path.

        Raises:
          ValueError: tensors of modules that a CLIP does not have, or tensors that do not fit it;
            the message names them all.
        """
        self.config, self._tensors, self._base = config, tensors, base
        self._options = options
        self._shapes = shapes = param_shapes(config)
        self._factors: dict[str, dict[str, str]] = {}  # weight -> keys of its factors A and B
        self._whole: dict[str, str] = {}  # trained without factors, as biases may be
        problems, left_out = [], []
        wanted = {
            name: (row, expected)
            for row in LAYOUTS["huggingface"].rows
            for name, _, expected in pieces(row, shapes[row.path])
        }
        for key in tensors.found:
            module, _, kind = _name(key).partition(".lora_")
            name = f"{module}.weight" if kind else module
            if name in HEADS:
                left_out.append(key)
            elif name not in wanted or kind not in ("", "A.weight", "B.weight"):
                problems.append(f"matches no weight of a CLIP: {key}")
            elif tensors.found[key].kind not in FLOATS:
                problems.append(f"wrong type: {key} is {tensors.found[key].kind}")
            elif kind:
                self._factors.setdefault(name, {})[kind[0]] = key
            else:
                self._whole[name] = key
        for name, factors in self._factors.items():
            problems += self._misfits(name, factors, wanted[name][1])
        problems += [
            f"wrong shape: {key} is {tensors.found[key].shape}, expected {wanted[name][1]}"
            for name, key in self._whole.items()
            if tensors.found[key].shape != wanted[name][1]
        ]
        if problems:
            raise ValueError(
                misfit_message(problems, "Name the base that the adapter was trained on.")
            )
        if not self._factors:
            raise ValueError("contains no update of a CLIP's weights")
        self.ignored = tuple(left_out)
        changed = {*self._factors, *self._whole}
        self._rows = {
            row.path: row
            for row in LAYOUTS["huggingface"].rows
            if changed & {name for name, _, _ in pieces(row, shapes[row.path])}
        }
        self.paths = tuple(self._rows)

    def _misfits(self, name: str, keys: dict[str, str], expected: tuple[int, ...]) -> list[str]:
        if len(keys) < 2:
            return [f"missing: the other factor of {next(iter(keys.values()))}"]
        a, b = (self._tensors.found[keys[each]].shape for each in "AB")
        if len(expected) != 2 or len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            return [f"not the factors of a linear layer: {keys['A']} {a}, {keys['B']} {b}"]
        if (b[0], a[1]) != expected:
            return [f"wrong shape: {keys['B']} {b} times {keys['A']} {a}, expected {expected}"]
        return []

    def delta(self, path: str, place: int | None = None) -> np.ndarray:
        """The update of a leaf in float32, or of the slice at `place` along its first axis.

        Raises:
          ValueError: it contains NaN or infinity, or cannot be read.
        """
        row = self._rows[path]

        def change(name: str, index: Any, _: tuple[int, ...]) -> np.ndarray:
            total = np.zeros_like(self._base[path][index])
            if name in self._factors:
                total = total + from_theirs(row, self._product(name))
            if name in self._whole:
                whole = from_theirs(row, self._read(self._whole[name]))
                total = total + (whole - self._base[path][index])
            return total

        return assemble(row, self._shapes[path], place, change)

    def read(self, path: str, place: int | None = None) -> np.ndarray:
        """A leaf of the base with its update, or a slice of it; see `delta`."""
        base = self._base[path]
        part = base if place is None else base[place : place + 1]
        return np.asarray(part + self.delta(path, place))

    def params(self, base: Mapping[str, np.ndarray]) -> Weights:
        """All leaves of the base, with the updates."""
        leaves = {path: self.read(path) if path in self._rows else leaf
                  for path, leaf in base.items()}  # fmt: skip
        return unflatten(leaves)

    def factored(self, path: str) -> LowRank | np.ndarray:
        """The update of a leaf as two factors; dense where the adapter holds whole weights.

        Query, key and value, one leaf here, have factors of their own: left has theirs side by
        side, and right is block-diagonal. Where ranks differ between layers, zeros fill them up.

        Raises:
          ValueError: as `delta`.
        """
        row, shape = self._rows[path], self._shapes[path]
        found = list(pieces(row, shape))
        if any(name in self._whole for name, _, _ in found):
            return self.delta(path)
        parts, stacked = len(row.keys), is_stacked(row)
        ranks = [0] * parts
        for number, (name, _, _) in enumerate(found):
            if name in self._factors:
                own = self._tensors.found[self._factors[name]["A"]].shape[0]
                ranks[number % parts] = max(ranks[number % parts], own)
        layers, (rows, columns) = len(found) // parts, shape[-2:]
        left = np.zeros((layers, rows, sum(ranks)), np.float32)
        right = np.zeros((layers, sum(ranks), columns), np.float32)
        for number, (name, index, _) in enumerate(found):
            if name in self._factors:
                layer, part = divmod(number, parts)
                a, b = (self._read(self._factors[name][each]) for each in "AB")
                b = np.float32(self._scale(name, len(a))) * b
                first, second = (a.T, b.T) if row.layout == "linear" else (b, a)
                start = sum(ranks[:part])
                place = slice(start, start + len(a))
                left[layer, :, place] = first
                right[layer, place, index[-1]] = second
        if not stacked:
            left, right = left[0], right[0]
        return LowRank(jnp.asarray(left), jnp.asarray(right))

    def _product(self, name: str) -> np.ndarray:
        a, b = (self._read(self._factors[name][each]) for each in "AB")
        return np.float32(self._scale(name, len(a))) * (b @ a)

    def _scale(self, name: str, rank: int) -> float:
        alpha = self._options["lora_alpha"]
        module = name.removesuffix(".weight")
        for pattern, value in (self._options.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):  # as in peft, the first match counts
                alpha = value
                break
        return float(alpha / (math.sqrt(rank) if self._options.get("use_rslora") else rank))

    def _read(self, key: str) -> np.ndarray:
        tensor = np.asarray(self._tensors.read(key), np.float32)
        if not np.isfinite(tensor).all():
            raise ValueError(f"not finite: {key} holds NaN or infinity")
        return tensor


def _name(key: str) -> str:
    """The CLIPModel key to which an adapter's key refers.

    The adapter's key has the prefix "base_model.model."; an adapter of only an image tower may omit
    "vision_model.", as transformers does.
    """
    name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    name = name.replace("modules_to_save.default.", "").replace(".default.weight", ".weight")
    if name.startswith(("encoder.", "embeddings.", "pre_layrnorm.", "post_layernorm.")):
        return f"vision_model.{name}"
    return name
