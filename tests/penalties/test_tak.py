"""Quadratic forms with Kronecker factors against the trace formula in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from orthoreg_jax import Kronecker, LowRank, dense, kronecker_penalty, merge_kronecker

# (layers, m, n): tall, wide, one column, one stack of several.
SHAPES = [((), 7, 4), ((3,), 4, 7), ((), 5, 1), ((2, 2), 3, 6)]


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def random_factors(stack, m, n, seed=0):
    left, right = draw(*stack, m, m + 2, seed=seed), draw(*stack, n, n + 2, seed=seed + 1)
    return Kronecker(left @ jnp.swapaxes(left, -1, -2), right @ jnp.swapaxes(right, -1, -2))


def trace(update, factors):
    """sum tr(dW^T A dW B), one matrix after another."""
    update, inputs, outputs = (np.asarray(x, np.float64) for x in (update, *factors))
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (update, inputs, outputs))
    return sum(np.trace(w.T @ a @ w @ b) for w, a, b in zip(*flat, strict=True))


@pytest.mark.parametrize("stack, m, n", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradient_are_the_formula(stack, m, n, bias):
    factors = random_factors(stack, m + 1, n)
    layer = {"kernel": draw(*stack, m, n)} | ({"bias": draw(*stack, n)} if bias else {})
    others = {"scale": draw(*stack, n), "frozen": draw(2, 2, 2)}
    vector = random_factors(stack, 1, n, seed=3)
    given = {"a/layer": factors, "scale": vector, "a/absent": factors}

    def penalty(delta):
        return kronecker_penalty(delta, given)

    delta = {"a": {"layer": layer}} | others
    value, slope = jax.jit(jax.value_and_grad(penalty))(delta)
    rows = [layer["kernel"], *([layer["bias"][..., None, :]] if bias else [])]
    update, count = np.concatenate(rows, axis=-2), m + bias
    cut = Kronecker(factors.inputs[..., :count, :count], factors.outputs)
    expected = trace(update, cut) + trace(others["scale"][..., None, :], vector)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    gradient = 2 * np.asarray(cut.inputs, np.float64) @ update @ np.asarray(cut.outputs)
    size = np.abs(gradient).max()
    np.testing.assert_allclose(
        slope["a"]["layer"]["kernel"], gradient[..., :m, :], atol=1e-5 * size
    )
    if bias:
        np.testing.assert_allclose(
            slope["a"]["layer"]["bias"], gradient[..., m, :], atol=1e-5 * size
        )
    assert not np.any(slope["frozen"])
    zero = jax.tree.map(jnp.zeros_like, delta)
    assert penalty(zero) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.grad(penalty)(zero)))


def test_a_bias_alone_meets_the_last_row_of_the_inputs():
    factors, bias = random_factors((2,), 4, 3), draw(2, 3)
    last = Kronecker(factors.inputs[:, -1:, -1:], factors.outputs)
    value = kronecker_penalty({"x": {"bias": bias}}, {"x": factors})
    np.testing.assert_allclose(value, trace(bias[:, None], last), rtol=1e-5)


def test_value_and_gradient_take_two_matrix_products():
    factors, delta = {"x": random_factors((), 6, 4)}, {"x": {"kernel": draw(6, 4)}}
    text = str(jax.make_jaxpr(jax.value_and_grad(kronecker_penalty))(delta, factors))
    assert text.count("dot_general") == 2


@pytest.mark.parametrize("stack", [(), (2,)])
def test_low_rank_updates_are_never_multiplied_out(stack):
    update = LowRank(draw(*stack, 48, 2), draw(*stack, 2, 96), 0.5)
    factors = {"x": random_factors(stack, 49, 96)}  # with a row for a bias, which LoRA has not

    def penalty(update):
        return kronecker_penalty({"x": {"kernel": update}}, factors)

    value, slope = jax.value_and_grad(penalty)(update)
    expected, gradient = jax.value_and_grad(lambda u: penalty(dense(u)))(update)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (slope, gradient)), strict=True):
        assert jnp.linalg.norm(ours - theirs) < 1e-5 * jnp.linalg.norm(theirs)
    assert "48,96]" not in str(jax.make_jaxpr(jax.value_and_grad(penalty))(update))


def test_merging_is_exact_for_tasks_that_share_a_factor_and_the_mean_times_the_sum_otherwise():
    delta = {"x": {"kernel": draw(5, 4)}}
    first, second = random_factors((), 5, 4), random_factors((), 5, 4, seed=7)
    for shared in (
        Kronecker(first.inputs, second.outputs),
        Kronecker(second.inputs, first.outputs),
    ):
        both = [{"x": first}, {"x": shared}]
        apart = sum(kronecker_penalty(delta, each) for each in both)
        np.testing.assert_allclose(
            kronecker_penalty(delta, merge_kronecker(both)), apart, rtol=1e-5
        )
    merged = merge_kronecker([{"x": first}, {"x": second}])["x"]
    np.testing.assert_allclose(merged.inputs, (first.inputs + second.inputs) / 2, rtol=1e-5)
    np.testing.assert_allclose(merged.outputs, first.outputs + second.outputs, rtol=1e-5)


def test_what_does_not_fit_is_said():
    factors = {"layer": random_factors((), 3, 2)}
    with pytest.raises(
        ValueError, match="none matches the update; they are for layer, .* are other"
    ):
        kronecker_penalty({"other": {"kernel": draw(3, 2)}}, factors)
    with pytest.raises(ValueError, match="factors of 0 tasks"):
        merge_kronecker([])
    with pytest.raises(ValueError, match="all with the same layers"):
        merge_kronecker([factors, {"another": factors["layer"]}])
