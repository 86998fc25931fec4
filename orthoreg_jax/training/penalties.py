"""The penalties of a run, as rows of one table: each one's options and the data it needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.rules import Rules, rules_for_part
from orthoreg_jax.arithmetic.types import Apply, Params, Update
from orthoreg_jax.clip.weights import TRAINED_MATRICES
from orthoreg_jax.penalties.orthoreg import orthogonality_penalty
from orthoreg_jax.penalties.tak import Factors, kronecker_penalty, merge_kronecker
from orthoreg_jax.penalties.taujp import tau_jacobian_penalty
from orthoreg_jax.tasks.loading import Feed, Rotation

PROJECTION_PATH = "projection"  # the image tower's last layer


@runtime_checkable
class Others(Protocol):
    """What a penalty may request from the other tasks; nothing is computed before it asks."""

    def feeds(self, batch_size: int) -> tuple[Feed, ...]:
        """Training batches of every other task."""
        ...

    def factors(self, images: int, normalized: bool = False) -> Sequence[Factors]:
        """Kronecker factors of each other task at the pre-trained weights, from `images` images.

        `normalized`: of the features divided by their norm.
        """
        ...

    def general(self, images: int, normalized: bool = False) -> Factors:
        """The same of the control task, as images of no task in particular."""
        ...


class Context(NamedTuple):
    """What a penalty needs besides the update while one task is fine-tuned.

    Attributes:
      constant: arrays that are the same at every step.
      rotation: batches of images, a new one at every step, in place of `constant`.
    """

    constant: Any = None
    rotation: Rotation | None = None


class Penalty(NamedTuple):
    """One term lambda * Omega of the loss.

    Attributes:
      strength: lambda.
      value: (apply, params0, delta, known) -> Omega; `apply` takes images as fed, `delta` is the
        update from `Mode.delta`, and `known` the context's arrays or its batch.
      prepare: makes the context from the other tasks, once for each task that is fine-tuned.
    """

    strength: float
    value: Callable[[Apply, Any, Any, Any], Float[Array, ""]]
    prepare: Callable[[Others], Context] = lambda others: Context()


def orthoreg(options: ConfigDict, strength: float) -> Penalty:
    """Needs only the update; options: `form` and `precision`."""
    return orthogonality(strength, options.form, TRAINED_MATRICES, options.precision)


def orthogonality(
    strength: float, form: str, matrices: Rules, precision: str = "highest"
) -> Penalty:
    """Same as `orthogonality_penalty`, but rules may match more than the update contains."""

    def value(apply: Any, params0: Params, delta: Update, known: Any) -> Float[Array, ""]:
        rules = rules_for_part(delta, matrices)
        return orthogonality_penalty(delta, matrices=rules, form=form, precision=precision)

    return Penalty(strength, value)


def taujp(options: ConfigDict, strength: float) -> Penalty:
    """Sees a batch of one other task at each step, cycling through them; option: `batch_size`."""

    def prepare(others: Others) -> Context:
        return Context(rotation=Rotation(others.feeds(options.batch_size)))

    return Penalty(strength, tau_jacobian_penalty, prepare)


def tak(options: ConfigDict, strength: float) -> Penalty:
    """Sees one pair of factors per layer, made before training from `images` of each other task."""

    def prepare(others: Others) -> Context:
        factors = merge_kronecker(others.factors(options.images, options.normalized))
        return Context(constant=_weigh(factors, options.projection))

    return Penalty(strength, _quadratic_form, prepare)


def drift(options: ConfigDict, strength: float) -> Penalty:
    """As TAK's, with factors of images of no task in particular: those of the control task."""

    def prepare(others: Others) -> Context:
        factors = others.general(options.images, options.normalized)
        return Context(constant=_weigh(factors, options.projection))

    return Penalty(strength, _quadratic_form, prepare)


def _quadratic_form(apply: Any, params0: Params, delta: Update, known: Any) -> Float[Array, ""]:
    return kronecker_penalty(delta, known)


def _weigh(factors: Factors, projection: float) -> dict[str, Any]:
    """Multiplies the term of the final projection."""
    weighed = dict(factors)
    if PROJECTION_PATH in weighed:
        last = weighed[PROJECTION_PATH]
        weighed[PROJECTION_PATH] = last._replace(outputs=projection * last.outputs)
    return weighed


class PenaltyRow(NamedTuple):
    """How to build a penalty for a run.

    Attributes:
      label: its name in tables.
      options: where the config has its options, `strength` among them.
      make: (options, strength) -> the penalty.
      others: whether it needs tasks other than the one that is fine-tuned.
      batch: name of the option for the number of other tasks' images at each step; "" if it takes
        none.
    """

    label: str
    options: str
    make: Callable[[ConfigDict, float], Penalty]
    others: bool
    batch: str = ""


# The names that may follow "+" in a method's name, in this order.
PENALTIES: dict[str, PenaltyRow] = {
    "orthoreg": PenaltyRow("OrthoReg", "penalty", orthoreg, False),
    "taujp": PenaltyRow("τJp", "penalty.taujp", taujp, True, "batch_size"),
    "tak": PenaltyRow("TAK", "penalty.tak", tak, True),
    "drift": PenaltyRow("drift", "penalty.drift", drift, False),
}


def penalty_options(name: str, config: ConfigDict) -> ConfigDict:
    """The options of a penalty in a config."""
    return functools.reduce(getitem, PENALTIES[name].options.split("."), config)
