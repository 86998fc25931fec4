"""OrthoReg: orthonormal columns of each weight update."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.penalty import orthogonality_penalty
from orthoreg_jax.arithmetic.rules import Rules, rules_for_part
from orthoreg_jax.clip.weights import TRAINED_MATRICES

from .penalty import Penalty


def orthoreg(options: ConfigDict, strength: float) -> Penalty:
    """Needs nothing but the update; options: `form` and `precision`."""
    return orthogonality(strength, options.form, TRAINED_MATRICES, options.precision)


def orthogonality(
    strength: float, form: str, matrices: Rules, precision: str = "highest"
) -> Penalty:
    """As `orthogonality_penalty`; the rules may be for more than the update holds."""

    def value(apply: Any, params0: Any, delta: Any, known: Any) -> Float[Array, ""]:
        rules = rules_for_part(delta, matrices)
        return orthogonality_penalty(delta, matrices=rules, form=form, precision=precision)

    return Penalty(strength, value)
