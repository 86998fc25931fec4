"""Names for what mergers take, in signatures."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Float

Values: TypeAlias = Float[Array, "t ..."]  # one tensor of each of t task vectors
Floats: TypeAlias = Float[Array | np.ndarray, "..."]
Matrices: TypeAlias = Float[Array | np.ndarray, "t m n"]  # one matrix of each
Cutoffs: TypeAlias = Any  # (t ...) what was found from whole task vectors; None if nothing is
Key: TypeAlias = Any  # of random numbers; None if the merger draws none
