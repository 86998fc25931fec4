import jax
import numpy as np
import optax
import pytest

from orthoreg_jax.training.schedule import learning_rate, scale_by_warmup_cosine


@pytest.mark.parametrize("peak, warmup, steps", [(1e-3, 10, 100), (0.5, 0, 7), (1.0, 3, 4)])
def test_equals_optax(peak, warmup, steps):
    expected = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)
    ours, theirs = (
        scale_by_warmup_cosine(peak, warmup, steps),
        optax.scale_by_learning_rate(expected),
    )
    params = {"w": np.array([2.0, -1.0], np.float32)}
    states = ours.init(params), theirs.init(params)
    for count in range(steps + 3):
        np.testing.assert_allclose(learning_rate(states[0]), expected(count), rtol=1e-5, atol=1e-9)
        a, first = ours.update(params, states[0])
        b, second = theirs.update(params, states[1])
        np.testing.assert_allclose(a["w"], b["w"], rtol=1e-5, atol=1e-9)
        states = first, second


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
