"""Names for trees in signatures.

All are pytrees of arrays, which type checkers cannot distinguish; the names show which is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

PyTree: TypeAlias = Any  # any tree of arrays
Params: TypeAlias = Any  # the weights of a model, or of a part of it; params0 are the pre-trained
Update: TypeAlias = Any  # what fine-tuning changed, dense or with `LowRank` nodes
TaskVector: TypeAlias = Any  # an update, multiplied out
Trainable: TypeAlias = Any  # what the optimiser updates; each mode defines its own
Inputs: TypeAlias = Any  # what a model takes: an array, or a tree of them

Apply: TypeAlias = Callable[[Params, Inputs], Any]  # (params, inputs) -> outputs
