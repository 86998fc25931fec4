"""Ways to fine-tune: one file each, and a row of one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from .attention import attention
from .delta import delta
from .full import full
from .given import given
from .linearized import linearized
from .lora import lora
from .mode import Mode


class ModeRow(NamedTuple):
    """How to build a mode for a run.

    Attributes:
      make: makes the mode from its options, if it has any.
      options: where the config has these options; "" if the mode has none.
    """

    make: Callable[..., Mode]
    options: str = ""


# By name, as in `methods` of a config.
MODES: dict[str, ModeRow] = {
    "full": ModeRow(full),
    "linearized": ModeRow(linearized, "linearized"),
    "attention": ModeRow(attention),
    "lora": ModeRow(lora, "lora"),
    "delta": ModeRow(delta, "delta"),
}


def make_mode(name: str, config: ConfigDict) -> Mode:
    """Builds the mode of that name, with its options from a config; "given" trains nothing."""
    if name == "given":
        return given()
    row = MODES[name]
    return row.make(config[row.options]) if row.options else row.make()
