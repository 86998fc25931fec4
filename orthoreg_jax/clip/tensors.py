"""Tensors in other libraries' safetensors files: one file or shards, read one tensor at a time."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from orthoreg_jax.words import counted

# Types in safetensors headers -> NumPy's names; other types keep the header's name.
KINDS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    **{f"{letter}{bits}": f"{name}{bits}" for letter, name in (("I", "int"), ("U", "uint"))
       for bits in (8, 16, 32, 64)},
}  # fmt: skip
FLOATS = ("float16", "bfloat16", "float32", "float64")
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
CONVERTER = (
    "weights are read from safetensors only, no pickled files: "
    "experiments/convert_checkpoints.py turns .pt and .bin state dicts into task vectors (it needs "
    "torch), and transformers' `save_pretrained` writes safetensors"
)


class TensorHeader(NamedTuple):
    """A tensor's header; `kind` is NumPy's name for its type, if known."""

    shape: tuple[int, ...]
    kind: str


class Arrays:
    """Tensors in memory."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Stores arrays by name."""
        self._arrays = arrays
        self.found = {
            key: TensorHeader(each.shape, str(each.dtype)) for key, each in arrays.items()
        }

    def read(self, key: str) -> np.ndarray:
        """One tensor."""
        return self._arrays[key]


class TensorFiles:
    """The tensors of one model, in one or more safetensors files.

    A file is open only during a read: an open file keeps what was read of it in memory.

    Attributes:
      paths: the files.
      found: header of every tensor, by key.
    """

    def __init__(self, paths: tuple[pathlib.Path, ...]) -> None:
        """Reads the headers.

        Raises:
          ValueError: a file is missing or damaged, or two files have the same key.
        """
        self.paths = paths
        self.found: dict[str, TensorHeader] = {}
        self._home: dict[str, pathlib.Path] = {}
        for path in paths:
            for key, found in _header(path).items():
                if key in self.found:
                    raise ValueError(f"{path} and {self._home[key]}: both hold {key}")
                self.found[key], self._home[key] = found, path

    def read(self, key: str) -> np.ndarray:
        """One tensor.

        Raises:
          ValueError: the tensor cannot be read.
        """
        import safetensors

        path = self._home[key]
        try:
            with safetensors.safe_open(path, "numpy") as file:
                return file.get_tensor(key)
        except (safetensors.SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise _damaged(path, error) from error

    @property
    def sha256(self) -> str:
        """Hash of the file; for several files, of the list of their names and hashes."""
        hashes = [(path.name, hash_file(path)) for path in self.paths]
        if len(hashes) == 1:
            return hashes[0][1]
        lines = "".join(f"{name} {each}\n" for name, each in sorted(hashes))
        return hashlib.sha256(lines.encode()).hexdigest()


Tensors = Arrays | TensorFiles


def find_weights(directory: pathlib.Path, name: str) -> tuple[pathlib.Path, ...]:
    """The safetensors files of a model: `name`, or the shards that its index lists.

    Raises:
      ValueError: there are no such files, or the index cannot be read.
    """
    path = directory / name
    index = directory / f"{name}.index.json"
    if path.is_file():
        return (path,)
    if index.is_file():
        return _shards(index)
    pickles = sorted(each.name for each in directory.glob("*") if each.suffix in PICKLE_SUFFIXES)
    others = sorted(each.name for each in directory.glob("*.safetensors"))
    beside = f", only {', '.join(pickles[:5])}" if pickles else ""
    hint = f"; or name the file you mean, and its base ({', '.join(others[:5])})"
    raise ValueError(
        f"{path}: not found{beside}; {CONVERTER}. A hub repository often has safetensors in a pull "
        f"request: name it as REPOSITORY@refs/pr/NUMBER{hint if others else ''}"
    )


def _shards(index: pathlib.Path) -> tuple[pathlib.Path, ...]:
    try:
        raw = json.loads(index.read_text(encoding="utf-8"))
        names = sorted({str(name) for name in raw["weight_map"].values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{index}: is not the index of a model in shards ({type(error).__name__}: {error}); "
            "copy it again"
        ) from error
    missing = [
        name
        for name in names
        if pathlib.PurePath(name).name != name or not (index.parent / name).is_file()
    ]
    if missing or not names:
        raise ValueError(
            f"{index}: lists {counted(len(names), 'file')}, but "
            f"{counted(len(missing), 'of them is', 'of them are')} missing ("
            f"{', '.join(missing[:5])}); copy the whole directory again"
        )
    return tuple(index.parent / name for name in names)


def _header(path: pathlib.Path) -> dict[str, TensorHeader]:
    import safetensors

    if path.suffix in PICKLE_SUFFIXES:
        raise ValueError(f"{path}: {CONVERTER}")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            return {
                key: TensorHeader(
                    tuple(part.get_shape()), KINDS.get(part.get_dtype(), part.get_dtype())
                )
                for key, part in parts.items()
            }
    except (safetensors.SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Any) -> ValueError:
    return ValueError(
        f"{path}: not a complete safetensors file ({error}); it may be truncated or a git-lfs "
        "pointer: download or copy it again"
    )


def hash_file(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
