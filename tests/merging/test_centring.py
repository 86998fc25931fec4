"""CART against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj


def oracle(values, fraction, scale):
    middle = values.mean(axis=0)
    rank = max(1, int(fraction * min(values.shape[1:])))
    total = middle.copy()
    for value in values:
        left, singular, right = np.linalg.svd(value - middle, full_matrices=False)
        total += scale * left[:, :rank] @ np.diag(singular[:rank]) @ right[:rank]
    return total


def merged(values, merger, **others):
    rows = [{"w": jnp.asarray(value)} for value in values]
    return np.asarray(oj.merge_task_vectors(rows, merger, **others)["w"])


@pytest.mark.parametrize("fraction, scale", [(0.12, 2.0), (0.5, 0.7), (1.0, 3.0), (0.3, 0.0)])
@pytest.mark.parametrize("shape", [(8, 5), (4, 10), (1, 6)])
def test_formula(fraction, scale, shape):
    values = np.random.default_rng(0).normal(size=(4, *shape))
    with jax.enable_x64(True):
        found = merged(values, oj.cart(fraction, scale))
    np.testing.assert_allclose(found, oracle(values, fraction, scale), atol=1e-12)


def test_all_directions_leave_the_mean():
    values = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(merged(values, oj.cart(1.0)), values.mean(axis=0), atol=1e-5)


def test_equal_vectors_stay_what_they_are():
    one = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    np.testing.assert_allclose(merged([one] * 3, oj.cart()), one, atol=1e-5)
    np.testing.assert_allclose(merged([one], oj.cart()), one, atol=1e-6)


def test_leaves_that_are_no_matrices_are_averaged():
    rows = [{"b": jnp.full(3, float(t))} for t in range(3)]
    np.testing.assert_allclose(oj.merge_task_vectors(rows, oj.cart())["b"], 1.0)
