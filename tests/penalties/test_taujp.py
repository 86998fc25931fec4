"""J tau by forward mode against the whole Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from orthoreg_jax import LowRank, tau_jacobian_penalty
from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.arithmetic.paths import flatten


def apply(params, x):
    hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
    return hidden @ params["second"]


@pytest.fixture
def params0():
    normal = np.random.default_rng(0).normal
    return {
        "first": {"kernel": jnp.asarray(normal(size=(4, 5)), jnp.float32), "bias": jnp.ones(5)},
        "second": jnp.asarray(normal(size=(5, 3)), jnp.float32),
    }


@pytest.mark.parametrize("part", ["all", "kernel", "low rank"])
def test_value_and_gradient_are_those_of_the_explicit_jacobian(params0, part):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)
    normal = np.random.default_rng(2).normal
    delta = jax.tree.map(lambda leaf: jnp.asarray(normal(size=leaf.shape), jnp.float32), params0)
    if part == "kernel":
        delta = {"first": {"kernel": delta["first"]["kernel"]}}
    elif part == "low rank":
        left, right = (jnp.asarray(normal(size=s), jnp.float32) for s in ((4, 2), (2, 5)))
        delta = {"first": {"kernel": LowRank(left, right, 0.5)}}
    jacobian = flatten(jax.jacrev(apply)(params0, x))

    def expected(delta):
        moved = sum(
            jnp.tensordot(jacobian[path], leaf, axes=leaf.ndim)
            for path, leaf in flatten(dense(delta)).items()
        )
        return (moved**2).sum(axis=-1).mean()

    value, slope = jax.value_and_grad(tau_jacobian_penalty, argnums=2)(apply, params0, delta, x)
    want, gradient = jax.value_and_grad(expected)(delta)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (slope, gradient)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_nothing_at_no_update(params0):
    zero = jax.tree.map(jnp.zeros_like, params0)
    value, slope = jax.value_and_grad(tau_jacobian_penalty, argnums=2)(
        apply, params0, zero, jnp.ones((2, 4))
    )
    assert value == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


def test_any_pytree_whose_update_is_whole():
    params = [jnp.ones((4, 5)), {"mlp/~/w": jnp.ones((5, 3))}]
    delta = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    value = tau_jacobian_penalty(
        lambda params, x: x @ params[0] @ params[1]["mlp/~/w"], params, delta, jnp.ones((2, 4))
    )
    # J tau = x dA B + x A dB: 2 * 0.1 of each output, which is 20.
    np.testing.assert_allclose(value, 3 * 4.0**2, rtol=1e-5)
