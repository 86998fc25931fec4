"""Penalties on the update, one file each, as rows of one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from .orthoreg import orthoreg
from .penalty import Penalty
from .tak import tak
from .taujp import taujp


class Row(NamedTuple):
    """How a penalty comes into a run.

    Attributes:
      label: its name in tables.
      options: where the config has its options, `strength` among them.
      make: (options, strength) -> the penalty.
      others: whether it needs other tasks than the one that is fine-tuned.
    """

    label: str
    options: str
    make: Callable[[ConfigDict, float], Penalty]
    others: bool


# What stands behind the "+" of a method's name, in the order in which it stands there.
PENALTIES: dict[str, Row] = {
    "orthoreg": Row("OrthoReg", "penalty", orthoreg, False),
    "taujp": Row("τJp", "penalty.taujp", taujp, True),
    "tak": Row("TAK", "penalty.tak", tak, True),
}
