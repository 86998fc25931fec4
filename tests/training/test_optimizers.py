"""Muon as the optimiser of fine-tuning: its step against NumPy, and what it acts on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from orthoreg_jax.training.step import make_optimizer

RATE, DECAY = 1e-2, 0.1
SHAPES = {"blocks": {"kernel": (2, 6, 10), "bias": (2, 10)}, "projection": {"kernel": (5, 3)},
          "position_embedding": (4, 6), "in_proj": {"a": (2, 6, 2), "b": (2, 2, 9)}}  # fmt: skip


def draw(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def updates(kind, seed=1, scale=1.0):
    params = draw(0)
    optimizer = make_optimizer(RATE, 0, 100, DECAY, 1.0, kind)
    gradients = jax.tree.map(lambda leaf: scale * leaf, draw(seed))
    return params, gradients, optimizer.update(gradients, optimizer.init(params), params)[0]


def newton_schulz(matrix):
    """Five steps of the quintic iteration, on the smaller side's Gram matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = np.float64(matrix) / np.linalg.norm(matrix)
    turned = x.shape[0] > x.shape[1]
    x = x.T if turned else x
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if turned else x


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_kernels_get_an_orthonormal_step_of_adams_size(scale):
    params, gradients, found = updates("muon", scale=scale)
    for path in (
        ("blocks", "kernel"),
        ("projection", "kernel"),
        ("in_proj", "a"),
        ("in_proj", "b"),
    ):
        weights, slopes, own = (tree[path[0]][path[1]] for tree in (params, gradients, found))
        layers = [(np.asarray(x).reshape(-1, *x.shape[-2:])) for x in (weights, slopes, own)]
        for weight, slope, step in zip(*layers, strict=True):
            size = 0.2 * np.sqrt(max(slope.shape))
            expected = -RATE * (size * newton_schulz(slope) + DECAY * weight)
            np.testing.assert_allclose(step, expected, rtol=2e-3, atol=1e-5)


def test_everything_else_is_updated_by_adamw():
    _, _, muon = updates("muon")
    _, _, adamw = updates("adamw")
    np.testing.assert_allclose(muon["position_embedding"], adamw["position_embedding"], rtol=1e-5)
    np.testing.assert_allclose(muon["blocks"]["bias"], adamw["blocks"]["bias"], rtol=1e-5)
    assert np.abs(muon["blocks"]["kernel"] - adamw["blocks"]["kernel"]).max() > 1e-3


def test_entries_are_about_as_large_as_adams():
    rms = [np.sqrt(np.mean(np.square(updates(kind)[2]["blocks"]["kernel"]))) for kind in
           ("muon", "adamw")]  # fmt: skip
    assert 0.1 < rms[0] / rms[1] < 0.5  # of a first step of Adam's, whose entries are all 1


def test_it_lowers_a_loss():
    params, target = draw(0), draw(2)
    optimizer = make_optimizer(2e-1, 5, 200, 0.0, 1.0, "muon")  # steps of 0.04 an entry

    def loss(params):
        parts = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), params, target)
        return sum(jax.tree.leaves(parts))

    @jax.jit
    def step(params, state):
        change, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, change), state

    state, before = optimizer.init(params), loss(params)
    for _ in range(200):
        params, state = step(params, state)
    assert loss(params) < 0.05 * before
