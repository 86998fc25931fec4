"""Passes each line of metrics.jsonl to a function of the user's, for W&B, trackio and others."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orthoreg_jax.extras import MissingExtraError

from .trackers import TRACKERS, make_tracker

Line = dict[str, Any]
OPTION = "training.on_metrics"


def find_function(name: str) -> Callable[[Line, pathlib.Path], object]:
    """The function "module:function" of a module that can be imported; or one that is ready.

    Args:
      name: "module:function", "wandb" or "trackio".

    Raises:
      ValueError: the name has another form, the module cannot be imported, or it lacks the
        function.
    """
    if name in TRACKERS:
        try:
            return make_tracker(name)
        except MissingExtraError as error:
            raise ValueError(f"{OPTION} is {name!r}: {error}, or leave the option out") from error
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        ready = ", ".join(map(repr, TRACKERS))
        raise ValueError(
            f"{OPTION} is {name!r}, allowed: 'module:function', {ready}, or '' for none"
        )
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever a user's own module may raise
        raise ValueError(
            f"{OPTION} is {name!r}: importing {module} raised {type(error).__name__}: {error}; "
            "PYTHONPATH=FOLDER in front of the command lets Python find modules in FOLDER"
        ) from error
    if not callable(found):
        raise ValueError(f"{OPTION} is {name!r}: {module} has no function {attribute!r}")
    return found


def track(name: str, lines: Iterable[Mapping[str, Any]], folder: pathlib.Path) -> None:
    """Calls the function with each line and the task's folder, METHOD/seedN/TASK of a run.

    Raises:
      ValueError: the function raised an error.
    """
    function = find_function(name)
    for line in lines:
        try:
            function(dict(line), folder)
        except Exception as error:
            raise ValueError(
                f"{OPTION} is {name!r}: at step {line['step']} it raised {type(error).__name__}: "
                f"{error}; fix it, or leave the option out, and run the same command to continue"
            ) from error
