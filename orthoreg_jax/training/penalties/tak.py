"""TAK: the same as tauJp without images, by Kronecker factors of the other tasks' curvature."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.kronecker import kronecker_penalty, merge_kronecker

from .penalty import Context, Others, Penalty


def tak(options: ConfigDict, strength: float) -> Penalty:
    """Sees one pair of factors a layer, made before training from `images` of each other task."""

    def prepare(others: Others) -> Context:
        return Context(constant=merge_kronecker(others.factors(options.images)))

    def value(apply: Any, params0: Any, delta: Any, known: Any) -> Float[Array, ""]:
        return kronecker_penalty(delta, known)

    return Penalty(strength, value, prepare)
