"""States of an unfinished fine-tuning on disk, through orbax."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from .step import TrainState


class StateFolder:
    """Saves and restores train states; keeps the newest only.

    Orbax writes to a temporary name and renames, so a state that was cut off is never read.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Opens the folder, which need not exist yet."""
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(path.absolute(), options=options)

    def save(self, state: TrainState) -> None:
        """Saves a state under its own step; a step that is there already stays as it is."""
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, with the structure and placement of `like`; `like` if none is."""
        step = self._manager.latest_step()
        if step is None:
            return like
        target: Any = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        return TrainState(**restored)

    def __enter__(self) -> StateFolder:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends orbax's background work."""
        self._manager.close()
