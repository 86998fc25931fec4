"""What a penalty is: a term of the loss that sees the update and, maybe, other tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.kronecker import Factors
from orthoreg_jax.tasks.loading import Feed, Rotation
from orthoreg_jax.training.modes.mode import Apply


@runtime_checkable
class Others(Protocol):
    """The other tasks of a run, as far as a penalty may ask; nothing is made before it asks."""

    def feeds(self, batch_size: int) -> tuple[Feed, ...]:
        """Training batches of each of them."""
        ...

    def factors(self, images: int) -> Sequence[Factors]:
        """Kronecker factors of each of them at the pre-trained weights, on so many images."""
        ...


class Context(NamedTuple):
    """What a penalty needs beside the update, while one task is fine-tuned.

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
      value: (apply, params0, delta, known) -> Omega; `apply` takes images as they are fed, `delta`
        is the `Mode`'s, and `known` the context's arrays or its batch.
      prepare: what is known of the other tasks, made once for each task that is fine-tuned.
    """

    strength: float
    value: Callable[[Apply, Any, Any, Any], Float[Array, ""]]
    prepare: Callable[[Others], Context] = lambda others: Context()
