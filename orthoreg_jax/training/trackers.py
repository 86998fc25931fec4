"""W&B and trackio: `training.on_metrics="wandb"` sends them each line of metrics.jsonl."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from orthoreg_jax.extras import MissingExtraError, install
from orthoreg_jax.storage import read_json

TRACKERS = ("wandb", "trackio")  # also the names of their packages and of our extras
METRICS = ("loss", "penalty", "gradient_norm")
PROJECT = "orthoreg"


class Tracker:
    """Sends lines to a package with W&B's functions; one of its runs for each fine-tuning."""

    def __init__(self, name: str) -> None:
        """Imports it.

        Raises:
          MissingExtraError: it is not installed.
        """
        try:
            self._package = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{name} is not installed: {install(name)}") from error
        self._folder: pathlib.Path | None = None

    def __call__(self, line: Mapping[str, Any], folder: pathlib.Path) -> None:
        """Sends the numbers of a line that are finite.

        Args:
          line: of metrics.jsonl.
          folder: METHOD/seedN/TASK of a run folder, the run's name.
        """
        if folder != self._folder:
            self._open(folder)
        numbers = {key: line[key] for key in METRICS if line.get(key) is not None}
        self._package.log(numbers, step=line["step"])

    def _open(self, folder: pathlib.Path) -> None:
        """Ends the run before, and begins one or goes on with it after an interruption."""
        if self._folder is not None:
            self._package.finish()
        path = folder.resolve()
        run, own = path.parents[2], {}
        if self._package.__name__ == "wandb":  # trackio finds a run again by its name
            own["id"] = hashlib.sha256(str(path).encode()).hexdigest()[:16]
            own["dir"] = str(path)
        config = run / "config.json"
        self._package.init(
            project=os.environ.get(f"{self._package.__name__.upper()}_PROJECT", PROJECT),
            group=run.name,
            name="/".join([run.name, *path.parts[-3:]]),
            config=read_json(config) if config.is_file() else {},
            resume="allow",
            **own,
        )
        self._folder = folder


@functools.cache  # a fine-tuning sends its lines in several calls
def make_tracker(name: str) -> Tracker:
    """The tracker of this name.

    Raises:
      MissingExtraError: its package is not installed.
    """
    return Tracker(name)
