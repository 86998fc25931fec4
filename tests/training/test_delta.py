"""DELTA: its distance, its steps against a loss written out, and what penalties act on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import default_config
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.modes.delta import draw_alpha
from orthoreg_jax.training.modes.mode import Moment, edited_outputs
from orthoreg_jax.training.penalties import Penalty
from orthoreg_jax.training.schedule import scale_by_warmup_cosine
from orthoreg_jax.training.step import init_state, make_train_step

STEPS, RATE, STRENGTH = 4, 0.1, 0.3


def apply(params, inputs):
    return jnp.tanh(inputs @ params["first"]) @ params["second"]


def draw(seed, size=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"first": (6, 6), "second": (6, 4)}
    return {name: jnp.asarray(size * rng.normal(size=shape)) for name, shape in shapes.items()}


def unit(params, inputs):
    features = apply(params, inputs)
    return features / jnp.sqrt(jnp.sum(features**2, axis=-1, keepdims=True))


def moved(params, update, alpha):
    return jax.tree.map(lambda a, b: a + alpha * b, params, update)


def linear(params, update, inputs, alpha, small=1e-5):
    """The expansion around params, by central differences."""
    slope = unit(moved(params, update, small), inputs) - unit(moved(params, update, -small), inputs)
    return unit(params, inputs) + alpha * slope / (2 * small)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.7])
def test_distance(alpha):
    with jax.enable_x64(True):
        params, student, teacher = draw(0), draw(1, 0.3), draw(2, 0.3)
        x = jnp.asarray(np.random.default_rng(3).normal(size=(7, 6)))
        apart = unit(moved(params, student, alpha), x) - linear(params, teacher, x, alpha)
        expected = float(np.mean(np.sum(np.asarray(apart) ** 2, axis=1)))
        found = oj.delta_distance(apply, params, student, teacher, x, alpha)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
        assert (alpha == 0) == (expected < 1e-12)
        pulls = jax.grad(
            lambda s, t: oj.delta_distance(apply, params, s, t, x, alpha), argnums=(0, 1)
        )(student, teacher)
        assert all(not leaf.any() for leaf in jax.tree.leaves(pulls[1]))  # none on the teacher
        assert (alpha == 0) == all(not leaf.any() for leaf in jax.tree.leaves(pulls[0]))


def test_alpha_opens_from_one_to_its_range():
    def at(step, share):
        moment = Moment(jnp.int32(step), jnp.float32(share))
        return float(draw_alpha(moment, 0.5, 2.0, 0.5))

    assert at(0, 0.0) == at(7, 0.0) == 1.0
    quarter = [at(step, 0.25) for step in range(200)]  # sqrt(1/4) = 1/2 of the way
    end = [at(step, 1.0) for step in range(200)]
    assert 0.75 <= min(quarter) < 0.8 and 1.45 < max(quarter) <= 1.5
    assert 0.5 <= min(end) < 0.55 and 1.9 < max(end) <= 2.0
    assert end == [at(step, 1.0) for step in range(200)]


def test_steps_follow_the_loss_written_out():
    with jax.enable_x64(True):
        config = default_config()
        config.delta.weight = 0.7
        mode, params0 = make_mode("delta", config), draw(0)
        curvature = {"first": 2.0, "second": 0.5}

        def form(update):
            return sum(scale * jnp.sum(update[name] ** 2) for name, scale in curvature.items())

        penalty = Penalty(STRENGTH, lambda apply, params0, delta, known: form(delta))
        optimizer = scale_by_warmup_cosine(RATE, 0, STEPS)
        flat = lambda images: jnp.asarray(images, float).reshape(len(images), -1) / 99  # noqa: E731
        step = make_train_step(mode, apply, optimizer, flat, (penalty,))
        state = init_state(mode, optimizer, params0, jax.random.key(0))
        head = Head(jnp.asarray(np.random.default_rng(5).normal(size=(3, 4))), jnp.int32(3))
        rng = np.random.default_rng(6)
        own = {name: dict(params0) for name in ("student", "teacher")}

        def loss(own, x, labels, alpha):
            student, teacher = (
                jax.tree.map(jnp.subtract, own[name], params0) for name in ("student", "teacher")
            )
            first = unit(moved(params0, student, alpha), x)
            second = unit(params0, x)
            second += alpha * jax.jvp(lambda p: unit(p, x), (params0,), (teacher,))[1]
            total = STRENGTH * (form(student) + form(teacher))
            for features in (first, second):
                features = features / jnp.linalg.norm(features, axis=1, keepdims=True)
                logs = jax.nn.log_softmax(features @ head.weights.T)
                total -= jnp.mean(logs[jnp.arange(len(labels)), labels])
            fixed = jax.lax.stop_gradient(second)
            return total + 0.7 * jnp.mean(jnp.sum((first - fixed) ** 2, axis=1))

        for number in range(3):
            images = jnp.asarray(rng.integers(0, 255, (6, 1, 2, 3)), jnp.uint8)
            x = flat(images)
            labels = jnp.asarray(rng.integers(0, 3, 6))
            opened = np.sqrt(number / STEPS)
            alpha = jax.random.uniform(
                jax.random.fold_in(jax.random.key(0), number),
                minval=1 - 0.5 * opened,
                maxval=1 + opened,
            )
            slopes = jax.grad(loss)(own, x, labels, alpha)
            rate = RATE * 0.5 * (1 + np.cos(np.pi * number / STEPS))
            own = jax.tree.map(lambda w, g, rate=rate: w - rate * g, own, slopes)
            state, metrics = step(state, params0, head, images, labels)
            assert metrics.finite
        for ours, theirs in zip(*map(jax.tree.leaves, (state.trainable, own)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
        vector = mode.delta(state.trainable, params0)
        for name, leaf in vector.items():
            np.testing.assert_allclose(leaf, own["student"][name] - params0[name], atol=1e-7)
        assert mode.outputs is edited_outputs
