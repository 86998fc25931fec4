"""Ways to fine-tune, one file each, as rows of one table."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from .attention import attention
from .full import full
from .linearized import linearized
from .lora import lora
from .mode import Mode

# A name in `methods` of a config -> what makes the mode from the config's options.
MODES: dict[str, Callable[[ConfigDict], Mode]] = {
    "full": full,
    "linearized": linearized,
    "attention": attention,
    "lora": lora,
}
