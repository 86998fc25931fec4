"""Our CLIP against transformers' own on random weights (fixtures/make_parity.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from orthoreg_jax.clip import weights
from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from orthoreg_jax.clip.modules import Clip, TextTransformer

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


def relative_error(actual, expected) -> float:
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.fixture(params=["quick_gelu_patch8", "gelu_patch4"], scope="module")
def case(request):
    directory = FIXTURES / request.param
    oracle = safetensors.numpy.load_file(directory / "oracle.safetensors")
    oracle = {key: jnp.asarray(value) for key, value in oracle.items()}
    return load_checkpoint(directory), oracle


def test_features_and_logits(case):
    checkpoint, oracle = case
    images = image_encoder(checkpoint.config)(checkpoint.params["visual"], oracle["pixels"])
    assert relative_error(images, oracle["image_features"]) < 1e-5
    text = TextTransformer(checkpoint.config.text, checkpoint.config.projection)
    texts = text.apply({"params": checkpoint.params["text"]}, oracle["tokens"])
    assert relative_error(texts, oracle["text_features"]) < 1e-5
    logits = Clip(checkpoint.config).apply(
        {"params": checkpoint.params}, oracle["pixels"], oracle["tokens"]
    )
    assert relative_error(logits, oracle["logits"]) < 1e-5


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_of_image_tower(case, remat):
    checkpoint, oracle = case
    model = Clip(checkpoint.config, remat=remat)

    def loss(params):
        logits = model.apply({"params": params}, oracle["pixels"], oracle["tokens"])
        labels = jnp.asarray(oracle["labels"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradients = weights.to_layout(jax.jit(jax.grad(loss))(checkpoint.params), "huggingface")
    compared = 0
    for key, expected in oracle.items():
        if key.startswith("gradient/"):
            # Keys' biases have no gradient (softmax ignores a shift), only rounding.
            if key.endswith("k_proj.bias"):
                assert np.abs(gradients[key.removeprefix("gradient/")]).max() < 1e-6
            else:
                assert relative_error(gradients[key.removeprefix("gradient/")], expected) < 1e-5
            compared += 1
    assert compared == sum(
        key.startswith("vis") for key in weights.to_layout(checkpoint.params, "huggingface")
    )


def test_bfloat16_compute_is_close_and_keeps_parameters(case):
    checkpoint, oracle = case
    encode = image_encoder(checkpoint.config, dtype=jnp.bfloat16)
    features = encode(checkpoint.params["visual"], oracle["pixels"])
    assert features.dtype == jnp.bfloat16
    assert relative_error(features.astype(np.float32), oracle["image_features"]) < 3e-2
