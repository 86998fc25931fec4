"""Every penalty of the table in every mode: the step takes the gradient of the written-out loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from orthoreg_jax import apply_task_vector, kronecker_factors, merge_kronecker
from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.clip.config import VisionConfig
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import default_config
from orthoreg_jax.training.modes import MODES, make_mode
from orthoreg_jax.training.penalties import PENALTIES, Context, penalty_options
from orthoreg_jax.training.step import init_state, make_train_step

TOWER = VisionTransformer(
    VisionConfig(
        width=16,
        layers=2,
        heads=2,
        mlp_width=32,
        activation="gelu",
        eps=1e-5,
        image_size=8,
        patch_size=4,
    ),
    6,
)
CONFIG = default_config()
OPTIONS = {name: penalty_options(name, CONFIG) for name in PENALTIES}
STRENGTHS = {"orthoreg": 0.1, "taujp": 0.5, "tak": 2.0, "drift": 3.0}


def apply(params, pixels):
    return TOWER.apply({"params": params}, pixels)


def images(seed, count=4):
    shape = (count, 8, 8, 3)
    return jnp.asarray(np.random.default_rng(seed).integers(0, 255, shape), jnp.uint8)


class Others:
    """Two other tasks, of three images each."""

    def feeds(self, batch_size):
        raise AssertionError("no penalty but tauJp asks for images")

    def factors(self, images_of_each, normalized):
        assert images_of_each == CONFIG.penalty.tak.images
        return measured(normalized)

    def general(self, images_of_it, normalized):
        assert images_of_it == CONFIG.penalty.drift.images and normalized
        return measured(True)[0]


@functools.cache
def measured(normalized=False):
    draws = jax.random.normal(jax.random.key(9), (3, 6))
    return [
        kronecker_factors(TOWER, params0(), images(seed, 3) / 255, draws, normalized=normalized)
        for seed in (5, 6)
    ]


def test_tak_as_its_authors_set_it():
    """The projection's term weighs 0.01, and the curvature is of normalised features."""
    options = ConfigDict({"images": CONFIG.penalty.tak.images, "normalized": True,
                          "projection": 0.01})  # fmt: skip
    found = PENALTIES["tak"].make(options, 100.0).prepare(Others()).constant
    both = measured(True)
    for path, factors in found.items():
        weight = 0.01 if path == "projection" else 1.0
        expected = weight * sum(np.asarray(each[path].outputs) for each in both)
        np.testing.assert_allclose(factors.outputs, expected, rtol=1e-5, atol=1e-7)
        plain = weight * sum(np.asarray(each[path].outputs) for each in measured())
        assert np.abs(factors.outputs - plain).max() > 1e-3 * np.abs(plain).max()


@functools.cache
def params0():
    return jax.jit(TOWER.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]


# The mode "delta" has a loss of its own, see test_delta.py.
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "delta"])
def test_a_step_follows_the_sum_of_all_gradients(mode):
    mode, pretrained = make_mode(mode, CONFIG), params0()
    penalties = [row.make(OPTIONS[name], STRENGTHS[name]) for name, row in PENALTIES.items()]
    assert penalties[0].prepare(Others()) == Context()
    factors = penalties[2].prepare(Others()).constant
    general = penalties[3].prepare(Others()).constant
    seen = (None, images(3, 2), factors, general)
    optimizer = optax.sgd(0.1)
    step = make_train_step(mode, apply, optimizer, lambda x: x / 255, penalties)
    state = init_state(mode, optimizer, pretrained, jax.random.key(1))
    # Away from the pre-trained weights, where the rivals have no gradient.
    moved = jax.tree.map(
        lambda leaf: leaf + 0.01 * jax.random.normal(jax.random.key(2), leaf.shape), state.trainable
    )
    state = state._replace(trainable=moved)
    head = Head(jax.random.normal(jax.random.key(5), (4, 6)), jnp.int32(4))
    labels = jnp.arange(4)

    def omegas(trainable):
        delta = mode.delta(trainable, pretrained)
        vector = dense(delta)

        def features(alpha):
            return apply(apply_task_vector(pretrained, vector, alpha), seen[1] / 255)

        _, tangent = jax.jvp(features, (0.0,), (1.0,))
        return jnp.stack(
            [
                penalties[0].value(None, pretrained, delta, None),
                (tangent**2).sum(axis=1).mean(),
                penalties[2].value(None, pretrained, vector, factors),
                penalties[3].value(None, pretrained, vector, general),
            ]
        )

    weights = jnp.array(list(STRENGTHS.values()))

    def loss(trainable):
        outputs = mode.forward(apply, pretrained, trainable, images(0) / 255)
        outputs /= jnp.linalg.norm(outputs, axis=1, keepdims=True)
        entropy = -jax.nn.log_softmax(outputs @ head.weights.T)[jnp.arange(4), labels].mean()
        values = omegas(trainable)
        return entropy + weights @ values, weights @ values / weights.sum()

    gradient, mean = jax.jit(jax.grad(loss, has_aux=True))(moved)
    expected = jax.tree.map(lambda x, g: x - 0.1 * g, moved, gradient)
    state, metrics = step(state, pretrained, head, images(0), labels, seen)
    np.testing.assert_allclose(metrics.penalty, mean, rtol=1e-4)
    for ours, theirs in zip(*map(jax.tree.leaves, (state.trainable, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_drift_is_of_images_of_no_task():
    options = ConfigDict({**OPTIONS["drift"].to_dict(), "projection": 0.1})
    found = PENALTIES["drift"].make(options, 1.0).prepare(Others()).constant
    assert not PENALTIES["drift"].others
    for path, pair in measured(True)[0].items():
        weight = 0.1 if path == "projection" else 1.0
        np.testing.assert_allclose(found[path].outputs, weight * pair.outputs, rtol=1e-6)
        np.testing.assert_array_equal(found[path].inputs, pair.inputs)


def test_merged_factors_are_the_others():
    alone = measured()
    constant = PENALTIES["tak"].make(OPTIONS["tak"], 1.0).prepare(Others()).constant
    for path, pair in merge_kronecker(alone).items():
        np.testing.assert_array_equal(pair.outputs, constant[path].outputs)
