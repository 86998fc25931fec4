"""Kronecker factors of linen models against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from orthoreg_jax import kronecker_factors, kronecker_penalty, tau_jacobian_penalty
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip.config import VisionConfig
from orthoreg_jax.clip.modules import VisionTransformer


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("bias", [True, False])
def test_exact_for_one_layer_and_one_input(bias):
    """Projections of E[v v^T] = I, here unit vectors, leave nothing to chance."""
    model = nn.Dense(3, use_bias=bias)
    x = draw(1, 4)
    params = model.init(jax.random.key(0), x)["params"]
    delta = jax.tree.map(lambda leaf: draw(*leaf.shape, seed=5), params)
    factors = kronecker_factors(
        Wrapped(bias), {"only": params}, jnp.repeat(x, 3, axis=0), jnp.sqrt(3.0) * jnp.eye(3), 2
    )
    exact = tau_jacobian_penalty(lambda p, x: model.apply({"params": p}, x), params, delta, x)
    np.testing.assert_allclose(kronecker_penalty({"only": delta}, factors), exact, rtol=1e-5)


def test_exact_of_a_normalised_output():
    model = nn.Dense(3)
    x = draw(1, 4)
    params = model.init(jax.random.key(0), x)["params"]
    delta = jax.tree.map(lambda leaf: draw(*leaf.shape, seed=5), params)
    factors = kronecker_factors(
        Wrapped(True), {"only": params}, jnp.repeat(x, 3, axis=0), jnp.sqrt(3.0) * jnp.eye(3),
        normalized=True,
    )  # fmt: skip

    def unit(params, x):
        outputs = model.apply({"params": params}, x)
        return outputs / jnp.linalg.norm(outputs, axis=-1, keepdims=True)

    exact = tau_jacobian_penalty(unit, params, delta, x)
    np.testing.assert_allclose(kronecker_penalty({"only": delta}, factors), exact, rtol=1e-5)


class Wrapped(nn.Module):
    bias: bool

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, use_bias=self.bias, name="only")(x)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(nn.Dense(3, name="dense")(x)), None


class Stacked(nn.Module):
    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "perturbations": 0, "intermediates": 0}
        stack = nn.scan(Layer, variable_axes=axes, split_rngs={"params": True}, length=2)
        x, _ = stack(name="blocks")(x, None)
        return nn.Dense(2, use_bias=False, name="last")(x[:, 0])


def test_layers_of_a_stack_over_tokens_equal_loops():
    x, projections = draw(5, 4, 3), draw(5, 2)
    model = Stacked()
    params = model.init(jax.random.key(1), x)["params"]
    params["blocks"]["dense"]["bias"] = draw(2, 3, seed=2)
    factors = kronecker_factors(model, params, x, projections, batch_size=2)
    assert set(factors) == {"blocks/dense", "last"}
    kernels, biases = (np.asarray(params["blocks"]["dense"][k], float) for k in ("kernel", "bias"))
    last = np.asarray(params["last"]["kernel"], float)
    inputs, outputs = np.zeros((2, 4, 4)), np.zeros((2, 3, 3))
    end, ends = np.zeros((3, 3)), np.zeros((2, 2))
    for image, v in zip(np.asarray(x, float), np.asarray(projections, float), strict=True):
        read = [image]
        for kernel, bias in zip(kernels, biases, strict=True):
            read.append(np.tanh(read[-1] @ kernel + bias))
        slope = np.zeros((4, 3))
        slope[0] = last @ v  # the first token alone goes on
        end += np.outer(read[2][0], read[2][0])
        ends += np.outer(v, v)
        for layer in (1, 0):
            slope = slope * (1 - read[layer + 1] ** 2)
            for token in range(4):
                a = np.append(read[layer][token], 1)
                inputs[layer] += np.outer(a, a) / 4
                outputs[layer] += np.outer(slope[token], slope[token])
            slope = slope @ kernels[layer].T
    found = factors["blocks/dense"], factors["last"]
    for (ours_a, ours_b), (a, b) in zip(found, ((inputs, outputs), (end, ends)), strict=True):
        np.testing.assert_allclose(ours_a, a / 5, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours_b, b / 5, rtol=1e-4, atol=1e-6)


def test_an_image_tower_has_factors_of_all_layers_and_vectors():
    tower = VisionTransformer(
        VisionConfig(
            width=16,
            layers=2,
            heads=2,
            mlp_width=32,
            activation="gelu",
            eps=1e-5,
            image_size=8,
            patch_size=4,
        ),
        6,
    )
    pixels, projections = draw(3, 8, 8, 3), draw(3, 6)
    params = tower.init(jax.random.key(0), pixels)["params"]
    factors = kronecker_factors(tower, params, pixels, projections)
    layers = {f"blocks/{name}" for name in ("attn/in_proj", "attn/out_proj", "mlp/fc1", "mlp/fc2")}
    norms = {f"{n}/{k}" for n in ("blocks/norm1", "blocks/norm2", "pre_norm", "post_norm")
             for k in ("scale", "bias")}  # fmt: skip
    assert set(factors) == layers | norms | {"projection", "class_embedding"}

    def projected(params, image, v):
        return tower.apply({"params": params}, image[None])[0] @ v

    slopes = flatten(jax.vmap(jax.grad(projected), (None, 0, 0))(params, pixels, projections))
    for path in norms | {"class_embedding"}:
        gram = np.einsum("b...i,b...j->...ij", slopes[path], slopes[path]) / 3
        size = np.abs(gram).max()
        np.testing.assert_allclose(factors[path].outputs, gram, atol=1e-5 * size)
        np.testing.assert_allclose(factors[path].inputs, 1.0)


def test_as_many_projections_as_inputs():
    with pytest.raises(ValueError, match="2 inputs, 1 projections"):
        kronecker_factors(Wrapped(True), {}, draw(2, 4), draw(1, 3))
