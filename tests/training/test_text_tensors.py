"""The authors' text tensors beside the image tower, against their loop written out in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from orthoreg_jax import load_checkpoint, load_tree
from orthoreg_jax.arithmetic.paths import flatten, unflatten
from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.config import ClipConfig
from orthoreg_jax.clip.modules import Clip
from orthoreg_jax.clip.weights import TRAINED_MATRICES, beside_text_tensors, to_layout
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import default_config
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step
from tests.small_run import orthoreg, relative_difference

STEPS, WARMUP, RATE, DECAY, CLIP, STRENGTH = 5, 2, 1e-2, 0.1, 1.0, 3.0


@pytest.fixture(scope="module")
def problem():
    """A tiny CLIP with both towers, a head, and a batch for each step."""
    like = load_checkpoint("embedded").config
    small = {"width": 12, "layers": 2, "heads": 2, "mlp_width": 20}
    visual = dataclasses.replace(like.visual, image_size=8, patch_size=4, **small)
    text = dataclasses.replace(like.text, vocab_size=30, context_length=7, **small)
    config = ClipConfig(visual=visual, text=text, projection=6)
    images, tokens = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 1), jnp.int32)
    params = jax.device_get(Clip(config).init(jax.random.key(0), images, tokens)["params"])
    rng = np.random.default_rng(1)
    head = Head(jnp.asarray(10 * rng.normal(size=(4, 6)), jnp.float32), jnp.int32(4))
    batches = [(rng.integers(0, 255, (8, 8, 8, 3), np.uint8), np.arange(8) % 4)] * STEPS
    return config, params, head, batches


def theirs(problem, mode, text_tensors):
    """Their loop: every 2-D tensor in their layout is penalised, all gradients are clipped as one.

    Only the gradient of the task's loss is JAX's; a text tensor has none.
    """
    config, params, head, batches = problem
    apply = image_encoder(config)
    start = flatten(beside_text_tensors(params) if text_tensors else params["visual"])
    start = {name: np.asarray(leaf, np.float64) for name, leaf in start.items()}
    weights = {name: leaf.copy() for name, leaf in start.items()}

    def loss(tower, images, labels):
        pixels = jnp.asarray(images) / 255
        delta = jax.tree.map(jnp.subtract, tower, params["visual"])
        if mode == "linearized":
            at = jax.jvp(lambda p: apply(p, pixels), (params["visual"],), (delta,))
            features = at[0] + at[1]
        else:
            features = apply(tower, pixels)
        logits = head.logits(features)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    first = {name: np.zeros_like(leaf) for name, leaf in start.items()}
    second = {name: np.zeros_like(leaf) for name, leaf in start.items()}
    terms, norms = [], []
    for step, (images, labels) in enumerate(batches):
        tower = {name: leaf for name, leaf in weights.items() if not name.startswith("text/")}
        tower = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), unflatten(tower))
        slope = flatten(jax.grad(loss)(tower, images, labels))
        gradient = {name: np.asarray(slope.get(name, 0.0), np.float64) for name in weights}
        term = 0.0
        for name, place, update in matrices(weights, start):
            small = update if update.shape[0] >= update.shape[1] else update.T
            error = small.T @ small - np.eye(small.shape[1])
            norm = np.linalg.norm(error)
            pull = 2 * small @ error / norm
            term += norm
            gradient[name] = np.broadcast_to(gradient[name], weights[name].shape).copy()
            gradient[name][place] += STRENGTH * (pull if small is update else pull.T)
        terms.append(term)
        norms.append(np.sqrt(sum(np.sum(leaf**2) for leaf in gradient.values())))
        rate = RATE * (step + 1) / WARMUP if step < WARMUP else RATE * 0.5 * (
            1 + np.cos(np.pi * (step - WARMUP) / (STEPS - WARMUP))
        )  # fmt: skip
        for name, leaf in weights.items():
            clipped = gradient[name] * min(1.0, CLIP / norms[-1])
            first[name] = 0.9 * first[name] + 0.1 * clipped
            second[name] = 0.999 * second[name] + 0.001 * clipped**2
            mean = first[name] / (1 - 0.9 ** (step + 1))
            square = second[name] / (1 - 0.999 ** (step + 1))
            weights[name] = leaf - rate * (mean / (np.sqrt(square) + 1e-8) + DECAY * leaf)
    return {name: weights[name] - start[name] for name in weights}, terms, norms


def matrices(weights, start):
    """Updates that are 2-D tensors there, one block at a time: the leaf, the place in it, dW."""
    for name in weights:
        update = weights[name] - start[name]
        if "/blocks/" in f"/{name}" and name.endswith("kernel"):
            for layer in range(len(update)):
                yield name, layer, update[layer]
        elif update.ndim == 2 and "blocks" not in name:
            yield name, slice(None), update


def ours(problem, mode, text_tensors):
    config, params, head, batches = problem
    start = beside_text_tensors(params) if text_tensors else params["visual"]
    start = jax.tree.map(jnp.asarray, start)
    made = make_mode(mode, default_config())
    optimizer = make_optimizer(RATE, WARMUP, STEPS, DECAY, CLIP)
    step = make_train_step(
        made,
        image_encoder(config),
        optimizer,
        lambda images: images / 255,
        (orthogonality(STRENGTH, "released", TRAINED_MATRICES),),
    )
    state = init_state(made, optimizer, start, jax.random.key(0))
    terms, norms = [], []
    for images, labels in batches:
        state, metrics = step(state, start, head, jnp.asarray(images), jnp.asarray(labels))
        terms.append(float(metrics.penalty))
        norms.append(float(metrics.gradient_norm))
    return flatten(made.delta(state.trainable, start)), terms, norms


@pytest.mark.parametrize("text_tensors", [True, False])
@pytest.mark.parametrize("mode", ["full", "linearized"])
def test_equals_the_authors_loop(problem, mode, text_tensors):
    delta, terms, norms = ours(problem, mode, text_tensors)
    expected, their_terms, their_norms = theirs(problem, mode, text_tensors)
    np.testing.assert_allclose(terms, their_terms, rtol=1e-5)
    np.testing.assert_allclose(norms, their_norms, rtol=1e-4)
    assert set(delta) == set(expected)
    # Keys' biases change no attention: their gradients are rounding, which Adam makes large.
    for leaves in (delta, expected):
        leaves["blocks/attn/in_proj/bias"] = np.delete(
            leaves["blocks/attn/in_proj/bias"], np.s_[12:24], axis=-1
        )
    difference = sum(np.sum((delta[name] - expected[name]) ** 2) for name in expected)
    size = sum(np.sum(leaf**2) for leaf in expected.values())
    assert np.sqrt(difference / size) < 1e-3


def test_text_tensors_act_on_the_tower_by_the_clip_alone(problem):
    (with_text, terms, norms), (without, plain_terms, plain_norms) = (
        ours(problem, "full", flag) for flag in (True, False)
    )
    text = {name: leaf for name, leaf in with_text.items() if name.startswith("text/")}
    assert set(text) == {
        "text/token_embedding", "text/position_embedding", "text/projection/kernel",
    }  # fmt: skip
    assert all(np.any(leaf) for leaf in text.values())
    # At the first step their update is 0: so is their gradient, and each adds sqrt(smaller side).
    np.testing.assert_allclose(terms[0] - plain_terms[0], 12**0.5 + 7**0.5 + 6**0.5, rtol=1e-4)
    assert norms[0] == pytest.approx(plain_norms[0], rel=1e-6) and norms[2] > plain_norms[2]
    moved = np.sqrt(sum(np.sum((with_text[name] - without[name]) ** 2) for name in without))
    assert moved > 1e-3 * np.sqrt(sum(np.sum(leaf**2) for leaf in without.values()))


def test_the_tensors_are_those_of_the_authors_layout(problem):
    _, params, _, _ = problem
    layout = to_layout(params, "open_clip")
    loose = {
        name for name, leaf in layout.items()
        if leaf.ndim == 2 and not name.startswith(("visual.", "transformer."))
    }  # fmt: skip
    found = flatten(beside_text_tensors(params)["text"])
    expected = sorted(layout[name].shape for name in loose)
    assert sorted(leaf.shape for leaf in found.values()) == expected


def test_a_run_saves_the_tower_alone(inputs, finished, tmp_path):
    """And the option changes what it is said to change: methods with the penalty."""
    option = "--config.penalty.text_tensors=True"
    assert orthoreg("finetune", inputs, tmp_path / "run", option) == 0
    changed = {}
    for method in ("full", "full+orthoreg"):
        paths = [folder / method / "seed3" / "first" / "vector.safetensors"
                 for folder in (tmp_path / "run", finished)]  # fmt: skip
        assert set(flatten(load_tree(paths[0]))) == set(flatten(load_tree(paths[1])))
        changed[method] = relative_difference(*paths)
    assert changed["full"] == 0 and changed["full+orthoreg"] > 1e-4
