"""Saves and restores the states of an unfinished fine-tuning, with orbax."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, UInt32

from orthoreg_jax.arithmetic.types import PyTree
from orthoreg_jax.hosts.interruption import undivided
from orthoreg_jax.storage import StorageError, write_error

from .step import TrainState


@jax.jit
def _checksum(tree: PyTree) -> UInt32[Array, ""]:
    """A checksum that any changed bit changes, however the arrays are sharded.

    It is the sum of word * (odd number derived from the word's position), modulo 2^32. A change of
    one word always changes the sum; changes of several cancel once in 2^32 times.
    """
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        if leaf.dtype == bool:
            leaf = leaf.astype(jnp.uint8)
        unsigned = jnp.dtype(f"uint{8 * min(leaf.dtype.itemsize, 4)}")
        words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
        place = jnp.uint32(number)
        for axis in range(words.ndim):
            index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
            place = (place + index) * jnp.uint32(0x9E3779B1)  # 2^32 over the golden ratio, odd
        total += jnp.sum(words * (place | 1), dtype=jnp.uint32)
    return total


@functools.cache
def _ignore_late_failures() -> None:
    """Ignores errors of orbax tasks whose event loop closed after another task failed."""
    before = sys.unraisablehook

    def say(what: Any) -> None:
        if repr(what.exc_value) != repr(RuntimeError("Event loop is closed")):
            before(what)

    sys.unraisablehook = say


class StateFolder:
    """Saves and restores train states, and keeps the newest ones.

    Orbax writes to a temporary name and renames, so an incomplete state is never read. It does not
    notice a flipped bit on the disk, so each state is saved with a checksum. Arrays are copied to
    the host before `save` returns and written in the background while training continues; leaving
    the `with` block waits for the last save.
    """

    def __init__(self, path: pathlib.Path, keep: int = 1) -> None:
        """Opens the folder, which need not exist yet; `keep` states stay in it."""
        _ignore_late_failures()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._path = path.absolute()
        try:
            self._manager = ocp.CheckpointManager(
                self._path,
                options=options,
                # Otherwise orbax infers a state's parts from the newest one, which may be damaged.
                item_handlers=ocp.StandardCheckpointHandler(),
            )
        except OSError as error:
            raise write_error(path, error) from error

    def save(self, state: TrainState) -> None:
        """Starts saving a state under its step; a state already saved there is kept.

        Raises:
          StorageError: this save or the previous one failed: the disk is full, or the folder is
            not writable.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        # Checked first, because orbax prints pages of tracebacks when a disk fills up.
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._path).free < size:
            raise write_error(self._path, OSError(f"No space left on device for {size} bytes"))
        saved = {"state": state._asdict(), "checksum": _checksum(state)}
        with self._said():
            self._manager.save(step, args=ocp.args.StandardSave(saved))

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Turns orbax's errors, of this save or the previous one, into `StorageError`."""
        try:
            with undivided():
                yield
        except (OSError, ValueError) as error:  # tensorstore raises ValueError for a full disk
            for unfinished in self._path.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise write_error(self._path, error) from error

    def restore(self, like: TrainState) -> TrainState:
        """Restores the newest intact state, in the structure and placement of `like`; else `like`.

        Damaged states are named and deleted, and the one before them is restored.

        Raises:
          StorageError: all states are damaged.
        """
        wanted = {"state": like._asdict(), "checksum": _checksum(like)}
        target: Any = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
        damaged = []
        with self._said():
            self._manager.wait_until_finished()
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=ocp.args.StandardRestore(target))
                state = TrainState(**restored["state"])
                if _checksum(state) != restored["checksum"]:
                    raise ValueError("its checksum does not match its arrays")
            except Exception as error:  # tensorstore and orbax raise types of their own
                damaged.append(f"{step} ({type(error).__name__})")
                continue
            for text in damaged:
                print(
                    f"{self._path}: deleted the damaged saved state of step {text}; resuming from "
                    f"step {step}",
                    file=sys.stderr,
                )
                self._manager.delete(int(text.split()[0]))
            return state
        if damaged:
            raise StorageError(
                f"{self._path}: the saved states of steps {', '.join(damaged)} cannot be read; "
                "delete this folder to train the task from the start"
            )
        return like

    def __enter__(self) -> StateFolder:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for the last save; raises its error unless another is already being raised."""
        try:
            with self._said():
                self._manager.wait_until_finished()
        except StorageError:
            if kind is None:
                raise
        finally:
            self._manager.close()
