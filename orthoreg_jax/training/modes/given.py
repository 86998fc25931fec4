"""Models that were fine-tuned elsewhere: nothing is trained."""

from __future__ import annotations

from typing import Any, NoReturn

from .mode import Mode


def given() -> Mode:
    """Evaluates task vectors as edited weights, and cannot train them."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("given models are read, never trained")

    return Mode(label="Given models", init=refuse, delta=refuse, forward=refuse)
