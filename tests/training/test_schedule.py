import jax
import numpy as np
import pytest

from orthoreg_jax.training.schedule import count_warmup, learning_rate, scale_by_warmup_cosine


def fields_rate(peak, warmup, steps, step):
    """The schedule of task arithmetic's published code: no step of the warm-up has rate 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * (1 + np.cos(np.pi * (step - warmup) / (steps - warmup))) * peak


@pytest.mark.parametrize(
    "peak, warmup, steps", [(1e-3, 10, 100), (0.5, 0, 7), (1.0, 3, 4), (1e-5, 500, 2052), (1, 1, 9)]
)
def test_every_rate_is_the_fields(peak, warmup, steps):
    scale = scale_by_warmup_cosine(peak, warmup, steps)
    update, rate_of = jax.jit(scale.update), jax.jit(learning_rate)
    gradient = {"w": np.array([2.0, -1.0], np.float32)}
    state = scale.init(gradient)
    for step in range(steps):
        rate = fields_rate(peak, warmup, steps, step)
        np.testing.assert_allclose(rate_of(state), rate, rtol=1e-5, atol=1e-6 * peak)
        scaled, state = update(gradient, state)
        np.testing.assert_allclose(scaled["w"], -rate * gradient["w"], rtol=1e-5, atol=2e-6 * peak)
    for _ in range(2):  # nothing moves after the end
        np.testing.assert_allclose(rate_of(state), 0, atol=1e-6 * peak)
        _, state = update(gradient, state)


def test_one_compilation_serves_any_length():
    traced = []

    @jax.jit
    def update(updates, state):
        traced.append(updates)
        return scale_by_warmup_cosine(1.0, 1, 10).update(updates, state)

    for steps in (10, 20):
        state = scale_by_warmup_cosine(1.0, 0, steps).init(None)._replace(taken=np.int32(5))
        scaled, _ = update(np.float32(1.0), state)
        np.testing.assert_allclose(scaled, -0.5 * (1 + np.cos(np.pi * 5 / steps)), rtol=1e-5)
    assert len(traced) == 1


@pytest.mark.parametrize(
    "warmup, steps, expected",
    [
        *[(0.1, steps, expected) for steps, expected in ((300, 30), (100, 10), (6, 1), (1, 0))],
        *[(0.0, 7, 0), (0.9, 2, 1), (0.999, 1, 0), (1, 9, 1), (1.0, 9, 1), (500, 2052, 500)],
    ],
)
def test_warmup_is_a_share_below_1_and_steps_from_1_up(warmup, steps, expected):
    assert count_warmup(warmup, steps) == expected
    assert count_warmup(warmup, steps) < steps
