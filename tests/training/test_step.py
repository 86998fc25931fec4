"""The train step against one written out here, and its guards."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from orthoreg_jax.arithmetic.rules import Matrix, Skip
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.training.modes import full
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

FULL = full()
RULES = {"stack": Matrix(), "bias": Skip("a bias")}


def apply(params, pixels):
    x = pixels.reshape(len(pixels), -1)
    for kernel in params["stack"]:
        x = jnp.tanh(x @ kernel)
    return x + params["bias"]


def normalize(images):
    return images.astype(jnp.float32) / 255


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    params0 = {
        "stack": jnp.asarray(rng.normal(size=(2, 12, 12)) / 4, jnp.float32),
        "bias": jnp.zeros(12),
    }
    head = Head(jnp.asarray(rng.normal(size=(5, 12)), jnp.float32), jnp.int32(3))
    images = jnp.asarray(rng.integers(0, 255, (8, 2, 2, 3)), jnp.uint8)
    labels = jnp.asarray(rng.integers(0, 3, 8))
    return params0, head, images, labels


def run(problem, penalty, steps=5, optimizer=None):
    params0, head, images, labels = problem
    optimizer = optimizer or make_optimizer(1e-2, 2, 20, 0.1, 1.0)
    step = make_train_step(FULL, apply, optimizer, normalize, penalty)
    key = jax.random.key(0)
    state = init_state(FULL, optimizer, params0, key)
    history = []
    for _ in range(steps):
        state, metrics = step(state, params0, head, images, labels)
        history.append(jax.device_get(metrics))
    return state, history, step


@pytest.mark.parametrize("strength, form", [(0.0, "released"), (0.5, "released"), (0.1, "paper")])
def test_equals_a_loop_written_out(problem, strength, form):
    params0, head, images, labels = problem
    penalty = (orthogonality(strength, form, RULES),) if strength else ()
    state, history, step = run(problem, penalty)

    def loss(params):
        features = apply(params, images / 255)
        features /= jnp.linalg.norm(features, axis=1, keepdims=True)
        logits = features @ head.weights[:3].T  # the padding of the head does not count
        value = -jax.nn.log_softmax(logits)[jnp.arange(8), labels].mean()
        for new, old in zip(params["stack"], params0["stack"], strict=True):
            squared = jnp.sum(((new - old).T @ (new - old) - jnp.eye(12)) ** 2)
            value += strength * (jnp.sqrt(squared) if form == "released" else squared)
        return value

    def schedule(count):  # 2 steps of warm-up, 20 in all
        falling = 0.5 * (1 + jnp.cos(jnp.pi * (count - 2) / 18))
        return 1e-2 * jnp.where(count < 2, (count + 1) / 2, falling)

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1))
    params, opt_state = params0, optimizer.init(params0)
    for metrics in history:
        np.testing.assert_allclose(
            metrics.loss + strength * metrics.penalty, loss(params), rtol=1e-5
        )
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        params = optax.apply_updates(params, updates)
    for ours, theirs in zip(*map(jax.tree.leaves, (state.trainable, params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert int(state.step) == 5


def test_one_compilation_serves_tasks_of_different_size(problem):
    params0, head, images, labels = problem
    state, _, step = run(problem, (orthogonality(1.0, "released", RULES),), steps=1)
    for classes in (2, 5):
        other = Head(head.weights * classes, jnp.int32(classes))
        state, _ = step(state, params0, other, images, labels % classes)
    assert step._cache_size() == 1


@pytest.mark.parametrize("precision", ["highest", "default"])
def test_the_penalty_has_a_precision_of_its_own(problem, precision):
    params0, head, images, labels = problem
    optimizer = make_optimizer(1e-2, 2, 20, 0.1, 1.0)
    state = init_state(FULL, optimizer, params0, jax.random.key(0))
    penalty = orthogonality(1.0, "released", RULES, precision)
    with jax.default_matmul_precision("high"):  # of the model
        step = make_train_step(FULL, apply, optimizer, normalize, (penalty,))
        text = step.lower(state, params0, head, images, labels).as_text()
    # Gram matrix and gradient; nothing else in the step has a default precision.
    assert text.count("precision = [DEFAULT, DEFAULT]") == (2 if precision == "default" else 0)
    assert text.count("precision = [HIGH, HIGH]") > 0


@pytest.mark.parametrize("spoil", ["head", "explode"])
def test_a_step_that_is_not_finite_changes_nothing(problem, spoil):
    params0, head, images, labels = problem
    optimizer = make_optimizer(1e-2, 2, 20, 0.1, 1.0)
    step = make_train_step(FULL, apply, optimizer, normalize, (orthogonality(1.0, "paper", RULES),))
    key = jax.random.key(0)
    state = init_state(FULL, optimizer, params0, key)
    state, _ = step(state, params0, head, images, labels)
    before = jax.device_get(state)
    if spoil == "head":
        bad = Head(head.weights.at[0, 0].set(jnp.nan), head.classes)
        state, metrics = step(state, params0, bad, images, labels)
    else:  # the penalty overflows: squares of 1e38
        far = jax.tree.map(lambda leaf: leaf - 1e19, params0)
        state, metrics = step(state, far, head, images, labels)
    assert not metrics.finite
    for old, new in zip(*map(jax.tree.leaves, (before[2:], state[2:])), strict=True):
        np.testing.assert_array_equal(old, new)
    # Nor does any step after it, so that what is saved later is still the last good state.
    state, metrics = step(state, params0, head, images, labels)
    assert not metrics.finite and int(state.step) == 1 and not state.finite
    np.testing.assert_array_equal(before.trainable["stack"], state.trainable["stack"])


def test_pretrained_weights_survive_donation(problem):
    params0 = problem[0]
    before = jax.device_get(params0)
    run(problem, (orthogonality(1.0, "released", RULES),))
    np.testing.assert_array_equal(before["stack"], params0["stack"])
