"""The parts of `accelerator.py`, most important first; each has its own module and table."""

from __future__ import annotations

import os
import platform
from typing import Any

from . import (
    mergers,
    numerics,
    peaks,
    pretraining,
    products,
    regime,
    steps,
    suite,
    sweeps,
    torch_steps,
)
from .part import Cell, Part, Row

__all__ = ["PARTS", "Cell", "Part", "Row", "machine"]

PARTS: dict[str, Part] = {
    "peaks": peaks.PART,
    "steps": steps.PART,
    "penalty": products.PART,
    "torch": torch_steps.PART,
    "numerics": numerics.PART,
    "regime": regime.PART,
    "suite": suite.PART,
    "sweeps": sweeps.PART,
    "mergers": mergers.PART,
    "pretraining": pretraining.PART,
}


def machine(part: str) -> dict[str, Any]:
    """The machine that measures a part; leaves the device to PyTorch where that measures."""
    facts = {"cores": os.cpu_count(), "python": platform.python_version()}
    if part == "torch":
        import torch

        gpu = torch.cuda.is_available()
        device = torch.cuda.get_device_name() if gpu else platform.machine()
        return facts | {"device": device, "torch": torch.__version__}
    import jax

    device = jax.devices()[0]
    return facts | {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
    }
