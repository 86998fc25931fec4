"""Trees of arrays in safetensors files with a content hash, read whole or by leaf."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .arithmetic.paths import check_finite, flatten, unflatten
from .storage import StorageError, replacing

DEEPEST = 100  # levels of a tree in a file; JAX traverses trees recursively
# Types that NumPy gets back unchanged from a safetensors file.
STORED = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "bfloat16", "float32", "float64",
)  # fmt: skip

# Errors from reading a damaged file, besides the library's own; AttributeError: a type that NumPy
# does not have.
_UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)


def save_tree(
    path: str | os.PathLike[str], tree: Any, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a nested dict of arrays as safetensors, with leaf paths as keys.

    The header has one entry, "about": JSON with the metadata and a hash of the arrays' content.

    Args:
      path: path of the file, which is written completely or not at all.
      tree: nested dicts of arrays, for example a task vector.
      metadata: texts to store in the file; the name "sha256" is reserved for the hash.

    Raises:
      ValueError: the tree could not be read back, because it is empty, is not nested dicts or a key
        contains "/"; a number is NaN or infinite; or a name in the metadata is reserved.
      StorageError: the file cannot be written.

    Examples:
      >>> oj.save_tree("vector.safetensors", {"layer": {"kernel": jnp.ones((2, 2))}})
    """
    import jax
    import safetensors.numpy

    _check_depth(tree)
    if not flatten(tree):
        raise ValueError(f"{path}: not written: the tree has no arrays")
    if str(jax.tree.structure(unflatten(flatten(tree)))) != str(jax.tree.structure(tree)):
        raise ValueError(
            "save_tree writes nested dicts whose keys are strings without '/'; this tree's leaves "
            f"are {', '.join(list(flatten(tree))[:6])} in {type(tree).__name__} containers: turn "
            "it into plain dicts, and rename such keys"
        )
    if "sha256" in (metadata or {}):
        raise ValueError("metadata: 'sha256' is reserved for the hash of the content; rename yours")
    arrays = {name: _as_stored(name, leaf) for name, leaf in flatten(tree).items()}
    check_finite(arrays, f"{path}: not written", "find out where they come from")
    with replacing(pathlib.Path(path)) as scratch:
        # One entry: with several, their order, and so the file's bytes, would vary between runs.
        about = json.dumps({"sha256": _content_sha256(arrays), **(metadata or {})})
        safetensors.numpy.save_file(arrays, scratch, metadata={"about": about})


def _as_stored(name: str, leaf: Any) -> np.ndarray:
    """A leaf as a file stores it: contiguous, little-endian, of a type that can be restored.

    Raises:
      ValueError: safetensors would not restore the type, or reserves the name.
    """
    # np.array keeps 0-d leaves 0-d, which np.ascontiguousarray does not.
    array = np.array(leaf, order="C")
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.name not in STORED:
        raise ValueError(
            f"leaf {name!r} is of type {array.dtype}, which a file would not restore; allowed: "
            f"{', '.join(STORED)}"
        )
    if name == "__metadata__":
        raise ValueError("safetensors reserves the name '__metadata__'; rename that key")
    return array


def _check_depth(tree: Any) -> None:
    """Refuses a tree too deep for JAX to traverse; goes level by level, without recursion."""
    level = [tree]
    for _ in range(DEEPEST + 1):
        level = [child for node in level if isinstance(node, dict) for child in node.values()]
    if level:
        raise ValueError(f"the tree is more than {DEEPEST} levels deep; save parts of it")


def load_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads numpy arrays from a file of `save_tree`, or from any other safetensors file.

    Args:
      path: path of the file.

    Raises:
      StorageError: no such file, no safetensors file, an incomplete one, one that was changed
        since, or one that holds NaN or infinity.

    Examples:
      >>> oj.save_tree("vector.safetensors", {"layer": {"kernel": jnp.ones((2, 2))}})
      >>> oj.load_tree("vector.safetensors")["layer"]["kernel"].tolist()
      [[1.0, 1.0], [1.0, 1.0]]
    """
    import safetensors
    import safetensors.numpy

    _check_there(pathlib.Path(path))
    try:
        with safetensors.safe_open(path, "numpy") as file:
            about = _read_about(file)
        arrays = safetensors.numpy.load_file(path)
        wanted = about.get("sha256")
        deep = [name for name in arrays if name.count("/") >= DEEPEST]
        if deep:
            raise ValueError(f"a key of {deep[0].count('/') + 1} levels, allowed: {DEEPEST}")
        tree = unflatten(arrays)
    except (safetensors.SafetensorError, OSError, *_UNREADABLE) as error:
        raise _unreadable(path, error) from error
    if wanted is not None and wanted != _content_sha256(arrays):
        raise _damaged(path)
    _check_finite(path, tree)
    return tree


class StoredTree:
    """A file that `save_tree` wrote, read leaf by leaf, or slice by slice.

    The file is open only during a read: an open file keeps the pages that were read in this
    process's memory.

    Attributes:
      path: path of the file.
      shapes: leaves by path, as `jax.ShapeDtypeStruct`.
      about: the metadata with which it was written, and its content's hash; empty for other
        safetensors files.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the header only; `check` reads the content.

        Raises:
          StorageError: the file does not exist, or is not a complete safetensors file.
        """
        import jax

        self.path = pathlib.Path(path)
        _check_there(self.path)
        with self._open() as file:
            self.about = _read_about(file)
            self.shapes = {}
            for name in sorted(file.keys()):
                part = file.get_slice(name)
                shape = part.get_shape()
                least = part[:1] if shape else file.get_tensor(name)  # enough to know the type
                self.shapes[name] = jax.ShapeDtypeStruct(shape, least.dtype)

    def read(self, name: str, place: int | None = None) -> np.ndarray:
        """A leaf, or the slice at `place` along its first axis, with that axis kept.

        Raises:
          StorageError: the leaf cannot be read.
        """
        with self._open() as file:
            if place is None:
                return file.get_tensor(name)
            return file.get_slice(name)[place : place + 1]

    def check(self) -> str:
        """Checks the content against its hash, leaf by leaf.

        Raises:
          StorageError: the hash differs from the one in the file, or a leaf contains NaN or
            infinity.
        """
        found = hash_leaves(self._finite_leaves())
        if self.about.get("sha256", found) != found:
            raise _damaged(self.path)
        return found

    def _finite_leaves(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in self.shapes:
            leaf = self.read(name)
            _check_finite(self.path, {name: leaf})
            yield name, leaf

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        import safetensors

        try:
            with safetensors.safe_open(self.path, "numpy") as file:
                yield file
        except (safetensors.SafetensorError, OSError, *_UNREADABLE) as error:
            raise _unreadable(self.path, error) from error


def _check_there(path: pathlib.Path) -> None:
    if path.is_dir():
        raise StorageError(f"{path}: is a folder; give a file in it")
    if not path.is_file():
        raise StorageError(f"{path}: no such file")


def _check_finite(path: str | os.PathLike[str], tree: Any) -> None:
    advice = "it cannot be used: make it again, or leave it out"
    try:
        check_finite(tree, str(path), advice)
    except ValueError as error:
        raise StorageError(str(error)) from None


def _read_about(file: Any) -> dict[str, Any]:
    """The metadata that `save_tree` wrote; empty for other files."""
    about = json.loads((file.metadata() or {}).get("about", "{}"))
    if not isinstance(about, dict):
        raise ValueError(f"its metadata is a {type(about).__name__}, not a table")
    return about


def _unreadable(path: str | os.PathLike[str], error: Exception) -> StorageError:
    found = f"({type(error).__name__}: {error})"
    if pathlib.Path(path).suffix != ".safetensors":
        return StorageError(f"{path}: not a safetensors file {found}; give one")
    return StorageError(
        f"{path}: not a complete safetensors file {found}; delete it and run again to make it again"
    )


def _damaged(path: str | os.PathLike[str]) -> StorageError:
    return StorageError(
        f"{path}: is damaged: its hash has changed since it was written; delete it and run "
        "again to make it again"
    )


def _content_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of names, types, shapes and bytes."""
    return hash_leaves(sorted(arrays.items()))


def hash_leaves(leaves: Iterable[tuple[str, np.ndarray]]) -> str:
    """The content hash that `save_tree` computes; leaves must be sorted by path."""
    digest = hashlib.sha256()
    for name, array in leaves:
        _digest(digest, name, array)
    return digest.hexdigest()


def _digest(digest: Any, name: str, array: np.ndarray) -> None:
    digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # not a copy
