"""SLERP and Model Stock against their formulas in NumPy, and where angles are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj

RULES = {"stack": oj.Matrix()}
SHAPES = {"stack": (2, 4, 3), "w": (5, 2), "bias": (3,), "scalar": ()}


def vector(seed, dtype=jnp.float64):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s), dtype) for name, s in SHAPES.items()}


def tensors(rows, name):
    """The (t, ...) tensors of a leaf: each matrix of the stack is one."""
    values = np.stack([np.asarray(row[name], np.float64) for row in rows])
    return [values[:, layer] for layer in range(2)] if name == "stack" else [values]


def merged(rows, merger):
    return oj.merge_task_vectors(rows, merger, matrices=RULES)


def slerp_oracle(values, t):
    a, b = (value / np.linalg.norm(value) for value in values)
    cosine = np.clip((a * b).sum(), -1, 1)
    if abs(cosine) > 0.9995:
        return (1 - t) * values[0] + t * values[1]
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * values[0] + np.sin(t * angle) * values[1]) / np.sin(angle)


def stock_oracle(values):
    flat = values.reshape(len(values), -1)
    units = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    pairs = [units[i] @ units[j] for i in range(len(units)) for j in range(i)]
    cosine = max(0.0, float(np.mean(pairs)))
    ratio = len(values) * cosine / (1 + (len(values) - 1) * cosine)
    return ratio * values.mean(axis=0)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_of_each_tensor(t):
    with jax.enable_x64(True):
        rows = [vector(0), vector(1)]
        found = merged(rows, oj.slerp(t))
        for name in SHAPES:
            expected = [slerp_oracle(values, t) for values in tensors(rows, name)]
            np.testing.assert_allclose(found[name], np.reshape(expected, SHAPES[name]), atol=1e-12)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_model_stock_of_each_tensor(tasks):
    with jax.enable_x64(True):
        shared = vector(9)
        rows = [jax.tree.map(lambda a, b: a + b, shared, vector(seed)) for seed in range(tasks)]
        found = merged(rows, oj.model_stock())
        for name in SHAPES:
            expected = [stock_oracle(values) for values in tensors(rows, name)]
            np.testing.assert_allclose(found[name], np.reshape(expected, SHAPES[name]), atol=1e-12)


def test_orthogonal_vectors():
    rows = [{"w": jnp.array([[2.0, 0.0]])}, {"w": jnp.array([[0.0, 2.0]])}]
    half = np.sqrt(2.0)  # on the circle of radius 2
    np.testing.assert_allclose(merged(rows, oj.slerp())["w"], [[half, half]], rtol=1e-6)
    np.testing.assert_allclose(merged(rows, oj.slerp(1.0))["w"], [[0, 2]], atol=1e-6)
    np.testing.assert_array_equal(merged(rows, oj.model_stock())["w"], [[0, 0]])


def test_angles_that_are_none():
    one, zero = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.zeros(2)}
    minus = {"w": jnp.array([-3.0, -4.0])}
    for other, expected in ((one, [3, 4]), (zero, [1.5, 2]), (minus, [0, 0])):
        np.testing.assert_allclose(merged([one, other], oj.slerp())["w"], expected, atol=1e-6)
    np.testing.assert_allclose(merged([one, one, one], oj.model_stock())["w"], [3, 4], rtol=1e-6)
    np.testing.assert_allclose(merged([one], oj.model_stock())["w"], [3, 4])
    for other in (zero, minus):  # which would not be asked to point backwards
        np.testing.assert_array_equal(merged([one, other], oj.model_stock())["w"], 0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scales_near_the_ends_of_float32(scale):
    for merger in (oj.slerp(0.3), oj.model_stock()):
        rows = [{"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([2.0, 1.5])}]
        long = [{"w": row["w"] * scale} for row in rows]
        expected = np.asarray(merged(rows, merger)["w"], np.float64) * scale
        np.testing.assert_allclose(merged(long, merger)["w"], expected, rtol=1e-5)


@pytest.mark.parametrize("tasks", [1, 3])
def test_slerp_is_of_two(tasks):
    said = rf"slerp\(t=0.5\) merges 2 task vectors, and there are {tasks}; give 2, or merge by"
    with pytest.raises(ValueError, match=said):
        merged([vector(0, jnp.float32)] * tasks, oj.slerp())
