"""Kronecker factors (KFAC) of a linen model: what its layers read, and their outputs' slopes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.paths import flatten, replace, unflatten
from orthoreg_jax.arithmetic.rules import VECTORS

from .tak import Kronecker


def kronecker_factors(
    model: nn.Module,
    params: Any,
    inputs: Float[Array, "b ..."],
    projections: Float[Array, "n p"],
    batch_size: int = 32,
) -> dict[str, Kronecker]:
    """Factors of E_x[J(x)^T J(x)], the curvature of the squared loss on the model's outputs.

    With v of E[v v^T] = I, and g the derivative of v^T f(x) by the outputs of a layer, a layer has
    A = E[a a^T] over inputs and tokens, and B = E_x[sum over tokens of g g^T] ("expand"). A vector
    (of a layer norm, the class embedding) has A = 1 and B = E_x[g g^T], g by the vector itself.
    Convolutions and position embeddings have no factors.

    Args:
      model: whose linear layers are `nn.Dense`; a stack made by `nn.scan` needs "perturbations"
        and "intermediates" among its `variable_axes`, as this package's towers have them.
      params: where it is taken: the pre-trained ones.
      inputs: a few hundred do.
      projections: v of each input, p being the size of an output: drawn from N(0, I).
      batch_size: inputs that are computed at once.

    Returns:
      By path of a layer or vector; for `kronecker_penalty`.

    Raises:
      ValueError: no input, or another number of projections.

    Reference: arXiv 2602.17385, section 3; "expand": arXiv 2311.00636.
    """
    if len(inputs) == 0 or len(projections) != len(inputs):
        raise ValueError(
            f"{len(inputs)} inputs, {len(projections)} projections; give as many, at least one"
        )
    totals = None
    for start in range(0, len(inputs), batch_size):
        rows = slice(start, start + batch_size)
        sums = _sums(model, params, inputs[rows], projections[rows])
        totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
    return jax.tree.map(lambda total: total / len(inputs), totals)


@functools.partial(jax.jit, static_argnums=0)
def _sums(model: nn.Module, params: Any, inputs: Array, projections: Array) -> Any:
    """The factors, summed over inputs."""
    leaves = flatten(params)

    def watched(params: Any, probes: Any, example: Array) -> tuple[Array, dict[str, Array]]:
        variables = {"params": params, "perturbations": probes}
        with nn.intercept_methods(_watch):
            outputs, seen = model.apply(variables, example[None], mutable=["intermediates"])
        return outputs[0], flatten(seen["intermediates"])

    with nn.intercept_methods(_watch):
        shapes = jax.eval_shape(model.init, jax.random.key(0), inputs[:1])["perturbations"]
    probes = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    layers = [path.removesuffix("/outputs") for path in flatten(probes)]
    in_layers = {f"{layer}/{name}" for layer in layers for name in ("kernel", "bias")}
    vectors = {
        path: leaf
        for path, leaf in leaves.items()
        if path not in in_layers and (leaf.ndim == 1 or path.rsplit("/", 1)[-1] in VECTORS)
    }

    def one(example: Array, projection: Array) -> tuple[Any, Any, Any]:
        def run(vectors: Any, probes: Any) -> Any:
            return watched(replace(params, unflatten(vectors)), probes, example)

        _, pull, seen = jax.vjp(run, vectors, probes, has_aux=True)
        slopes, owed = pull(projection)
        return slopes, flatten(owed), seen

    slopes, owed, seen = jax.vmap(one)(inputs, projections)
    factors = {}
    for layer in layers:
        stack = leaves[f"{layer}/kernel"].shape[:-2]
        read = _tokens(seen[f"{layer}/inputs/0"], stack)
        if f"{layer}/bias" in leaves:
            read = jnp.concatenate([read, jnp.ones_like(read[..., :1])], axis=-1)
        tokens = read.shape[-2] // len(inputs)
        outputs = _gram(_tokens(owed[f"{layer}/outputs"], stack))
        factors[layer] = Kronecker(_gram(read) / tokens, outputs)
    for path, slope in slopes.items():
        outputs = _gram(jnp.moveaxis(slope, 0, -2))
        ones = jnp.ones((*outputs.shape[:-2], 1, 1), outputs.dtype)
        factors[path] = Kronecker(len(inputs) * ones, outputs)
    return factors


def _watch(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Keeps what a linear layer reads, and adds a zero to its outputs, to be differentiated by."""
    outputs = method(*args, **kwargs)
    if not isinstance(context.module, nn.Dense) or context.method_name != "__call__":
        return outputs
    context.module.sow("intermediates", "inputs", args[0])
    return context.module.perturb("outputs", outputs)


def _tokens(values: Array, stack: tuple[int, ...]) -> Array:
    """(images, *stack, ..., features) -> (*stack, images x tokens, features)."""
    flat = values.reshape(len(values), *stack, -1, values.shape[-1])
    moved = jnp.moveaxis(flat, 0, len(stack))
    return moved.reshape(*stack, -1, values.shape[-1])


def _gram(rows: Float[Array, "*k n m"]) -> Float[Array, "*k m m"]:
    return jnp.einsum("...ni,...nj->...ij", rows, rows, precision="highest")
