"""OrthoReg: distance of weight updates from orthonormal columns, with closed-form gradient."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from orthoreg_jax.arithmetic.low_rank import LowRank, dense, is_low_rank, squared_deviation
from orthoreg_jax.arithmetic.matrices import as_matrices, select_leaves
from orthoreg_jax.arithmetic.meshes import automatically_sharded
from orthoreg_jax.arithmetic.precision import power_of_two, wide_type
from orthoreg_jax.arithmetic.rules import Matrix, Rules
from orthoreg_jax.arithmetic.types import Update

FORMS = ("released", "paper")


def orthogonality_penalty(
    delta: Update,
    *,
    matrices: Rules | None = None,
    form: str = "released",
    precision: jax.lax.PrecisionLike = "highest",
) -> Float[Array, ""]:
    r"""OrthoReg: distance of each weight update from orthonormal columns, summed over matrices.

    With G the Gram matrix of an update dW of m rows and n columns (kernels are (in, out), so
    columns are the output features):

    * "released":  sum_l || G_l - I ||_F, with G_l of the *smaller* side (dW^T dW if m >= n, else
      dW dW^T), as in the authors' released code. Transposing an update does not change it.
    * "paper":  sum_l || dW_l^T dW_l - I ||_F^2, Gram over columns (equation 8 of the paper).

    The gradient is in closed form, 2 dW E / ||E||_F or 4 dW E with E = G - I: two matrix products
    in all. It is exactly 0 at dW = 0. In the released form it is also 0 at an orthonormal dW, where
    the norm has a kink and E is only rounding error. It is correct wherever the Gram matrix is
    finite (entries up to about 1e18). If an entry of a matrix or of its Gram matrix is NaN or
    infinite, that matrix's value and gradient are not finite either, and never merely small.
    Value and gradient can be differentiated in forward and reverse mode. The Gram matrix is
    accumulated in float32 (float64 for float64 updates), whatever the type of the update. Updates
    may be sharded in any way, including over meshes with Explicit axes.

    The penalty looks at each update alone: a value of 0 says nothing about how the updates of two
    tasks relate, and they may be equal.

    Args:
      delta: any pytree of updates, fine-tuned minus pre-trained weights. A `LowRank` node is
        multiplied out only if its rank is not below its smaller side or a rule gives it other
        axes. Pass LoRA's factors kept as two leaves (see `Adapter`) as they are, not as their
        change since the start: their product is the update.
      matrices: rules from path patterns to readings, for leaves that are not plain 2-D matrices.
        `describe_matrices` shows how each leaf is read; `layer_rules` has rules for stock layers.
        Integer and boolean leaves, biases, scales and embeddings are left out unless a rule says
        otherwise.
      form: "released" or "paper". Strengths do not carry over between them.
      precision: precision of the matrix products. TPUs and recent GPUs round float32 factors to
        fewer bits unless it is "highest". "default" is faster there and the same on CPUs.

    Returns:
      The scalar to multiply by lambda and add to a loss. At dW = 0 each matrix contributes
      sqrt(min(m, n)) (released) or n (paper).

    Raises:
      ValueError: the form is unknown, leaves need a rule and have none, a rule fits no leaf or
        reads integers as a matrix, or there is no matrix at all.

    Reference: "Understanding and Enforcing Weight Disentanglement in Task Arithmetic", CVPR 2026
      (arXiv 2604.17078), equation 8.

    Examples:
      >>> update = {"bias": jnp.ones(3), "kernel": jnp.zeros((4, 3))}
      >>> print(oj.orthogonality_penalty(update))  # sqrt(3)
      1.7320508
      >>> print(oj.orthogonality_penalty(update, form="paper"))
      3.0
      >>> print(oj.orthogonality_penalty({"kernel": jnp.eye(4, 3)}))  # orthonormal columns
      0.0
      >>> tasks = [{"kernel": jnp.eye(4, 3)}] * 2  # two tasks with the same update
      >>> print([float(oj.orthogonality_penalty(task)) for task in tasks], oj.cosine_matrix(tasks))
      [0.0, 0.0] [[1. 1.]
       [1. 1.]]
    """
    check_form(form)
    return sum_terms(select_leaves(delta, matrices), form, precision)


def sum_terms(
    updates: Mapping[str, tuple[Any, Matrix]], form: str, precision: jax.lax.PrecisionLike
) -> Float[Array, ""]:
    """The penalty of updates whose readings are known, as pairs (dW, reading) by path."""

    def term(leaf: Any, reading: Matrix) -> Float[Array, ""]:
        if is_low_rank(leaf) and reading == Matrix() and leaf.rank < min(leaf.shape[-2:]):
            return _low_rank_penalty(leaf, form, precision).sum()
        return _penalty(as_matrices(jnp.asarray(dense(leaf)), reading), form, precision).sum()

    terms = [
        automatically_sharded(functools.partial(term, reading=reading), leaf)
        for leaf, reading in updates.values()
    ]
    return sum(terms[1:], start=terms[0])


def check_form(form: str) -> None:
    """Refuses unknown forms of the penalty."""
    if form not in FORMS:
        raise ValueError(f"form {form!r}; allowed: {', '.join(map(repr, FORMS))}")


def _low_rank_penalty(
    update: LowRank, form: str, precision: jax.lax.PrecisionLike
) -> Float[Array, "*k"]:
    # The rank is below both sides, so ||G - I||^2 >= side - rank >= 1, away from the kink.
    squared = squared_deviation(update, precision)
    if form == "released":
        return squared.unit * jnp.sqrt(squared.relative)
    return squared.unit**2 * squared.relative + max(0, update.shape[-1] - update.shape[-2])


# A custom derivative, because plain autodiff takes three matrix products where two are enough, and
# gives NaN at an orthonormal update. A JVP rule covers both forward and reverse mode.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _penalty(
    matrices: Inexact[Array, "k m n"], form: str, precision: jax.lax.PrecisionLike
) -> Float[Array, " k"]:
    """The penalty of each of k matrices."""
    deviation = _deviation(matrices, precision)
    if form == "released":
        norm = _norm(deviation)
        return norm.unit * norm.relative
    return _squared(deviation, matrices.shape)


@_penalty.defjvp
def _penalty_jvp(form: str, precision: jax.lax.PrecisionLike, primals: Any, tangents: Any) -> Any:
    (matrices,), (tangent,) = primals, tangents
    deviation = _deviation(matrices, precision)
    if form == "paper":
        value = _squared(deviation, matrices.shape)
        scaled = deviation * 4.0
    else:
        norm = _norm(deviation)
        value = norm.unit * norm.relative
        # Below this, ||E|| is rounding error of the Gram matrix's sums and has no direction.
        rounding = jnp.finfo(deviation.dtype).eps * deviation.shape[-1]
        small = value <= rounding
        factor = jnp.where(small, 0.0, 2.0 / jnp.where(small, 1.0, norm.relative))
        scaled = deviation / norm.unit[:, None, None] * factor[:, None, None]
    wide = matrices.astype(deviation.dtype)
    # dW E on the side of the Gram matrix, then the inner product of tangent and gradient.
    factors = (wide, scaled) if _over_columns(matrices.shape) else (scaled, wide)
    gradient = jnp.matmul(*factors, precision=precision)
    return value, jnp.sum(gradient * tangent.astype(gradient.dtype), axis=(1, 2))


def _over_columns(shape: tuple[int, ...]) -> bool:
    return shape[-2] >= shape[-1]


def _deviation(
    matrices: Inexact[Array, "k m n"], precision: jax.lax.PrecisionLike
) -> Float[Array, "k s s"]:
    """E = G - I, with G the Gram matrix of the smaller side s."""
    dtype = wide_type(matrices.dtype)
    equation = "kij,kil->kjl" if _over_columns(matrices.shape) else "kij,klj->kil"
    gram = jnp.einsum(
        equation, matrices, matrices, precision=precision, preferred_element_type=dtype
    )
    return gram - jnp.eye(gram.shape[-1], dtype=dtype)[None]


class _Norm(NamedTuple):
    """|| E ||_F as unit * relative, the unit a power of 2; NaN where an entry is not finite."""

    unit: Float[Array, " k"]
    relative: Float[Array, " k"]


def _norm(deviation: Float[Array, "k s s"]) -> _Norm:
    unit = power_of_two(jnp.max(jnp.abs(deviation), axis=(1, 2)))
    squared = jnp.sum(jnp.square(deviation / unit[:, None, None]), axis=(1, 2))
    # sqrt has no derivative at 0; keep 0 out of it, for second derivatives at orthonormal updates.
    zero = squared == 0
    return _Norm(unit, jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared))))


def _squared(deviation: Float[Array, "k s s"], shape: tuple[int, ...]) -> Float[Array, " k"]:
    # || X^T X - I_n ||^2 = || X X^T - I_m ||^2 + n - m: the smaller Gram matrix is always enough.
    return jnp.sum(jnp.square(deviation), axis=(1, 2)) + max(0, shape[-1] - shape[-2])
