"""What the forward pass keeps for the backward pass."""

import jax
import jax.numpy as jnp
import pytest

from orthoreg_jax.clip.config import VisionConfig
from orthoreg_jax.clip.modules import VisionTransformer

WIDTH, TOKENS = 128, 17


def temporaries(layers, batch, remat):
    sizes = VisionConfig(
        width=WIDTH,
        layers=layers,
        heads=2,
        mlp_width=4 * WIDTH,
        activation="gelu",
        eps=1e-5,
        image_size=32,
        patch_size=8,
    )
    pixels = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
    tower = VisionTransformer(sizes, WIDTH, remat=remat)
    params = jax.eval_shape(tower.init, jax.random.key(0), pixels)
    gradient = jax.jit(jax.grad(lambda params, pixels: tower.apply(params, pixels).sum()))
    compiled = gradient.lower(params, pixels).compile()
    return compiled.memory_analysis().temp_size_in_bytes


# A layer's input, and of width 3, 1 and 4 the outputs of in_proj, out_proj and fc1.
@pytest.mark.parametrize("remat, kept", [(False, 1 + 3 + 1 + 4), (True, 1)])
def test_a_layer_keeps_the_outputs_of_its_linear_layers(remat, kept):
    few, many = 2, 4
    growth = [
        temporaries(many, batch, remat) - temporaries(few, batch, remat) for batch in (64, 128)
    ]
    numbers = (growth[1] - growth[0]) / jnp.dtype(jnp.float32).itemsize
    assert numbers == (many - few) * 64 * TOKENS * WIDTH * kept
