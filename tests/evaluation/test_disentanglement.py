"""The disentanglement error against its definition, on a network small enough to write out."""

import jax.numpy as jnp
import numpy as np
import pytest

from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.evaluation.accuracy import Evaluator, put_evaluation_set
from orthoreg_jax.evaluation.disentanglement import disentanglement_error
from orthoreg_jax.training.modes.mode import edited_outputs, linearized_outputs
from orthoreg_jax.training.sharding import make_shardings

RNG = np.random.default_rng(0)
PARAMS = RNG.normal(size=(12, 6))
VECTORS = RNG.normal(size=(2, 12, 6))
SETS = []  # (head, images)
for classes, size in ((3, 23), (5, 40)):
    SETS.append((RNG.normal(size=(classes, 6)), RNG.integers(0, 255, (size, 2, 2, 3))))


def apply(params, pixels):
    return jnp.tanh(pixels.reshape(len(pixels), -1) @ params["kernel"])


def features(a, images, linearized):
    x = images.reshape(len(images), -1) / 255 - 0.5
    change = np.tensordot(a, VECTORS, axes=1)
    if linearized:
        before = np.tanh(x @ PARAMS)
        return before + (1 - before**2) * (x @ change)
    return np.tanh(x @ (PARAMS + change))


@pytest.mark.parametrize("linearized", [False, True])
def test_against_the_definition(linearized):
    shardings = make_shardings()
    padded = [np.zeros((5, 6), np.float32) for _ in SETS]
    for head, (weights, _) in zip(padded, SETS, strict=True):
        head[: len(weights)] = weights
    sets = tuple(
        put_evaluation_set(
            Head(jnp.asarray(head), jnp.int32(len(weights))),
            images.astype(np.uint8),
            np.zeros(len(images), int),
            16,
            shardings,
        )
        for head, (weights, images) in zip(padded, SETS, strict=True)
    )
    evaluator = Evaluator(
        apply,
        {"kernel": jnp.asarray(PARAMS, jnp.float32)},
        lambda images: images / 255 - 0.5,
        linearized_outputs if linearized else edited_outputs,
    )
    vectors = tuple({"kernel": jnp.asarray(vector, jnp.float32)} for vector in VECTORS)
    alphas = [-1.0, 0.0, 0.5, 2.0]
    error = disentanglement_error(evaluator, vectors, sets, alphas)
    expected = np.zeros((4, 4))
    for i, a1 in enumerate(alphas):
        for j, a2 in enumerate(alphas):
            for (weights, images), alone in zip(SETS, ((a1, 0), (0, a2)), strict=True):
                both, one = (
                    np.argmax(features(np.array(a), images, linearized) @ weights.T, axis=1)
                    for a in ((a1, a2), alone)
                )
                expected[i, j] += np.mean(both != one)
    np.testing.assert_allclose(error, expected, atol=1e-6)
    assert error.max() > 0.1 and not error[1, 1]
    with pytest.raises(ValueError, match="lack 0"):
        disentanglement_error(evaluator, vectors, sets, [1.0, 2.0])


def test_answers_that_are_not_finite_count_as_changed():
    weights, images = SETS[0]
    head = Head(jnp.asarray(weights, jnp.float32), jnp.int32(3))
    labels = np.zeros(len(images), int)
    data = put_evaluation_set(head, images.astype(np.uint8), labels, 16, make_shardings())
    params = {"kernel": jnp.asarray(PARAMS, jnp.float32)}
    evaluator = Evaluator(apply, params, lambda images: images / 255 - 0.5)
    good, huge = jnp.zeros((12, 6)), jnp.full((12, 6), jnp.nan)
    error = disentanglement_error(
        evaluator, ({"kernel": good}, {"kernel": huge}), (data, data), [0.0, 1.0]
    )
    np.testing.assert_array_equal(error, 2.0)
    with pytest.raises(ValueError, match="alphas: contains inf at 1; give finite numbers"):
        disentanglement_error(evaluator, ({"kernel": good},) * 2, (data, data), [0.0, np.inf])
