"""Kronecker factors (KFAC) of a linen model: moments of layer inputs and output gradients."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.paths import flatten, replace, unflatten
from orthoreg_jax.arithmetic.rules import VECTORS
from orthoreg_jax.arithmetic.types import Params

from .tak import Kronecker


def kronecker_factors(
    model: nn.Module,
    params: Params,
    inputs: Float[Array, "b ..."],
    projections: Float[Array, "n p"],
    batch_size: int = 32,
    normalized: bool = False,
) -> dict[str, Kronecker]:
    """Factors of E_x[J(x)^T J(x)], the curvature of the squared loss on the model's outputs.

    Let v satisfy E[v v^T] = I, let a be a layer's input, and g the gradient of v^T f(x) with
    respect to the layer's output. Then A = E[a a^T] over inputs and tokens, and
    B = E_x[sum over tokens of g g^T] ("expand"). For a vector (a layer norm's, the class
    embedding), A = 1 and B = E_x[g g^T], with g the gradient with respect to the vector itself.
    Convolutions and position embeddings have no factors.

    Args:
      model: a linen module whose linear layers are `nn.Dense`; a stack made by `nn.scan` needs
        "perturbations" and "intermediates" in its `variable_axes`, as in this package's towers.
      params: the pre-trained parameters, at which the curvature is taken.
      inputs: a batch of inputs; a few hundred are enough.
      projections: one v for each input, of the size p of an output, drawn from N(0, I).
      batch_size: number of inputs computed at once.
      normalized: take the curvature of the outputs divided by their norm, as TAK's code does.

    Returns:
      Factors by path of the layer or vector, for `kronecker_penalty`.

    Raises:
      ValueError: there are no inputs, or not exactly one projection for each.

    Reference: arXiv 2602.17385, section 3; "expand": arXiv 2311.00636.

    Examples:
      >>> import flax.linen as nn
      >>> model = nn.Sequential((nn.Dense(2),))
      >>> x, v = jnp.ones((8, 3)), jnp.array([[1.0, 1.0], [1.0, -1.0]] * 4)
      >>> params = model.init(jax.random.key(0), x)["params"]
      >>> for path, factors in oj.kronecker_factors(model, params, x, v).items():
      ...     print(path, factors.inputs.shape, factors.outputs.tolist())
      layers_0 (4, 4) [[1.0, 0.0], [0.0, 1.0]]
    """
    if len(inputs) == 0 or len(projections) != len(inputs):
        raise ValueError(
            f"{len(inputs)} inputs, {len(projections)} projections; give one projection for each "
            "input, and at least one input"
        )
    totals = None
    for start in range(0, len(inputs), batch_size):
        rows = slice(start, start + batch_size)
        sums = _sums(model, normalized, params, inputs[rows], projections[rows])
        totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
    return jax.tree.map(lambda total: total / len(inputs), totals)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sums(
    model: nn.Module, normalized: bool, params: Params, inputs: Array, projections: Array
) -> Any:
    """The factors, summed over one batch of inputs."""
    leaves = flatten(params)

    # One forward pass gives the outputs and every layer's inputs. The probes are zeros added to
    # each layer's outputs, so the gradient by a probe is the gradient by the layer's outputs.
    def watched(params: Params, probes: Any, example: Array) -> tuple[Array, dict[str, Array]]:
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

    # One image at a time, under `vmap`: B needs the gradient of each image separately.
    def one(example: Array, projection: Array) -> tuple[Any, Any, Any]:
        # Kernels are not arguments, because they need factors and no gradients.
        def run(vectors: Any, probes: Any) -> Any:
            return watched(replace(params, unflatten(vectors)), probes, example)

        outputs, pull, seen = jax.vjp(run, vectors, probes, has_aux=True)
        if normalized:
            _, through = jax.vjp(lambda out: out / jnp.linalg.norm(out), outputs)
            (projection,) = through(projection)
        slopes, owed = pull(projection)
        return slopes, flatten(owed), seen

    slopes, owed, seen = jax.vmap(one)(inputs, projections)
    factors = {}
    for layer in layers:
        stack = leaves[f"{layer}/kernel"].shape[:-2]
        read = _tokens(seen[f"{layer}/inputs/0"], stack)
        if f"{layer}/bias" in leaves:  # a bias is the kernel's last row, for a constant input of 1
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
    """Records a linear layer's input, and adds to its output a probe to differentiate by."""
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
