"""States of an unfinished fine-tuning on disk, through orbax."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from orthoreg_jax.storage import StorageError, write_error

from .step import TrainState


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the block ends: orbax's threads do not survive one in their midst."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class StateFolder:
    """Saves and restores train states; keeps the newest only.

    Orbax writes to a temporary name and renames, so a state that was cut off is never read.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Opens the folder, which need not exist yet."""
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._path = path.absolute()
        try:
            self._manager = ocp.CheckpointManager(self._path, options=options)
        except OSError as error:
            raise write_error(path, error) from error

    def save(self, state: TrainState) -> None:
        """Saves a state under its own step; a step that is there already stays as it is.

        Raises:
          StorageError: the disk is full, or the folder cannot be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        # Ahead of orbax, whose writers end in pages of tracebacks when a disk fills up.
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._path).free < size:
            raise write_error(self._path, OSError(f"No space left on device for {size} bytes"))
        try:
            with _uninterrupted():
                self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))
        except (OSError, ValueError) as error:  # tensorstore says a full disk by ValueError
            for unfinished in self._path.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise write_error(self._path, error) from error

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, with the structure and placement of `like`; `like` if none is.

        Raises:
          StorageError: it is damaged.
        """
        step = self._manager.latest_step()
        if step is None:
            return like
        target: Any = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        try:
            restored = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:  # tensorstore's and orbax's own kinds
            raise StorageError(
                f"{self._path}: the saved state of step {step} cannot be read; delete this folder "
                f"to train the task from its start ({type(error).__name__})"
            ) from error
        return TrainState(**restored)

    def __enter__(self) -> StateFolder:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends orbax's background work."""
        self._manager.close()
