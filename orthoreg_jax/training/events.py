"""Writes metrics for TensorBoard while a task trains: the numbers in metrics.jsonl."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from orthoreg_jax.extras import install

EVENTS_PACKAGE = "tensorboardX"  # which needs no TensorFlow


def check_events() -> None:
    """Checks that the package that writes event files is installed.

    Raises:
      ValueError: it is not.
    """
    if importlib.util.find_spec(EVENTS_PACKAGE) is None:
        raise ValueError(
            "training.tensorboard is True, which needs tensorboardX: install it with "
            f"{install('tensorboard')}, or leave the option out"
        )


class Events:
    """Event files of one task; `tensorboard --logdir RUN` shows all tasks of a run."""

    def __init__(self, folder: pathlib.Path, first: int) -> None:
        """Opens a new file; TensorBoard then drops its earlier data from step `first` on."""
        import tensorboardX

        self._writer = tensorboardX.SummaryWriter(str(folder), purge_step=first)

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines of the log, without numbers that are not finite (None)."""
        for line in lines:
            for name in ("loss", "penalty", "gradient_norm"):
                if line[name] is not None:
                    self._writer.add_scalar(name, line[name], line["step"])

    def __enter__(self) -> Events:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Writes the remaining events."""
        self._writer.close()
