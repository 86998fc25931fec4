"""WUDI against the least-squares problem that it solves, and its steps against Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj


def matrices(tasks, shape, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    if rank is None:
        return rng.normal(size=(tasks, *shape))
    left, right = rng.normal(size=(tasks, shape[0], rank)), rng.normal(size=(tasks, rank, shape[1]))
    return left @ right


def merged(values, merger):
    return np.asarray(oj.merge_task_vectors([{"w": jnp.asarray(v)} for v in values], merger)["w"])


def least_squares(values):
    """The minimum of sum_t ||tau_t^T (tau - tau_t)||^2 / ||tau_t||^2, of least norm."""
    scaled = [value.T / np.linalg.norm(value) for value in values]
    targets = [own @ value for own, value in zip(scaled, values, strict=True)]
    return np.linalg.lstsq(np.concatenate(scaled), np.concatenate(targets), rcond=1e-10)[0]


def loss(tau, values):
    return sum(np.sum((v.T @ (tau - v)) ** 2) / np.sum(v**2) for v in values)


@pytest.mark.parametrize(
    "shape, rank", [((6, 4), None), ((4, 9), None), ((12, 5), 2), ((1, 3), None)]
)
@pytest.mark.parametrize("tasks", [2, 4])
def test_it_is_the_least_squares_solution(shape, rank, tasks):
    values = matrices(tasks, shape, rank)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            merged(values, oj.wudi()), least_squares(values), rtol=1e-8, atol=1e-9
        )


def test_nothing_near_it_interferes_less():
    values, rng = matrices(3, (6, 4)), np.random.default_rng(1)
    with jax.enable_x64(True):
        tau = merged(values, oj.wudi())
    for _ in range(20):
        assert loss(tau + 1e-3 * rng.normal(size=tau.shape), values) > loss(tau, values)
    assert loss(tau, values) < loss(values.sum(axis=0), values)


def test_tasks_of_different_inputs_are_merely_added():
    values = matrices(2, (6, 4))
    values[0, 3:], values[1, :3] = 0, 0  # which a task did not change
    with jax.enable_x64(True):
        np.testing.assert_allclose(merged(values, oj.wudi()), values.sum(axis=0), atol=1e-10)


def test_a_zero_vector_takes_no_part_and_one_stays_itself():
    values = matrices(2, (5, 3)).astype(np.float32)
    alone = merged(values, oj.wudi())
    beside = merged(np.concatenate([values, np.zeros((1, 5, 3), np.float32)]), oj.wudi())
    np.testing.assert_allclose(beside, alone, atol=1e-5)
    np.testing.assert_allclose(merged(values[:1], oj.wudi()), values[0], atol=1e-5)


@pytest.mark.parametrize("traced", [False, True])
def test_steps_are_those_of_adam(traced):
    values = 1e-3 * matrices(3, (6, 4))
    steps, rate = 40, 1e-4
    tau = values.sum(axis=0)
    first = second = np.zeros_like(tau)
    for count in range(1, steps + 1):
        slope = sum(2 * v @ (v.T @ (tau - v)) / np.sum(v**2) for v in values)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        size = np.sqrt(second / (1 - 0.999**count)) + 1e-8
        tau = tau - rate * first / (1 - 0.9**count) / size
    with jax.enable_x64(True):
        rows = [{"w": jnp.asarray(v)} for v in values]
        merge = lambda rows: oj.merge_task_vectors(rows, oj.wudi(steps, rate))["w"]  # noqa: E731
        found = (jax.jit(merge) if traced else merge)(rows)
        np.testing.assert_allclose(found, tau, rtol=1e-9, atol=1e-12)


def test_many_steps_approach_the_minimum():
    values = matrices(3, (6, 4))
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            merged(values, oj.wudi(20000, 1e-3)), merged(values, oj.wudi()), atol=2e-3
        )
