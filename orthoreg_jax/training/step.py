"""The train step: one compiled function for all tasks of a method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from orthoreg_jax.arithmetic.types import Apply, Params, PyTree, Trainable
from orthoreg_jax.clip.zeroshot import Head

from .modes.mode import Mode, Moment
from .optimizers import OPTIMIZERS
from .penalties import Penalty
from .schedule import scale_by_warmup_cosine, share_done
from .sharding import Shardings


class TrainState(NamedTuple):
    """Everything that training changes.

    `step` counts updates. `finite` becomes False at the first loss or gradient that is not finite;
    from then on no update is made.
    """

    step: Int[Array, ""]
    finite: Bool[Array, ""]
    trainable: Any
    opt_state: Any


class Metrics(NamedTuple):
    """Metrics of one step.

    `penalty` is not multiplied by lambda; for several penalties it is their mean, weighted by
    lambda. It is NaN if the gradient of the loss is not finite.
    `finite` is whether loss and gradient were finite, and so whether the update was made.
    """

    loss: Float[Array, ""]
    penalty: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]


def make_optimizer(
    learning_rate: float | Float[Array, ""],
    warmup_steps: int,
    steps: int,
    weight_decay: float,
    clip_norm: float,
    kind: str = "adamw",
) -> optax.GradientTransformation:
    """The paper's recipe: clip by global norm, AdamW, linear warm-up, cosine to 0.

    Optimisers that differ only in `learning_rate`, `warmup_steps` and `steps` share one compiled
    step, because the state holds these numbers.

    Args:
      learning_rate: peak learning rate.
      warmup_steps: number of steps with rising rate.
      steps: number of steps after which the rate is 0.
      weight_decay: weight decay of every trained leaf.
      clip_norm: largest global norm of the gradient.
      kind: a key of `OPTIMIZERS`, the optimiser used in place of Adam.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        OPTIMIZERS[kind](),
        optax.add_decayed_weights(weight_decay),
        scale_by_warmup_cosine(learning_rate, warmup_steps, steps),
    )


@runtime_checkable
class TrainStep(Protocol):
    """A compiled update of the train state."""

    def __call__(
        self,
        state: TrainState,
        params0: Params,
        head: Head,
        images: Array,
        labels: Array,
        known: Sequence[Any] = ...,
    ) -> tuple[TrainState, Metrics]:
        """`known` holds what each penalty needs besides the update; see `make_train_step`."""
        ...


def make_train_step(
    mode: Mode,
    apply: Apply,
    optimizer: optax.GradientTransformation,
    normalize: Callable[[Any], Any],
    penalties: Sequence[Penalty] = (),
    shardings: Shardings | None = None,
    accumulate: int = 1,
) -> TrainStep:
    """Compiles `(state, params0, head, images, labels, known) -> (state, metrics)`.

    `known` holds what each penalty needs besides the update; by default, nothing. The state is
    donated. If loss or gradient is not finite, neither this step nor any later one changes a
    weight, so the returned state is always the last good one.

    Args:
      mode: a mode, from a row of `MODES`.
      apply: (image tower's params, pixels) -> features.
      optimizer: acts on the mode's trainable.
      normalize: uint8 or float images on the scale 0 to 255 -> pixels.
      penalties: lambda times the gradient of each is added to the gradient of the loss.
      shardings: placement of the new state; None leaves it to the compiler.
      accumulate: number of parts to compute a batch in, one after another, to save memory; their
        gradients are averaged, and penalties are computed once.
    """

    # These functions close over mode, model and optimiser, which are fixed while `step` is
    # compiled; everything that changes between tasks is an argument of `step`.
    def task_loss(
        trainable: Trainable,
        params0: Params,
        moment: Moment,
        head: Head,
        images: Array,
        labels: Array,
    ) -> Array:
        if mode.loss is not None:
            pixels = normalize(images)
            own: Array = mode.loss(apply, params0, trainable, pixels, head, labels, moment)
            return own
        logits = head.logits(mode.forward(apply, params0, trainable, normalize(images)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def task_gradient(
        trainable: Trainable,
        params0: Params,
        moment: Moment,
        head: Head,
        images: Array,
        labels: Array,
    ) -> tuple[Array, Any]:
        value_and_gradient = jax.value_and_grad(task_loss)
        if accumulate == 1:
            return value_and_gradient(trainable, params0, moment, head, images, labels)
        parts = _cut((images, labels), accumulate, shardings)

        def add(total: Any, part: Any) -> tuple[Any, None]:
            new = value_and_gradient(trainable, params0, moment, head, *part)
            return jax.tree.map(jnp.add, total, new), None

        zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, trainable)
        total, _ = jax.lax.scan(add, zeros, parts)
        mean: tuple[Array, Any] = jax.tree.map(lambda leaf: leaf / accumulate, total)
        return mean

    def features(params: Params, images: Array) -> Any:
        return apply(params, normalize(images))

    def omega(trainable: Trainable, penalty: Penalty, params0: Params, known: Any) -> Array:
        several = mode.penalised or (lambda *given: (mode.delta(*given),))
        updates = several(trainable, params0)
        terms = [penalty.value(features, params0, update, known) for update in updates]
        return functools.reduce(jnp.add, terms)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: TrainState,
        params0: Params,
        head: Head,
        images: UInt8[Array, "b h w 3"],
        labels: Int[Array, " b"],
        known: Sequence[Any] = (None,) * len(penalties),
    ) -> tuple[TrainState, Metrics]:
        moment = Moment(state.step, share_done(state.opt_state))
        loss, gradient = task_gradient(state.trainable, params0, moment, head, images, labels)
        terms = []
        for penalty, own in zip(penalties, known, strict=True):
            trainable = _once_there(gradient, state.trainable)
            value, slope = jax.value_and_grad(omega)(trainable, penalty, params0, own)
            gradient = optax.tree.add_scale(gradient, penalty.strength, slope)
            terms.append(value)
        term = _mean(terms, [penalty.strength for penalty in penalties])
        gradient_norm = optax.tree.norm(gradient)
        finite = state.finite & jnp.isfinite(loss + term) & jnp.isfinite(gradient_norm)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        new = TrainState(state.step + 1, finite, trainable, opt_state)
        state = jax.tree.map(functools.partial(jnp.where, finite), new, state)
        if shardings is not None:
            state = jax.lax.with_sharding_constraint(state, shardings.weights(state))
        return state._replace(finite=finite), Metrics(loss, term, gradient_norm, finite)

    return step


def _once_there(gradient: PyTree, trainable: Trainable) -> Trainable:
    """The weights, made dependent on the gradient so that penalties are computed after it.

    Otherwise XLA keeps a penalty's gradient in memory during the backward pass, together with the
    activations: for ViT-B/32 300 MB more on a CPU and 195 on a TPU, instead of 0 and 7. No backend
    ignores a data dependency; CPUs drop an optimisation barrier.
    """
    there = jnp.isfinite(optax.tree.norm(gradient))
    return jax.tree.map(lambda weights: jnp.where(there, weights, jnp.nan), trainable)


def _mean(values: Sequence[Array], weights: Sequence[float]) -> Array:
    """Weighted mean; 0 for no values, and a single value unchanged, whatever its weight."""
    if len(values) < 2:
        return values[0] if values else jnp.zeros(())
    products = [value * weight for value, weight in zip(values, weights, strict=True)]
    return jnp.sum(jnp.stack(products)) / sum(weights)


def _cut(batch: Any, parts: int, shardings: Shardings | None) -> Any:
    """Reshapes a batch to (parts, rest, ...); each part takes its share from every device."""

    def cut(array: Array) -> Array:
        pieces = jnp.swapaxes(array.reshape(-1, parts, *array.shape[1:]), 0, 1)
        if shardings is None:
            return pieces
        return jax.lax.with_sharding_constraint(pieces, shardings.microbatches)

    return jax.tree.map(cut, batch)


def init_state(
    mode: Mode, optimizer: optax.GradientTransformation, params0: Params, key: PRNGKeyArray
) -> TrainState:
    """The state before the first step."""
    trainable = mode.init(params0, key)
    return TrainState(
        jnp.zeros((), jnp.int32), jnp.array(True), trainable, optimizer.init(trainable)
    )
