"""Sensitivities against perturbed features, overlaps by hand, tau-Jacobian by differences."""

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.evaluation.specialisation import (
    feature_sensitivity,
    mean_overlap,
    specialisation,
    tau_jacobian_norm,
)

RNG = np.random.default_rng(0)
PARAMS = {
    "blocks": {
        "mlp": {"fc1": {"kernel": RNG.normal(size=(2, 12, 12)), "bias": RNG.normal(size=(2, 12))}},
        "norm1": {"bias": RNG.normal(size=(2, 12))},
    }
}
HEAD = RNG.normal(size=(4, 12))
IMAGES, LABELS = RNG.normal(size=(7, 2, 2, 3)), RNG.integers(0, 3, 7)


def network(kernels, biases, x):
    for kernel, bias in zip(kernels, biases, strict=True):
        x = np.tanh(x @ kernel + bias)
    return x


def apply(params, pixels):
    x = pixels.reshape(len(pixels), -1)
    layer = params["blocks"]["mlp"]["fc1"]
    for number in range(2):
        x = jnp.tanh(x @ layer["kernel"][number] + layer["bias"][number])
    return x


def test_sensitivity_is_the_mean_absolute_slope_of_the_margin():
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
    head = Head(jnp.asarray(HEAD, jnp.float32), jnp.int32(3))  # its last row is padding
    found = feature_sensitivity(
        apply,
        params,
        head,
        jnp.asarray(IMAGES, jnp.float32),
        LABELS,
        batch_size=3,
        features=("blocks/mlp/*/bias",),
    )
    assert list(found) == ["blocks/mlp/fc1/bias"]
    kernels = PARAMS["blocks"]["mlp"]["fc1"]["kernel"]
    biases = PARAMS["blocks"]["mlp"]["fc1"]["bias"]

    def margins(biases):
        features = network(kernels, biases, IMAGES.reshape(7, -1))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        logits = features @ HEAD[:3].T
        right = logits[np.arange(7), LABELS]
        others = np.exp(logits).sum(axis=1) - np.exp(right)
        return right - np.log(others)

    expected = np.zeros((2, 12))
    for place in np.ndindex(2, 12):
        step = np.zeros((2, 12))
        step[place] = 1e-5
        slopes = (margins(biases + step) - margins(biases - step)) / 2e-5
        expected[place] = np.abs(slopes).mean()
    np.testing.assert_allclose(found["blocks/mlp/fc1/bias"], expected, rtol=1e-3, atol=1e-6)


def test_overlaps_by_hand():
    tasks = {
        "a": {"w": np.array([[2.0, 0.0, 2.0], [1.0, 1.0, 0.0]])},
        "b": {"w": np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 5.0]])},
        "c": {"w": np.array([[0.0, 3.0, 3.0], [1.0, 0.0, 1.0]])},
    }
    overlaps = specialisation(tasks)
    np.testing.assert_allclose(overlaps["w"][0, 1], [1.0, 0.0])  # alike; disjoint
    np.testing.assert_allclose(overlaps["w"][0, 2], [0.5 / 1.5, 0.5 / 1.5])
    np.testing.assert_allclose(overlaps["w"], overlaps["w"].swapaxes(0, 1))
    np.testing.assert_allclose(overlaps["w"][1, 1], 1.0)
    # Pairs ab, ac, bc: (1 + 0) / 2, 1/3, (1/3 + 1/3) / 2.
    np.testing.assert_allclose(mean_overlap(overlaps), np.mean([0.5, 1 / 3, 1 / 3]))


def test_tau_jacobian_against_differences():
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
    change = RNG.normal(size=(2, 12))
    vector = {"blocks": {"mlp": {"fc1": {"bias": jnp.asarray(change, jnp.float32)}}}}
    found = tau_jacobian_norm(apply, params, vector, jnp.asarray(IMAGES, jnp.float32))
    layer = PARAMS["blocks"]["mlp"]["fc1"]
    x = IMAGES.reshape(7, -1)
    ahead, behind = (
        network(layer["kernel"], layer["bias"] + step * change, x) for step in (1e-5, -1e-5)
    )
    expected = np.linalg.norm((ahead - behind) / 2e-5, axis=1).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-3)
