"""Kronecker factors (KFAC) of a linen model: what its layers read, and what its outputs owe them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from orthoreg_jax.arithmetic.kronecker import Kronecker
from orthoreg_jax.arithmetic.matrices import VECTORS
from orthoreg_jax.arithmetic.paths import flatten, replace, unflatten


def kronecker_factors(
    model: nn.Module,
    params: Any,
    inputs: Float[Array, "b ..."],
    key: PRNGKeyArray,
    batch_size: int = 32,
) -> dict[str, Kronecker]:
    """Factors of E_x[J(x)^T J(x)], the curvature of the squared loss on the model's outputs.

    With v ~ N(0, I) drawn once for each image, and g the derivative of v^T f(x) by a layer's
    outputs: A = E[a a^T] over images and tokens, B = E_x[sum over tokens of g g^T] ("expand").
    Vectors (of layer norms, the class embedding) have A = 1 and B = E_x[g g^T], g by the vector
    itself. Convolutions and position embeddings have no factors.

    Args:
      model: whose linear layers are `nn.Dense`; a stack made by `nn.scan` needs "perturbations"
        and "intermediates" among its `variable_axes`.
      params: where it is taken: pre-trained ones.
      inputs: a few hundred do.
      key: of the draws.
      batch_size: inputs that are computed at once.

    Returns:
      By path of a layer or vector; for `kronecker_penalty`.

    Reference: arXiv 2602.17385; "expand": arXiv 2311.00636.
    """
    totals, count = None, len(inputs)
    if count == 0:
        raise ValueError("no input to measure the curvature on; give at least one")
    for number, start in enumerate(range(0, count, batch_size)):
        part = inputs[start : start + batch_size]
        sums = _sums(model, params, part, jax.random.fold_in(key, number))
        totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
    return jax.tree.map(lambda total: total / count, totals)


@functools.partial(jax.jit, static_argnums=0)
def _sums(model: nn.Module, params: Any, inputs: Any, key: Any) -> dict[str, Kronecker]:
    leaves = flatten(params)

    def watched(params: Any, probes: Any, example: Any) -> Any:
        with nn.intercept_methods(_watch):
            variables = {"params": params, "perturbations": probes}
            outputs, seen = model.apply(variables, example[None], mutable=["intermediates"])
        return outputs[0], {path: leaf for path, leaf in flatten(seen["intermediates"]).items()}

    with nn.intercept_methods(_watch):
        shapes = jax.eval_shape(model.init, key, inputs[:1])["perturbations"]
    probes = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    layers = [path.removesuffix("/outputs") for path in flatten(probes)]
    of_layers = {f"{layer}/{name}" for layer in layers for name in ("kernel", "bias")}
    vectors = {
        path: leaf
        for path, leaf in leaves.items()
        if path not in of_layers and (leaf.ndim == 1 or path.rsplit("/", 1)[-1] in VECTORS)
    }

    def one(example: Any, draw: Any) -> Any:
        def run(vectors: Any, probes: Any) -> Any:
            return watched(replace(params, unflatten(vectors)), probes, example)

        _, pull, seen = jax.vjp(run, vectors, probes, has_aux=True)
        slopes, probed = pull(draw)
        return slopes, flatten(probed), seen

    size = jax.eval_shape(lambda: watched(params, probes, inputs[0]))[0].shape
    draws = jax.random.normal(key, (len(inputs), *size))
    slopes, probed, seen = jax.vmap(one)(inputs, draws)

    found = {}
    for layer in layers:
        kernel = leaves[f"{layer}/kernel"]
        read, owed = seen[f"{layer}/inputs/0"], probed[f"{layer}/outputs"]
        stack = kernel.shape[:-2]
        read, owed = (_tokens(values, stack) for values in (read, owed))
        if f"{layer}/bias" in leaves:
            read = jnp.concatenate([read, jnp.ones_like(read[..., :1])], axis=-1)
        tokens = read.shape[-2] // len(inputs)
        found[layer] = Kronecker(_gram(read) / tokens, _gram(owed))
    for path, slope in slopes.items():
        outputs = _gram(jnp.moveaxis(slope, 0, -2))
        found[path] = Kronecker(jnp.full((*outputs.shape[:-2], 1, 1), 1.0 * len(inputs)), outputs)
    return found


def _watch(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Keeps what a linear layer reads, and adds a zero to its outputs, to be differentiated by."""
    outputs = method(*args, **kwargs)
    if not isinstance(context.module, nn.Dense) or context.method_name != "__call__":
        return outputs
    context.module.sow("intermediates", "inputs", args[0])
    return context.module.perturb("outputs", outputs)


def _tokens(values: Float[Array, "b ..."], stack: tuple[int, ...]) -> Float[Array, "..."]:
    """(images, *stack, ..., features) -> (*stack, images x tokens, features)."""
    flat = values.reshape(len(values), *stack, -1, values.shape[-1])
    moved = jnp.moveaxis(flat, 0, len(stack))
    return moved.reshape(*stack, -1, values.shape[-1])


def _gram(rows: Float[Array, "*k n m"]) -> Float[Array, "*k m m"]:
    return jnp.einsum("...ni,...nj->...ij", rows, rows, precision="highest")
